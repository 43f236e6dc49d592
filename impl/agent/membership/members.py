"""The members of the cluster as one server sees them: whom it links to, and whom it admits.

The newest configuration of this server's own log is in force, committed or not (Ongaro 2014, section 4.1). Under the
name of a member only that member is admitted, with the data directory that holds its votes. A server that is no member
is linked to while it holds a link to this one: it may be ahead (this server has not heard of its addition yet), and
what it asks must be answered.

It changes nothing about the configuration: `reconfiguration` does, on the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from impl.agent.config.validated import Address, parse_address
from impl.agent.driver import TICK_NS, Driver
from impl.agent.logs import Log
from impl.agent.membership.autopilot import NEVER_MS, Observation, Stability
from impl.agent.membership.discovery import Discovery, is_same, objection
from impl.agent.membership.evidence import Evidence
from impl.agent.membership.operations import RaftConfiguration, RaftServer, ServerHealth
from impl.agent.membership.peers import PeerLinks
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import ServerInfo
from impl.raft.configuration import Configuration, Member
from impl.raft.ready import Role
from impl.rpc.errors import ConnectFailed
from impl.rpc.handshake import Hello, Purpose, Refusal
from impl.rpc.timings import Timings
from impl.runtime.interfaces import MILLISECONDS, Runtime


class Members:
    """What one server makes of the configuration. The `LinkEvents` of its links."""

    def __init__(
        self, runtime: Runtime, discovery: Discovery, pool: Pool, hello: Callable[[], Hello], timings: Timings, log: Log
    ) -> None:
        self.driver: Driver | None = None
        """Set by `formed`."""
        self.named = False
        """Whether the newest configuration, of this server's own log or by hearsay, names this server, and not one of
        its name whose data directory was lost."""
        self._runtime = runtime
        self._stability = Stability()
        self._discovery = discovery
        self._pool = pool
        self._log = log
        self._visitors: dict[str, Hello] = {}
        """Servers that hold a Raft link to this one, by name."""
        self._judged: dict[str, tuple[Hello, Configuration, bool]] = {}
        """Whether a sender speaks for itself, as found for its connection and the configuration."""
        self._evidence = Evidence(self._process_ended)
        self.links = PeerLinks(runtime, hello, timings, log, self)

    def formed(self, driver: Driver) -> None:
        """The cluster has formed: follow its configuration."""
        self.driver = driver
        self.follow()

    def follow(self) -> None:
        """Take note of the configuration if it changed, and link to whoever can be reached now. Cheap; ask often."""
        if self.driver is None:
            return
        core, discovery = self.driver.core, self._discovery
        configuration = core.configuration
        if configuration != discovery.in_force:
            discovery.in_force = configuration
            self._log_configuration(configuration)
        if configuration.index <= core.commit_index:
            discovery.configured(configuration)
        roster = discovery.roster()
        mine = roster.member(self.myself.name)
        self.named = mine is not None and is_same(mine, self.myself)
        wanted = {*configuration.names, *roster.names, *self._visitors} - {self.myself.name}
        self.links.keep(wanted)
        for name in sorted(wanted):
            info, member = discovery.known.get(name), roster.member(name)
            if info is not None and (member is None or is_same(member, info)):
                self.links.dial(name, info.address)

    def _log_configuration(self, configuration: Configuration) -> None:
        nonvoters = sorted(set(configuration.names) - set(configuration.voters))
        self._log.info(
            "configuration", index=configuration.index, voters=list(configuration.voters), nonvoters=nonvoters
        )

    # --- what it knows ------------------------------------------------------------------------------------------------

    @property
    def myself(self) -> ServerInfo:
        """This server."""
        assert self._discovery.myself is not None, "a server knows itself"
        return self._discovery.myself

    def includes_me(self) -> bool:
        """Whether the configuration in force names this server."""
        return self.driver is not None and self.driver.core.configuration.member(self.myself.name) is not None

    def everybody_is_known(self) -> bool:
        """Whether every member of a formed cluster has been met."""
        if self.driver is None:
            return False
        names = set(self._discovery.roster().names) - {self.myself.name}
        return names <= self._discovery.known.keys()

    def address_of(self, name: str) -> str:
        """Where a server was met last, or where it was when it was added; "" if neither is known."""
        if name == self.myself.name:
            return str(self.myself.address)
        info = self._discovery.known.get(name)
        if info is not None:
            return str(info.address)
        member = self._discovery.roster().member(name)
        return member.address if member is not None else ""

    def met(self, member: Member) -> Address | None:
        """Where a member's RPC is, as `address_of`; None: nobody has told."""
        info = self._discovery.known.get(member.name)
        if info is not None and is_same(member, info):
            return info.address
        return parse_address(member.address) if member.address else None

    def addresses(self) -> tuple[str, ...]:
        """RPC addresses of the members, as far as they are known, sorted."""
        addresses = [self.address_of(name) for name in self._discovery.roster().names]
        return tuple(sorted(address for address in addresses if address))

    def describe(self) -> RaftConfiguration:
        """The configuration in force, as this server sees it."""
        if self.driver is None:
            return RaftConfiguration((), 0)
        core, servers, healths = self.driver.core, [], self.healths()
        for member in core.configuration.members:
            last = core.last_index if member.name == self.myself.name else 0
            progress = core.server.progress.get(member.name)
            if progress is not None:
                last = progress.match_index
            address, leads = self.address_of(member.name), member.name == core.leader_id
            replica, health = not member.voter and not member.staging, healths.get(member.name)
            servers.append(RaftServer(member.node_id, member.name, address, leads, member.voter, last, replica, health))
        return RaftConfiguration(tuple(servers), core.configuration.index)

    def healths(self) -> Mapping[str, ServerHealth]:
        """How well each member is, if this server leads; else nothing. Ask often: what lies between is not seen."""
        driver = self.driver
        if driver is None or driver.core.role is not Role.LEADER:
            return {}
        observed = [self._observed(driver, name) for name in driver.core.configuration.names]
        since = self._stability.look(driver.core.term, self._runtime.clock.wall_ns(), observed)
        log, last = driver.core.server.log, driver.core.last_index
        found = {}
        for each in observed:
            index = last - each.trailing
            term = log.term_at(index) if index >= log.base else 0
            found[each.name] = ServerHealth(each.healthy, each.connected, each.contact_ms, term, since[each.name])
        return found

    def _observed(self, driver: Driver, name: str) -> Observation:
        server, last = driver.core.server, driver.core.last_index
        if name == self.myself.name:
            return Observation(name, 0, 0, connected=True)
        progress = server.progress.get(name)
        if progress is None:
            return Observation(name, NEVER_MS, last, self.links.is_connected(name))
        ticks = server.ticks - progress.answered_at
        contact_ms = NEVER_MS if progress.answered_at < 0 else ticks * TICK_NS // MILLISECONDS
        return Observation(name, contact_ms, last - progress.match_index, self.links.is_connected(name))

    async def call(self, name: str, method: str, body: bytes, timeout_ns: int) -> bytes:
        """Ask a server by its name. Raises RpcError, also if nobody has met it."""
        info = self._discovery.known.get(name)
        if info is None:
            raise ConnectFailed(f"the address of {name} is not known")
        return await self._pool.call(info.address, method, body, timeout_ns)

    # --- links --------------------------------------------------------------------------------------------------------

    def admit(self, hello: Hello) -> Refusal | None:
        """As `LinkEvents.admit`: under the name of a member, only that member. Calls are for everybody."""
        if hello.purpose is not Purpose.RAFT:
            return None
        text = objection(self._discovery.roster().members, _described(hello))
        return Refusal("another server", text) if text else None

    def speaks_for_itself(self, sender: Hello) -> bool:
        """Whether whoever was admitted once is still who the cluster knows by that name."""
        if self.driver is None:
            return False
        configuration = self.driver.core.configuration
        judged = self._judged.get(sender.node_name)
        if judged is None or judged[0] is not sender or judged[1] is not configuration:
            member = configuration.member(sender.node_name)
            verdict = member is None or is_same(member, _described(sender))
            judged = self._judged[sender.node_name] = (sender, configuration, verdict)
        return judged[2]

    def connected(self, hello: Hello) -> None:
        """As `LinkEvents.connected`."""
        self._evidence.met(hello)
        if self.driver is not None:
            self.driver.peer_connected(hello.node_name)

    def lost(self, peer: str) -> None:
        """As `LinkEvents.lost`."""
        if self.driver is not None:
            self.driver.peer_lost(peer)

    def refused(self, listened: Hello) -> None:
        """As `LinkEvents.refused`."""
        self._evidence.refused(listened)

    def dialled(self, sender: Hello) -> None:
        """A peer opened its link to us: it lives, so ours to it can be redialled now."""
        self._evidence.met(sender)
        self._visitors[sender.node_name] = sender
        self.links.nudge(sender.node_name)
        self.follow()

    def hung_up(self, sender: Hello) -> None:
        """A peer's link to us closed."""
        self._visitors.pop(sender.node_name, None)
        self.lost(sender.node_name)

    def _process_ended(self, peer: str, incarnation: int) -> None:
        if self.driver is not None:
            self.driver.process_ended(peer, incarnation)


def _described(hello: Hello) -> ServerInfo:
    return ServerInfo(hello.node_name, hello.node_id, "", 0, hello.incarnation, hello.storage_id)
