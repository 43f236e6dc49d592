"""A cluster of real processes to be tested and broken, from asyncio. The interface that the chaos runner builds on.

    async with Cluster.start(ClusterSpec(servers=5, clients=2, test_clients=3)) as cluster:
        await cluster.wait_for_leader(10.0)
        start_ns, end_ns = await cluster.partition([["s1", "s2"], ["s3", "s4", "s5"]])
        connection = await cluster.connect("t1", "s1")      # over a link that can be cut
        await cluster.heal()

Faults return an Interval of CLOCK_MONOTONIC nanoseconds: before `start_ns` the fault was in force nowhere, after
`end_ns` it is in force everywhere. The cluster dies with the process that started it, however that ends (a pipe held
by this process: children that inherit all descriptors must not outlive it). Nothing here touches a namespace: the
supervisor does, and passes sockets.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from jepsen_like.cluster import launch, observe, protocol, state
from jepsen_like.cluster.control import ControlConnection, dial
from jepsen_like.cluster.protocol import ClusterFailure, Exit, Interval, NodeState, WorldState
from jepsen_like.cluster.spec import HTTP_PORT, ClusterSpec, InvalidSpec
from jepsen_like.net import addresses
from jepsen_like.net.rules import InvalidRule, LinkRule

__all__ = [
    "Cluster",
    "ClusterFailure",
    "ClusterSpec",
    "ClusterStatus",
    "Exit",
    "Interval",
    "InvalidRule",
    "InvalidSpec",
    "LinkRule",
    "NodeState",
    "NotElected",
    "WorldState",
]

LEADER_POLL_S = 0.02

Socket = socket.socket


class NotElected(ClusterFailure):
    """The cluster does not serve: no server said within the deadline that it leads, or an agent does not answer.

    `ended`: the agent whose end, or silence, was the reason, if one was.
    """

    def __init__(self, text: str, ended: str | None = None) -> None:
        super().__init__(text)
        self.ended = ended


class ClusterStatus(msgspec.Struct, frozen=True):
    """The supervisor's knowledge and what each agent says about itself (only agents that answered have a view)."""

    world: WorldState
    views: dict[str, observe.AgentView]
    leader: str | None


class Cluster:
    """A running cluster. Get one from `Cluster.start` (yours, dies with you) or `Cluster.attach` (a daemon's)."""

    def __init__(self, spec: ClusterSpec, directory: Path, control: ControlConnection) -> None:
        self.spec = spec
        self.directory = directory
        """The state directory: control socket, data and logs (unless the spec says where)."""
        self.servers = spec.server_names
        self.clients = spec.client_names
        self.test_clients = spec.test_client_names
        self.agents = self.servers + self.clients
        """All nodes that run an agent."""
        self._control = control

    @classmethod
    @asynccontextmanager
    async def start(cls, spec: ClusterSpec) -> AsyncIterator[Cluster]:
        """Start all agents (it does not wait for a leader); at the end of the block everything is stopped and removed.

        Agents get SIGTERM and five seconds at the end. Raises SetupFailed with cause and remedy if the machine refuses.
        """
        launching = asyncio.ensure_future(asyncio.to_thread(launch.launch, spec, attached=True))
        try:
            launched = await asyncio.shield(launching)
        except asyncio.CancelledError:  # a thread cannot be cancelled: end what it has started
            launched = await launching
            await asyncio.to_thread(launched.end)
            raise
        try:
            cluster = cls(launched.spec, launched.directory, ControlConnection(dial(launched.directory)))
            try:
                yield cluster
            finally:
                await cluster.shut_down()
        finally:
            await asyncio.to_thread(launched.end)

    @classmethod
    async def attach(cls, name: str) -> Cluster:
        """A cluster that runs already; raises ClusterFailure if there is none of this name. Close it with `detach`."""
        directory = state.cluster_directory(name)
        spec = state.load(directory).spec
        try:
            connection = dial(directory)
        except OSError as error:
            raise ClusterFailure(
                f"cluster {name}: its supervisor is gone; `comitia cluster down {name}` clears what it left"
            ) from error
        return cls(spec, directory, ControlConnection(connection))

    def detach(self) -> None:
        """Close the connection; the cluster goes on, if it is a daemon."""
        self._control.close()

    # Links ----------------------------------------------------------------------------------------

    async def partition(self, groups: Sequence[Sequence[str]]) -> Interval:
        """Silently cut all links between nodes of different groups; links inside a group are mended. Replaces an
        earlier partition of the same nodes. Nodes in no group (test clients, say) keep their links."""
        return await self._fault(protocol.Partition(tuple(tuple(group) for group in groups)))

    async def cut(self, a: str, b: str, *, one_way: bool = False) -> Interval:
        """A silent black hole from a to b, and from b to a unless `one_way`."""
        return await self._fault(protocol.Cut(_links([(a, b)], one_way)))

    async def cut_links(self, links: Iterable[tuple[str, str]]) -> Interval:
        """Cut these directed links, all in one step."""
        return await self._fault(protocol.Cut(tuple(links)))

    async def shape(self, a: str, b: str, rule: LinkRule, *, one_way: bool = False) -> Interval:
        """Delay, jitter, loss, ... from a to b, and back unless `one_way`; instead of what those links did before."""
        return await self._fault(protocol.Shape(_links([(a, b)], one_way), rule))

    async def shape_links(self, links: Iterable[tuple[str, str]], rule: LinkRule) -> Interval:
        """The same for directed links, all in one step."""
        return await self._fault(protocol.Shape(tuple(links), rule))

    async def heal(self) -> Interval:
        """All links clear again."""
        return await self._fault(protocol.Heal())

    async def heal_links(self, links: Iterable[tuple[str, str]]) -> Interval:
        """These directed links clear again."""
        return await self._fault(protocol.Heal(tuple(links)))

    # Processes ------------------------------------------------------------------------------------

    async def kill(self, node: str) -> Interval:
        """kill -9; at `end_ns` the process is gone. Raises ClusterFailure if it does not run."""
        return await self._fault(protocol.Kill(node))

    async def pause(self, node: str) -> Interval:
        """SIGSTOP; at `end_ns` all its threads are stopped."""
        return await self._fault(protocol.Pause(node))

    async def resume(self, node: str) -> Interval:
        """SIGCONT. Raises ClusterFailure if the node is not paused."""
        return await self._fault(protocol.Resume(node))

    async def stop(self, node: str, timeout_s: float = 10.0) -> Interval:
        """SIGTERM and wait for the end; killed and ClusterFailure after `timeout_s`."""
        return await self._fault(protocol.Stop(node, timeout_s))

    async def restart(self, node: str) -> Interval:
        """Start the node's agent again on the same data; one that still runs is stopped gracefully first."""
        world = await self.world()
        before = time.monotonic_ns()
        if next(each.state for each in world.nodes if each.name == node) in ("running", "paused"):
            await self.stop(node)
        started = await self._fault(protocol.Start(node))
        return Interval(before, started.end_ns)

    # Looking --------------------------------------------------------------------------------------

    async def world(self) -> WorldState:
        """Processes, links and exits, as the supervisor knows them; does not talk to agents."""
        reply, _ = await self._control.ask(protocol.Describe())
        assert reply.world is not None
        return reply.world

    async def unexpected_exits(self) -> list[Exit]:
        """Agents that ended although nobody asked them to."""
        return [each for each in (await self.world()).exits if not each.expected]

    async def status(self, timeout_s: float = 1.0) -> ClusterStatus:
        """The world, and what every running agent says about itself within `timeout_s`."""
        world = await self.world()
        running = [node.name for node in world.nodes if node.state == "running"]
        answers = await asyncio.gather(*(self._view(node, timeout_s) for node in running))
        views = {view.node: view for view in answers if view is not None}
        return ClusterStatus(world, views, observe.leader_among(list(views.values())))

    async def leader(self, timeout_s: float = 0.5) -> str | None:
        """The running server that says it leads (of several, the one of the highest term), or None."""
        return (await self.status(timeout_s)).leader

    async def wait_for_leader(self, deadline_s: float = 10.0) -> str:
        """The leader, once there is one; raises NotElected after `deadline_s`, or when an agent ended by itself."""
        end = time.monotonic() + deadline_s
        while True:
            leader = await self.leader()
            if leader is not None:
                return leader
            exits = await self.unexpected_exits()
            if exits:
                raise NotElected(f"{exits[0].node} ended by itself (status {exits[0].status})", exits[0].node)
            if time.monotonic() > end:
                raise NotElected(f"no leader within {deadline_s:g} s")
            await asyncio.sleep(LEADER_POLL_S)

    async def wait_for_answers(self, deadline_s: float = 10.0) -> None:
        """Return when every running agent answers HTTP; raises NotElected after `deadline_s`, naming one that does
        not."""
        end = time.monotonic() + deadline_s
        while True:
            seen = await self.status()
            silent = [node.name for node in seen.world.nodes if node.state == "running" and node.name not in seen.views]
            if not silent:
                return
            if time.monotonic() > end:
                raise NotElected(f"{silent[0]} does not answer HTTP within {deadline_s:g} s", silent[0])
            await asyncio.sleep(LEADER_POLL_S)

    # Clients --------------------------------------------------------------------------------------

    def address(self, node: str) -> str:
        """The node's address inside the cluster."""
        return addresses.address_of(node)

    async def socket(self, origin: str, *, datagram: bool = False) -> Socket:
        """A fresh non-blocking TCP (or UDP) socket, not connected, that lives in `origin`'s namespace.

        What it sends to other nodes crosses the switch as that node's traffic. Use it from this process like any other.
        """
        _, descriptors = await self._control.ask(protocol.MakeSocket(origin, datagram))
        made = socket.socket(fileno=descriptors[0])
        made.setblocking(False)
        return made

    async def connect(self, origin: str, node: str, port: int = HTTP_PORT, timeout_s: float | None = None) -> Socket:
        """Such a socket, connected to `node`; raises OSError, or TimeoutError after `timeout_s`. Cuts are silent: a
        connection over a cut link hangs until then."""
        made = await self.socket(origin)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(made, (addresses.address_of(node), port))
        except BaseException:
            made.close()
            raise
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    async def request(
        self, node: str, method: str, path: str, body: bytes = b"", timeout_s: float = 2.0
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request to an agent from within its own namespace, which no cut hinders: for observers, not for a
        test's operations. Raises HttpFailure."""
        end = time.monotonic() + timeout_s
        try:
            connection = await self.connect(node, node, timeout_s=timeout_s)
        except (OSError, TimeoutError) as error:
            raise observe.HttpFailure(f"{node}: {str(error) or 'timed out'}") from error
        host = f"{addresses.address_of(node)}:{HTTP_PORT}"
        return await observe.http_request(connection, host, method, path, body, max(0.01, end - time.monotonic()))

    async def namespaces(self, node: str) -> list[int]:
        """Descriptors of the namespaces of a node, to enter with setns(2) in this order; the caller closes them."""
        _, descriptors = await self._control.ask(protocol.OpenNamespaces(node))
        return descriptors

    async def shut_down(self, timeout_s: float = 5.0) -> None:
        """End the cluster and everything in it. Idempotent: a supervisor that is gone already is no error."""
        try:
            await self._control.ask(protocol.Shutdown(timeout_s))
        except ClusterFailure:
            pass
        finally:
            self._control.close()

    async def _fault(self, operation: protocol.Operation) -> Interval:
        reply, _ = await self._control.ask(operation)
        return Interval(reply.start_ns, reply.end_ns)

    async def _view(self, node: str, timeout_s: float) -> observe.AgentView | None:
        try:
            status, _, body = await self.request(node, "GET", "/v1/agent/self", timeout_s=timeout_s)
            if status == 200:
                return observe.agent_view(node, body)
            _, _, body = await self.request(node, "GET", "/v1/status/leader", timeout_s=timeout_s)
            return observe.view_of_leader(node, body)
        except observe.HttpFailure:
            return None


def _links(pairs: Iterable[tuple[str, str]], one_way: bool) -> tuple[tuple[str, str], ...]:
    return tuple(link for a, b in pairs for link in ([(a, b)] if one_way else [(a, b), (b, a)]))
