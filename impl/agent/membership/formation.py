"""How one server becomes part of a cluster: it hears of others, forms or joins as `discovery` decides, and says what is
wrong.

The genesis is on the disk before anything runs that rests on it. What the servers decide, and why all decide alike, is
`discovery`'s; this module must not decide it again, and knows nothing of Raft.
"""

from __future__ import annotations

from collections.abc import Callable

from impl.agent.logs import Log
from impl.agent.membership.discovery import Conflict, Discovery, Refused
from impl.agent.requests.protocol import Discovered
from impl.runtime.interfaces import Runtime
from impl.storage.data_directory import DataDirectory
from impl.storage.records import Genesis


class Formation:
    """The formation of one server's cluster, or its finding that there is one."""

    def __init__(
        self,
        runtime: Runtime,
        discovery: Discovery,
        data: DataDirectory,
        log: Log,
        *,
        met: Callable[[], None],
        run: Callable[[Genesis], None],
        fail: Callable[[str], None],
    ) -> None:
        """`met`: somebody spoke of itself. `run`: the genesis is durable. `fail`: this server cannot be part of this
        cluster, for a reason.
        """
        self.began = False
        """Whether the genesis was decided in this incarnation, and not found on the disk."""
        self._runtime = runtime
        self._discovery = discovery
        self._data = data
        self._log = log
        self._met = met
        self._run = run
        self._fail = fail
        self._told: set[str] = set()

    def learned(self, reply: Discovered) -> None:
        """A server answered who it is."""
        try:
            self._discovery.learn(reply, self._runtime.clock.monotonic_ns())
        except Conflict as conflict:
            self.conflict(conflict)
            return
        genesis = self._discovery.genesis
        if genesis is not None and reply.genesis is not None and reply.genesis.cluster_id != genesis.cluster_id:
            self._tell_once(
                f"server {reply.sender.name!r} at {reply.sender.address} belongs to another cluster "
                f"({reply.genesis.cluster_id}; this one is {genesis.cluster_id}): correct its -retry-join or ours"
            )
        self._met()
        self.consider()

    def conflict(self, conflict: Conflict) -> None:
        """A formed server goes on and says so; one that is not part of anything yet gives way."""
        if self._discovery.genesis is None:
            self._fail(str(conflict))
        else:
            self._tell_once(str(conflict))

    def consider(self) -> None:
        """Form or join the cluster if that is decided now."""
        if self.began or self._discovery.genesis is not None:
            return
        now = self._runtime.clock.monotonic_ns()
        try:
            genesis = self._discovery.decide(now)
        except Refused as refused:
            self._fail(str(refused))
            return
        if surplus := self._discovery.surplus(now):
            self._tell_once(
                f"{len(surplus)} servers are in sight ({', '.join(surplus)}) but -bootstrap-expect is "
                f"{self._discovery.bootstrap_expect}: stop the ones that do not belong, or correct it on all of them"
            )
        if genesis is not None:
            self._begin(genesis)

    def _begin(self, genesis: Genesis) -> None:
        self.began = True

        def write() -> None:
            self._data.log.append([genesis])
            self._data.log.sync()

        self._runtime.executor.submit(write, lambda _: self._run(genesis), self._cannot_form)

    def _cannot_form(self, error: BaseException) -> None:
        # A server that is stopped meanwhile has closed its log; it fails nobody.
        self._fail(f"cannot write the genesis of the cluster: {error}")

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._log.error(text)
