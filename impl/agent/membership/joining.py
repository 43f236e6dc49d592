"""A server that the cluster does not name: it asks to be added, or says that it was removed.

Who asks: a server whose log is empty, which nobody ever counted on, and one that left by `leave` and was started again
(a note in the data directory says so). Only members are sent entries, so a server with a log that its configuration
does not name was removed by an operator: it does not ask again, it waits for `operator raft add-peer`.
Source: Consul, "Adding and removing servers"; *Deviation:* Consul's removed servers come back through gossip.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.agent.membership.discovery import Discovery
from impl.agent.membership.members import Members
from impl.agent.membership.operations import Join, Operate
from impl.agent.requests import methods
from impl.agent.requests.api import AgentError
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import decode_answer, encode
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import MILLISECONDS, Disk, Runtime
from impl.storage.files import replace_file

LEFT = "left"
"""Name of the note in the data directory."""
PAUSE_NS = 500 * MILLISECONDS
ANSWER_NS_MAX = 10_000 * MILLISECONDS
"""The server that is asked may hold the request until there is a leader, and the leader until it is committed."""


def note_leaving(disk: Disk, directory: str) -> None:
    """Leave word that this server goes by its own will. Blocks: for the executor. Raises OSError, StorageError."""
    replace_file(disk, directory, LEFT, b"left by `comitia leave`: asks to join again when it is started\n")


def has_left(disk: Disk, directory: str) -> bool:
    """Whether there is such a note."""
    return disk.exists(f"{directory}/{LEFT}")


def forget_leaving(disk: Disk, directory: str) -> None:
    """Take the note away. Blocks: for the executor. Raises OSError."""
    if has_left(disk, directory):
        disk.remove(f"{directory}/{LEFT}")
        disk.sync_directory(directory)


class Standing(Enum):
    """Where this server stands with the cluster."""

    ASKING = "asking"
    ADDED = "added"
    """The leader said so; this server has not heard it from its own log or from others yet."""
    MEMBER = "member"
    REMOVED = "removed"


class Joining:
    """What one server does while it is no member."""

    def __init__(
        self,
        runtime: Runtime,
        discovery: Discovery,
        members: Members,
        pool: Pool,
        log: Log,
        *,
        asks: bool,
        read_replica: bool,
        joined: Callable[[], None],
    ) -> None:
        """`asks`: this server asks to be added. `joined` is called when it is a member."""
        self.standing = Standing.ASKING if asks else Standing.REMOVED
        self._runtime = runtime
        self._discovery = discovery
        self._members = members
        self._pool = pool
        self._log = log
        self._read_replica = read_replica
        self._joined = joined
        self._added_index = 0
        self._answers: set[str] = set()
        """What was answered so far, so that the log says it once."""

    async def run(self) -> None:
        """Look for ever; end it by cancelling the task."""
        if self.standing is Standing.ASKING:
            self._log.info("asking to join the cluster", servers=list(self._discovery.roster().names))
        elif not self._members.named:
            self._say_removed()
        while True:
            if self.standing is Standing.ASKING:
                await self._ask()
            else:
                self._look()
            await self._runtime.clock.sleep(PAUSE_NS)

    def _look(self) -> None:
        named = self._members.named
        if named and self.standing is not Standing.MEMBER:
            self.standing = Standing.MEMBER
            self._log.info("this server is a member of the cluster")
            self._joined()
        elif not named and (self.standing is Standing.MEMBER or self._was_added_and_removed()):
            self.standing = Standing.REMOVED
            self._say_removed()

    def _was_added_and_removed(self) -> bool:
        return self.standing is Standing.ADDED and self._discovery.roster().index > self._added_index

    def _say_removed(self) -> None:
        address = self._members.myself.address
        self._log.error(
            "this server is no member of the cluster: it was removed. To bring it back, run "
            f"`comitia operator raft add-peer -address={address}` at a member; otherwise stop it"
        )

    async def _ask(self) -> None:
        """Ask every member in turn until one brings it to the leader."""
        body = encode(Operate(Join(self._members.myself, self._read_replica), forwarded=False))
        for address in self._whom_to_ask():
            try:
                reply = await self._pool.call(address, methods.OPERATE.name, body, ANSWER_NS_MAX)
                self._added_index = decode_answer(methods.OPERATE.answer, reply)
            except (RpcError, AgentError) as error:
                text = f"{address}: {error}"
                if text not in self._answers:
                    self._answers.add(text)
                    self._log.warn("not yet a member of the cluster", answer=text)
            else:
                self.standing = Standing.ADDED
                return

    def _whom_to_ask(self) -> list[Address]:
        names = set(self._discovery.roster().names) - {self._members.myself.name}
        known = self._discovery.known
        return [known[name].address for name in sorted(names & known.keys())]
