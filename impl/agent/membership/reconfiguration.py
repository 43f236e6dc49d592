"""Changes of the configuration, on the leader: what an operator, a joining server or promotion asks for.

One server at a time. Before anything is appended the server that is to be added was asked who it is, so that nobody is
added by mistake, and everybody who would vote was asked whether it is there; a refusal leaves everything as it was.
Whether Raft allows the change now (own-term rule, one change at a time) is the core's to say. Source: Ongaro 2014,
chapter 4; Consul, "Operator HTTP API", Raft.
"""

from __future__ import annotations

import msgspec

from impl.agent.config.validated import Address, ConfigError, parse_address
from impl.agent.driver import Driver
from impl.agent.logs import Log
from impl.agent.membership.discovery import Discovery, is_same, objection
from impl.agent.membership.introductions import introduce
from impl.agent.membership.members import Members
from impl.agent.membership.operations import AddPeer, Demote, Join, Promote, RaftOperation, RemovePeer, TransferLeader
from impl.agent.membership.promotion import Candidate, Promotion, has_caught_up
from impl.agent.requests.api import AgentError, DefiniteError, NoClusterLeader
from impl.agent.requests.changes import Changes
from impl.agent.requests.forwarding import Retriable
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import MALFORMED, STATUS, ServerInfo
from impl.raft.configuration import Configuration, Member, with_member, with_voter, without_member
from impl.raft.errors import LastVoter, NotLeader, NotReady, Refused, WouldLoseQuorum
from impl.raft.quorum import majority
from impl.raft.ready import Role
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import MILLISECONDS, Future, Runtime

LOOK_NS = 100 * MILLISECONDS
"""How often a leader looks whether somebody has caught up, and every server whether its configuration changed."""
PROBE_NS_MAX = 1_000 * MILLISECONDS
SETTLE_NS_MAX = 2_000 * MILLISECONDS
"""How long a change waits for the one before it to be committed."""

Change = Join | AddPeer | RemovePeer | Promote | Demote
"""An operation that changes the configuration."""


class Reconfiguration:
    """The changes that one server makes while it leads."""

    def __init__(
        self, runtime: Runtime, discovery: Discovery, members: Members, pool: Pool, changes: Changes, log: Log
    ) -> None:
        """`changes` is notified as `Driver`'s."""
        self._runtime = runtime
        self._discovery = discovery
        self._members = members
        self._pool = pool
        self._changes = changes
        self._log = log
        self._promotion = Promotion()
        self._told = ""

    async def execute(self, operation: RaftOperation) -> int:
        """Carry it out here; the index of the configuration that is committed then.

        Raises:
            Retriable: this server does not lead, or not any more before anything was appended.
            DefiniteError: refused, with the reason; nothing was changed.
            IndefiniteError: leadership was lost before the change was committed.
        """
        try:
            if isinstance(operation, TransferLeader):
                return await self._transfer(operation)
            found = await self._introduce(operation) if isinstance(operation, Join | AddPeer) else None
            members = await self._safe_members(operation, found)
            if members is None:
                return self._leading().core.configuration.index
            committed = self._leading().change_configuration(members)
            self._members.follow()
            index = await committed
        except (NotLeader, NotReady) as error:  # NotReady: new in its term, or it hands its leadership over
            raise Retriable(NoClusterLeader()) from error
        except Refused as error:
            raise DefiniteError(str(error)) from error
        self._members.follow()
        return index

    async def watch(self) -> None:
        """Follow the configuration and how well its members are, and promote who has caught up, for ever; end it by
        cancelling the task.
        """
        while True:
            await self._runtime.clock.sleep(LOOK_NS)
            self._members.follow()
            self._members.healths()
            driver = self._members.driver
            if driver is not None and driver.core.role is Role.LEADER:
                await self._promote(driver)

    async def _promote(self, driver: Driver) -> None:
        staging = [member for member in driver.core.configuration.members if member.staging and not member.voter]
        candidates = [self._candidate(member.name) for member in staging]
        ids = {member.name: member.node_id for member in staging}
        for name in self._promotion.due(driver.core.term, self._runtime.clock.monotonic_ns(), candidates)[:1]:
            try:
                await self.execute(Promote(ids[name]))
            except (Retriable, AgentError) as error:
                if str(error) != self._told:
                    self._told = str(error)
                    self._log.warn("cannot promote a server that has caught up", server=name, error=str(error))
            else:
                self._log.info("promoted a server that has caught up", server=name)

    # --- how each operation changes the members -----------------------------------------------------------------------

    def _leading(self) -> Driver:
        """The driver, as long as this server leads."""
        driver = self._members.driver
        if driver is None or driver.core.role is not Role.LEADER:
            raise Retriable(NoClusterLeader())
        return driver

    async def _safe_members(self, operation: Change, found: ServerInfo | None) -> tuple[Member, ...] | None:
        """The members after the operation, a quorum of whom answers now; None if it is so already.

        Raises:
            LastVoter: nobody would vote.
            WouldLoseQuorum: with the names of those who do not answer.
        """
        while True:
            await self._settle()
            before = self._leading().core.configuration
            members = self._after(operation, found)
            if members is None:
                return None
            voters = [member.name for member in members if member.voter]
            if not voters:
                raise LastVoter(before.voters[0])
            silent = await self._silent(voters)
            if len(voters) - len(silent) < majority(len(voters)):
                raise WouldLoseQuorum(len(voters), majority(len(voters)), silent)
            if self._leading().core.configuration == before:
                return members

    async def _silent(self, voters: list[str]) -> list[str]:
        """Who of them does not answer a question that is asked now. What was heard before proves too little: a server
        that was killed a moment ago would count, and the change could never be committed."""
        others = [name for name in voters if name != self._members.myself.name]
        answers = [self._runtime.tasks.future() for _ in others]

        async def ask(name: str, answer: Future[bool]) -> None:
            try:
                await self._members.call(name, STATUS, b"", PROBE_NS_MAX)
            except RpcError:
                there = False
            else:
                there = self._members.links.is_connected(name)
            if not answer.done():  # whoever waited may have been cancelled
                answer.set_result(there)

        for name, answer in zip(others, answers, strict=True):
            self._runtime.tasks.spawn(ask(name, answer), f"is {name} there")
        return [name for name, answer in zip(others, answers, strict=True) if not await answer]

    async def _settle(self) -> None:
        """Wait, for a bounded time, until the change before this one is committed."""
        deadline = self._runtime.clock.monotonic_ns() + SETTLE_NS_MAX
        while (core := self._leading().core).configuration.index > core.commit_index:
            remaining = deadline - self._runtime.clock.monotonic_ns()
            if remaining <= 0:
                return
            await self._changes.wait(min(remaining, LOOK_NS))

    async def _introduce(self, operation: Join | AddPeer) -> ServerInfo:
        """Ask the server that is to be added who it is, and compare."""
        self._leading()
        joining = isinstance(operation, Join)
        address = operation.server.address if isinstance(operation, Join) else _parse(operation.address)
        try:
            reply = await introduce(self._pool, self._discovery, address, PROBE_NS_MAX)
        except (RpcError, *MALFORMED) as error:
            raise DefiniteError(f"cannot add the server at {address}: it cannot be reached: {error}") from error
        found = reply.sender
        if isinstance(operation, Join) and found.identity != operation.server.identity:
            raise DefiniteError(
                f"cannot add {operation.server.name!r}: at its address {address} answers {found.name!r} "
                f"({found.node_id}, storage {found.storage_id}): correct its -advertise address"
            )
        if isinstance(operation, AddPeer) and operation.id not in ("", found.node_id):
            raise DefiniteError(f"cannot add {operation.id!r}: the server at {address} has the ID {found.node_id}")
        if isinstance(operation, AddPeer) and operation.name not in ("", found.name):
            raise DefiniteError(f"cannot add {operation.name!r}: the server at {address} is called {found.name!r}")
        if not joining and reply.genesis != self._discovery.genesis:
            raise DefiniteError(
                f"cannot add {found.name!r} at {address}: it has not met this cluster; start it with -retry-join"
            )
        return found

    def _after(self, operation: Change, found: ServerInfo | None) -> tuple[Member, ...] | None:
        """The members after the operation; None if it is so already. Raises DefiniteError or Refused."""
        configuration = self._leading().core.configuration
        match operation:
            case RemovePeer():
                return without_member(configuration, self._find(operation.id, operation.address).name)
            case Demote():
                return _with_vote(configuration, self._find(operation.id).name, voter=False)
            case Promote():
                candidate = self._candidate(self._find(operation.id).name)
                members = _with_vote(configuration, candidate.name, voter=True)
                if not has_caught_up(candidate):
                    raise DefiniteError(f"cannot promote {candidate.name!r}: {_why_not(candidate)}")
                return members
            case Join() | AddPeer():
                assert found is not None, "it was asked who it is"
                return self._with(operation, found)

    def _with(self, operation: Join | AddPeer, found: ServerInfo) -> tuple[Member, ...] | None:
        configuration = self._leading().core.configuration
        if text := objection(configuration.members, found):
            raise DefiniteError(f"cannot add {found.name!r}: {text}")
        present = configuration.member(found.name)
        if isinstance(operation, Join) and present is not None and is_same(present, found):
            return None
        stays = operation.read_replica if isinstance(operation, Join) else operation.non_voter
        address = str(found.address)
        return with_member(
            configuration,
            Member(found.name, found.node_id, found.storage_id, address, voter=False, staging=not stays),
        )

    def _find(self, id: str, address: str = "") -> Member:
        """The member that an operator means."""
        members = self._leading().core.configuration.members
        for member in members:
            if id and id in (member.node_id, member.name):
                return member
            if address and address in (self._members.address_of(member.name), member.address):
                return member
        what = f'id "{id}"' if id else f'address "{address}"'
        names = ", ".join(f"{member.name} ({member.node_id})" for member in members)
        raise DefiniteError(f"{what} was not found in the Raft configuration: its servers are {names}")

    def _candidate(self, name: str) -> Candidate:
        core = self._leading().core
        progress = core.server.progress.get(name)
        trailing = core.last_index - progress.match_index if progress is not None else core.last_index
        return Candidate(name, trailing, self._members.links.is_connected(name))

    async def _transfer(self, operation: TransferLeader) -> int:
        driver = self._leading()
        to = self._find(operation.id) if operation.id else None
        if to is not None and not to.voter:
            raise DefiniteError(f"cannot transfer leadership to {to.name!r}: it does not vote; promote it first")
        await driver.transfer_leadership(to.name if to is not None else None)
        return driver.core.configuration.index


def _parse(text: str) -> Address:
    try:
        return parse_address(text)
    except ConfigError as error:
        raise DefiniteError(str(error)) from error


def _with_vote(configuration: Configuration, name: str, *, voter: bool) -> tuple[Member, ...]:
    """Whoever was promoted or demoted is not staging any more: nobody promotes again whom an operator demoted."""
    members = with_voter(configuration, name, voter=voter)
    return tuple(
        msgspec.structs.replace(member, staging=False) if member.name == name else member for member in members
    )


def _why_not(candidate: Candidate) -> str:
    if not candidate.connected:
        return "it cannot be reached; start it, or remove it"
    return f"it is {candidate.trailing} entries behind; try again when it has caught up"
