"""Starts a cluster's supervisor from the host's side, and knows how to end it.

Makes what must be made outside: the state directory and its lock, listening sockets on the host's loopback, the
lifeline. The supervisor itself is a fresh interpreter: the caller may have threads, and processes with threads must
not change namespaces.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from jepsen_like.cluster import plan as plans
from jepsen_like.cluster import processes, state
from jepsen_like.cluster.protocol import ClusterFailure
from jepsen_like.cluster.spec import HTTP_PORT, SOURCE_ROOT, ClusterSpec, agent_argv
from jepsen_like.net import addresses
from jepsen_like.net.namespaces import Identity, invoking_user
from model_checks.verdicts import SetupFailed

END_TIMEOUT_S = 15.0


class Launched(msgspec.Struct, frozen=True):
    """A supervisor that has reported ready."""

    spec: ClusterSpec
    """As asked for, with the name that it got."""
    directory: Path
    supervisor_pid: int
    lifeline: int | None
    outer: subprocess.Popen[bytes] | None
    """The supervisor's parent on the host, which ends when everything of the cluster has; None for a daemon."""

    def end(self) -> None:
        """Let go of the lifeline, wait until everything is gone, remove the state directory. For an owned cluster."""
        if self.lifeline is not None:
            os.close(self.lifeline)
        if self.outer is not None:
            try:
                self.outer.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill(self.supervisor_pid)
                self.outer.wait(END_TIMEOUT_S)
            with contextlib.suppress(ClusterFailure):  # another cluster has taken the name meanwhile
                state.remove(self.directory)


def launch(spec: ClusterSpec, *, attached: bool) -> Launched:
    """Start a cluster whose agents run (they may not have a leader yet). Blocking. `attached`: it dies with this
    process.

    Raises ClusterFailure (a name in use, say) and SetupFailed (the machine refuses).
    """
    user = invoking_user()
    if spec.name is None:
        directory, lock = state.claim_free("run" if attached else "default", user)
    else:
        directory, lock = state.claim(spec.name, user)
    spec = msgspec.structs.replace(spec, name=directory.name)
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    lifeline_read, lifeline_write = os.pipe2(os.O_CLOEXEC) if attached else (None, None)
    listeners: list[socket.socket] = []
    try:
        state.make_directory(_log_directory(spec, directory), user)
        nodes = tuple(_node_plan(spec, node, directory, user, listeners) for node in _all_nodes(spec))
        plan = plans.WorldPlan(
            name=directory.name,
            directory=str(directory),
            nodes=nodes,
            user=user,
            own_user_namespace=os.geteuid() != 0,
            seed=spec.seed,
            mtu=spec.mtu,
            http_port=HTTP_PORT,
            lock=lock,
            report=report_write,
            lifeline=lifeline_read,
        )
        outer = _start_supervisor(plan, _log_directory(spec, directory), [listener.fileno() for listener in listeners])
    finally:
        for descriptor in (lock, report_write, lifeline_read):
            if descriptor is not None:
                os.close(descriptor)
        for listener in listeners:
            listener.close()
    return _await_ready(spec, directory, report_read, lifeline_write, outer)


def _all_nodes(spec: ClusterSpec) -> tuple[str, ...]:
    return spec.server_names + spec.client_names + spec.test_client_names


def _node_plan(
    spec: ClusterSpec, node: str, directory: Path, user: Identity | None, listeners: list[socket.socket]
) -> plans.NodePlan:
    """The node's directories made, and its port on the host's loopback opened, if it is to have one."""
    address = addresses.address_of(node)
    if node in spec.test_client_names:
        return plans.NodePlan(node, address)
    data_dir = (spec.data_dir or directory / "data").resolve() / node
    log_dir = _log_directory(spec, directory)
    for path in (data_dir, *([] if spec.trace_dir is None else [spec.trace_dir.resolve()])):
        state.make_directory(path, user)
    agent = processes.AgentPlan(
        argv=agent_argv(spec, node, data_dir),
        directory=os.getcwd(),
        log=str(log_dir / f"{node}.log"),
        environment=processes.agent_environment(SOURCE_ROOT),
    )
    started = node not in spec.spare_names
    if not spec.publish:
        return plans.NodePlan(node, address, agent, started=started)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listeners.append(listener)
    return plans.NodePlan(node, address, agent, listener.fileno(), f"127.0.0.1:{listener.getsockname()[1]}", started)


def _log_directory(spec: ClusterSpec, directory: Path) -> Path:
    return (spec.log_dir or directory / "logs").resolve()


def _start_supervisor(plan: plans.WorldPlan, log_dir: Path, listeners: list[int]) -> subprocess.Popen[bytes]:
    directory = Path(plan.directory)
    (directory / "plan.json").write_bytes(msgspec.json.encode(plan))
    (directory / "plan.json").chmod(0o600)  # it holds the environment
    inherited = [plan.lock, plan.report, *listeners, *([] if plan.lifeline is None else [plan.lifeline])]
    with open(log_dir / "supervisor.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jepsen_like.cluster.supervisor", str(directory / "plan.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=inherited,
            start_new_session=True,
            env=processes.agent_environment(SOURCE_ROOT),
        )


def _await_ready(
    spec: ClusterSpec, directory: Path, report: int, lifeline: int | None, outer: subprocess.Popen[bytes]
) -> Launched:
    """Hear the supervisor out until it is ready; whatever goes wrong, see to it that it is gone, and raise."""
    supervisor_pid = 0
    failure = f"the supervisor ended without a word: see {_log_directory(spec, directory)}/supervisor.log"
    try:
        with open(report, "rb") as pipe:
            for line in pipe:
                said = msgspec.json.decode(line, type=plans.Report)
                supervisor_pid = said.supervisor_pid or supervisor_pid
                failure = said.error or failure
                if said.ready:
                    break
            else:
                raise SetupFailed(failure)
        state.store(directory, state.Metadata(spec, supervisor_pid, daemon=lifeline is None))
    except BaseException:
        if lifeline is not None:
            os.close(lifeline)
        elif supervisor_pid:
            _kill(supervisor_pid)
        outer.wait(END_TIMEOUT_S)
        raise
    if lifeline is None:
        outer.wait(END_TIMEOUT_S)
        return Launched(spec, directory, supervisor_pid, None, None)
    return Launched(spec, directory, supervisor_pid, lifeline, outer)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
