"""The agents' processes, as the supervisor (pid 1 of their pid namespace) starts, signals and reaps them.

A fault is acknowledged when the kernel has reported it: killed is reaped, paused is WIFSTOPPED, resumed is
WIFCONTINUED. Not thread-safe, and must not be: see `net/namespaces.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from jepsen_like.cluster.protocol import ClusterFailure, Exit, Interval
from jepsen_like.net import namespaces

REPORT_TIMEOUT_S = 10.0
"""How long the kernel may take to report a signal's effect before we say that something is wrong."""
WAIT_FLAGS = os.WNOHANG | os.WUNTRACED | os.WCONTINUED


class AgentPlan(msgspec.Struct, frozen=True):
    """How to start a node's agent."""

    argv: tuple[str, ...]
    directory: str
    """The working directory."""
    log: str
    environment: dict[str, str]


def spawn(plan: AgentPlan, net: int, user: namespaces.Identity | None) -> int:
    """Start the agent in its namespace: its pid, once exec(2) has succeeded; raises ClusterFailure if it did not."""
    log = os.open(plan.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if user is not None:
        os.fchown(log, user.uid, user.gid)
    report, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            _transform(plan, net, user, log)
        except OSError as error:
            os.write(tell, str(error).encode())
        finally:
            os._exit(127)
    os.close(tell)
    os.close(log)
    with open(report, "rb") as pipe:
        failure = pipe.read().decode()
    if failure:
        raise ClusterFailure(f"cannot start {plan.argv[0]}: {failure}")
    return pid


def _transform(plan: AgentPlan, net: int, user: namespaces.Identity | None, log: int) -> None:
    """In the child: a session of its own, the namespace, the user, default signals; then exec."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    os.setsid()
    namespaces.enter(net, namespaces.CLONE_NEWNET)
    namespaces.drop_privileges(user)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(plan.directory)
    os.execvpe(plan.argv[0], plan.argv, plan.environment)


class AgentProcess:
    """The process of one node, over its restarts. `state`: running, paused or stopped (none)."""

    def __init__(self, node: str, plan: AgentPlan, net: int, user: namespaces.Identity | None) -> None:
        self.node = node
        self.state = "stopped"
        self.starts = 0
        self.pid: int | None = None
        self.exits: list[Exit] = []
        self._plan, self._net, self._user = plan, net, user
        self._changed = asyncio.Event()
        self._expecting_exit = False

    def start(self) -> Interval:
        """Start it; raises ClusterFailure if it runs already, or cannot."""
        if self.pid is not None:
            raise ClusterFailure(f"{self.node} is {self.state} already")
        before = time.monotonic_ns()
        self.pid = spawn(self._plan, self._net, self._user)
        self.starts += 1
        self._expecting_exit = False
        self._become("running")
        return Interval(before, time.monotonic_ns())

    async def kill(self) -> Interval:
        """SIGKILL, and wait until it has been reaped."""
        before = self._signal(signal.SIGKILL, expecting_exit=True)
        return await self._reached("stopped", before)

    async def pause(self) -> Interval:
        """SIGSTOP, and wait until it is stopped."""
        if self.state == "paused":
            raise ClusterFailure(f"{self.node} is paused already")
        return await self._reached("paused", self._signal(signal.SIGSTOP))

    async def resume(self) -> Interval:
        """SIGCONT, and wait until it is continued."""
        if self.pid is not None and self.state != "paused":
            raise ClusterFailure(f"{self.node} is not paused")
        return await self._reached("running", self._signal(signal.SIGCONT))

    async def stop(self, timeout_s: float) -> Interval:
        """SIGTERM, and wait for the end; one that is paused is resumed for it. Killed after `timeout_s`, and
        ClusterFailure."""
        before = self._signal(signal.SIGTERM, expecting_exit=True)
        if self.state == "paused":
            self._signal(signal.SIGCONT)
        try:
            return await self._reached("stopped", before, timeout_s)
        except TimeoutError:
            await self.kill()
            raise ClusterFailure(f"{self.node} had not ended {timeout_s:g} s after SIGTERM, and was killed") from None

    def reaped(self, status: int) -> None:
        """What waitpid(2) reported about this process."""
        if os.WIFSTOPPED(status):
            self._become("paused")
        elif os.WIFCONTINUED(status):
            self._become("running")
        else:
            code = os.waitstatus_to_exitcode(status)
            self.exits.append(Exit(self.node, self.starts, code, self._expecting_exit, time.monotonic_ns()))
            self.pid = None
            self._become("stopped")

    def _signal(self, number: signal.Signals, *, expecting_exit: bool = False) -> int:
        """Signal the whole process group; the time before. Raises ClusterFailure if there is no process."""
        if self.pid is None:
            raise ClusterFailure(f"{self.node} is not running; `restart` starts it")
        self._expecting_exit = self._expecting_exit or expecting_exit
        before = time.monotonic_ns()
        os.killpg(self.pid, number)
        return before

    def _become(self, state: str) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _reached(self, state: str, before: int, timeout_s: float = REPORT_TIMEOUT_S) -> Interval:
        async with asyncio.timeout(timeout_s):
            while self.state != state:
                if self.pid is None and state != "stopped":
                    raise ClusterFailure(f"{self.node} ended meanwhile (status {self.exits[-1].status})")
                await self._changed.wait()
        return Interval(before, time.monotonic_ns())


def reap(agents: list[AgentProcess]) -> None:
    """Collect all that happened to children. Pid 1 also inherits orphans of agents: they are buried without a word."""
    while True:
        try:
            pid, status = os.waitpid(-1, WAIT_FLAGS)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for agent in agents:
            if agent.pid == pid:
                agent.reaped(status)


def agent_environment(source_root: Path) -> dict[str, str]:
    """This process's environment, and: agents may bind to addresses of a namespace, `-m comitia` finds the sources that
    this harness was loaded from, and `python` is the interpreter that runs it."""
    inherited = dict(os.environ)
    modules = [str(source_root), inherited.get("PYTHONPATH", "")]
    programs = [str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]
    return {
        **inherited,
        "COMITIA_NAMESPACE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, modules)),
        "PATH": os.pathsep.join(programs),
    }
