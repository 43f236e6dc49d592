"""The supervisor of one cluster: pid 1 of a pid, mount and network namespace of its own.

When it dies, however it dies, the kernel kills every process of its pid namespace, and with them go sockets, devices,
network namespaces and mounts. So there is nothing to clean up, and no path on which cleaning up could be forgotten
(pid_namespaces(7)).

    outside:  unshare, fork ->  pid 1: namespaces and devices, forks the switch and the relay, starts the agents,
                                       obeys the control socket until Shutdown or the end of the lifeline

One thread only: it moves between network namespaces to make sockets in them. It never looks at what agents say.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn, assert_never

import msgspec

from jepsen_like.cluster import plan as plans
from jepsen_like.cluster import privilege, protocol
from jepsen_like.cluster.control_server import ControlServer
from jepsen_like.cluster.processes import AgentProcess, reap
from jepsen_like.net import addresses, interfaces, namespaces, relay, rules, switch
from model_checks.verdicts import SetupFailed

SWITCH_ANSWER_BYTES_MAX = 16 << 20
SWITCH_DIED = "the switch has died: without it no node reaches another, and the cluster ends"


class Supervisor:
    """The cluster from within. `nets`: a descriptor of each node's network namespace."""

    def __init__(
        self, plan: plans.WorldPlan, nets: dict[str, int], switch_pid: int, switch_socket: socket.socket
    ) -> None:
        self._plan = plan
        self._nets = nets
        self._home_net = namespaces.current("net")
        self._switch_pid = switch_pid
        self._switch_socket = switch_socket
        self._switch_lock = asyncio.Lock()
        self._rules: dict[rules.Link, rules.LinkRule] = {}
        self._agents = {
            node.name: AgentProcess(node.name, node.agent, nets[node.name], plan.user)
            for node in plan.nodes
            if node.agent is not None
        }
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Start all agents, report, obey until the end."""
        loop = asyncio.get_running_loop()
        self._switch_reader, self._switch_writer = await asyncio.open_connection(
            sock=self._switch_socket, limit=SWITCH_ANSWER_BYTES_MAX
        )
        loop.add_signal_handler(signal.SIGCHLD, self._children_changed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        if self._plan.lifeline is not None:
            loop.add_reader(
                self._plan.lifeline, self._ended.set
            )  # nobody writes to it: readable means that it has ended
        server = ControlServer(Path(self._plan.directory), self._plan.user, self.perform)
        for node in self._plan.nodes:
            if node.agent is not None and node.started:
                self._agents[node.name].start()
        server.open()
        report(self._plan, plans.Report(ready=True))
        await self._ended.wait()
        await server.close()

    async def perform(self, operation: protocol.Operation) -> tuple[protocol.Reply, list[int], bool]:
        """Carry out one operation: the reply, descriptors to send with it, and whether these are to be closed after."""
        done = protocol.Reply(0)
        match operation:
            case protocol.Partition(groups):
                done = await self._follow(rules.partitioned(self._rules, [self._known(group) for group in groups]))
            case protocol.Cut(links):
                done = await self._follow(rules.severed(self._rules, self._known_links(links)))
            case protocol.Shape(links, rule):
                done = await self._follow(rules.shaped(self._rules, self._known_links(links), rule))
            case protocol.Heal(links):
                named = None if links is None else self._known_links(links)
                done = await self._follow(rules.healed(self._rules, named))
            case protocol.Kill(node):
                done = _reply(await self._agent(node).kill())
            case protocol.Pause(node):
                done = _reply(await self._agent(node).pause())
            case protocol.Resume(node):
                done = _reply(await self._agent(node).resume())
            case protocol.Stop(node, timeout_s):
                done = _reply(await self._agent(node).stop(timeout_s))
            case protocol.Start(node):
                done = _reply(self._agent(node).start())
            case protocol.Describe():
                done = protocol.Reply(0, world=await self._describe())
            case protocol.MakeSocket(node, datagram):
                return done, [self._make_socket(node, datagram)], True
            case protocol.OpenNamespaces(node):
                return done, self._open_namespaces(node), True
            case protocol.Shutdown(timeout_s):
                await self._stop_agents(timeout_s)
                asyncio.get_running_loop().call_later(0.01, self._ended.set)  # the reply leaves first
            case _:
                assert_never(operation)
        return done, [], False

    async def _follow(self, changed: dict[rules.Link, rules.LinkRule]) -> protocol.Reply:
        """Put rules in force on the switch, all at once."""
        before = time.monotonic_ns()
        links = tuple(switch.RuledLink(source, target, rule) for (source, target), rule in changed.items())
        answer = await self._ask_switch(switch.SetRules(links))
        self._rules = changed
        return protocol.Reply(0, before, answer.at_ns)

    async def _ask_switch(self, request: switch.SetRules | switch.Count) -> switch.Answer:
        async with self._switch_lock:
            self._switch_writer.write(msgspec.json.encode(request) + b"\n")
            try:
                line = await self._switch_reader.readline()
            except ConnectionError:
                line = b""
        if not line:
            self._switch_died()
            raise protocol.ClusterFailure(SWITCH_DIED)
        return msgspec.json.decode(line, type=switch.Answer)

    async def _describe(self) -> protocol.WorldState:
        answer = await self._ask_switch(switch.Count())
        links = tuple(
            protocol.LinkState(link.source, link.target, link.rule, link.counters or rules.LinkCounters())
            for link in answer.links
        )
        exits = sorted((exit_ for agent in self._agents.values() for exit_ in agent.exits), key=lambda each: each.at_ns)
        return protocol.WorldState(self._plan.name, tuple(map(self._node_state, self._plan.nodes)), links, tuple(exits))

    def _node_state(self, node: plans.NodePlan) -> protocol.NodeState:
        agent = self._agents.get(node.name)
        if agent is None:
            return protocol.NodeState(node.name, node.address, "none")
        return protocol.NodeState(node.name, node.address, agent.state, agent.starts, agent.pid, node.published)

    def _make_socket(self, node: str, datagram: bool) -> int:
        namespaces.enter(self._net(node), namespaces.CLONE_NEWNET)
        try:
            kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
            return socket.socket(socket.AF_INET, kind).detach()
        finally:
            namespaces.enter(self._home_net, namespaces.CLONE_NEWNET)

    def _open_namespaces(self, node: str) -> list[int]:
        net = os.dup(self._net(node))
        kinds = ["user"] if self._plan.own_user_namespace else []
        return [namespaces.current(kind) for kind in (*kinds, "mnt", "pid")] + [net]

    async def _stop_agents(self, timeout_s: float) -> None:
        """SIGTERM to all, and wait; one that does not end in time is killed."""
        running = [agent for agent in self._agents.values() if agent.pid is not None]
        await asyncio.gather(*(agent.stop(timeout_s) for agent in running), return_exceptions=True)

    def _children_changed(self) -> None:
        reap(list(self._agents.values()))
        try:
            os.kill(self._switch_pid, 0)
        except ProcessLookupError:
            self._switch_died()

    def _switch_died(self) -> None:
        if not self._ended.is_set():
            print(SWITCH_DIED, flush=True)
            self._ended.set()

    def _known(self, nodes: tuple[str, ...]) -> list[str]:
        for node in nodes:
            self._net(node)
        return list(nodes)

    def _known_links(self, links: tuple[tuple[str, str], ...]) -> list[rules.Link]:
        for source, target in links:
            self._known((source, target))
            if source == target:
                raise rules.InvalidRule(f"{source} has no link to itself")
        return list(links)

    def _net(self, node: str) -> int:
        if node not in self._nets:
            raise addresses.UnknownNode(f"no node is called {node!r}; there are {', '.join(self._nets)}")
        return self._nets[node]

    def _agent(self, node: str) -> AgentProcess:
        self._net(node)
        if node not in self._agents:
            raise addresses.UnknownNode(f"{node} runs no agent; those that do are {', '.join(self._agents)}")
        return self._agents[node]


def _reply(interval: protocol.Interval) -> protocol.Reply:
    return protocol.Reply(0, interval.start_ns, interval.end_ns)


def report(plan: plans.WorldPlan, what: plans.Report) -> None:
    """Tell the launcher; one that is gone does not mind."""
    try:
        os.write(plan.report, msgspec.json.encode(what) + b"\n")
    except BrokenPipeError:
        print("the launcher has gone away", flush=True)


def build_network(plan: plans.WorldPlan) -> tuple[dict[str, int], tuple[switch.Port, ...], bytes]:
    """A network namespace with lo and a link up for each node: descriptors of the namespaces, the switch's ports, and
    the header that their packets have.
    """
    home = namespaces.current("net")
    nets, ports = {}, []
    use_tun = interfaces.may_open_tun()
    if not use_tun:
        print(f"note: {interfaces.TUN_DEVICE} cannot be opened: using veth pairs instead", flush=True)
    for node in plan.nodes:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        nets[node.name] = namespaces.current("net")
        interfaces.set_up("lo")
        try:
            where = (node.address, addresses.PREFIX_BITS, plan.mtu)
            if use_tun:
                descriptor = interfaces.open_tun("tun0", *where)
            else:
                descriptor = interfaces.open_cable("veth0", *where, node.name, home)
        except OSError as error:
            raise privilege.link_refused(error, use_tun=use_tun) from error
        ports.append(switch.Port(node.name, descriptor))
    namespaces.enter(home, namespaces.CLONE_NEWNET)
    os.close(home)
    return nets, tuple(ports), b"" if use_tun else interfaces.ETHERNET_HEADER


def fork_switch(plan: plans.WorldPlan, ports: tuple[switch.Port, ...], link_header: bytes) -> tuple[int, socket.socket]:
    """Fork the switch, which alone keeps the devices: its pid and the socket that it obeys."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        with _Child():
            ours.close()
            try:
                os.setpriority(os.PRIO_PROCESS, 0, -10)  # every packet waits for it
            except PermissionError:
                print("note: the switch runs at normal priority", flush=True)
            switch.Switch(ports, its, plan.seed, plan.mtu, link_header).run()
    its.close()
    for port in ports:
        os.close(port.descriptor)
    return pid, ours


def fork_relay(plan: plans.WorldPlan, nets: dict[str, int]) -> None:
    """Fork the relay, if anything is published."""
    publications = tuple(
        relay.Publication(node.listener, nets[node.name], node.address, plan.http_port)
        for node in plan.nodes
        if node.listener is not None
    )
    if publications and os.fork() == 0:
        with _Child():
            relay.run(publications)
    for each in publications:
        os.close(each.listener)


class _Child:
    """The body of a forked child: it never returns into the parent's code."""

    def __enter__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> NoReturn:
        if error is not None:
            traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1 if error is not None else 0)


def be_pid_1(plan: plans.WorldPlan) -> None:
    """Build the world and supervise it. All failures before `ready` go to the launcher as one line."""
    try:
        namespaces.mount_own_proc()
        nets, ports, link_header = build_network(plan)
        switch_pid, switch_socket = fork_switch(plan, ports, link_header)
        fork_relay(plan, nets)

        async def supervise() -> None:
            await Supervisor(plan, nets, switch_pid, switch_socket).run()

        asyncio.run(supervise())
    except (SetupFailed, protocol.ClusterFailure) as error:
        report(plan, plans.Report(error=str(error)))
    except OSError as error:
        traceback.print_exc()
        report(plan, plans.Report(error=f"{error} (more in supervisor.log, beside the agents' logs)"))


def main(path: str) -> None:
    """Entry point: read the plan, make the namespaces, fork pid 1; stay to bury it if the cluster has an owner."""
    plan = msgspec.json.decode(Path(path).read_bytes(), type=plans.WorldPlan)
    listeners = [node.listener for node in plan.nodes if node.listener is not None]
    inherited = [plan.lock, plan.report, *listeners, *([] if plan.lifeline is None else [plan.lifeline])]
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    try:
        if plan.own_user_namespace:
            namespaces.unshare_user()
        namespaces.unshare(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
    except OSError as error:
        failure = privilege.namespaces_refused(error, privileged=not plan.own_user_namespace)
        report(plan, plans.Report(error=str(failure)))
        sys.exit(1)
    pid = os.fork()
    if pid == 0:
        with _Child():
            be_pid_1(plan)
    report(plan, plans.Report(supervisor_pid=pid))
    for descriptor in inherited:
        os.close(descriptor)
    if plan.lifeline is not None:
        os.waitpid(pid, 0)  # returns when the kernel has killed everything in the pid namespace


if __name__ == "__main__":
    main(sys.argv[1])
