"""The leader keeps the agents of the cluster registered, each with what is known of its life.

Every agent has a node, and on it the check `serfHealth`: passing while the agent lives, critical when it has been
silent for a while. Servers also have the service `consul`. A server that was removed, or a client agent that left, is
deregistered; so is a client agent that was gone for three days. The leader itself lives as long as it can say so.

What a node is (address, meta, tagged addresses) is its agent's to say: that may arrive between a look at the tables
and what is written because of it, so a node that exists is never written, and one that was another agent's is deleted
only as it was looked at. And the tables say what the registry is only once this leader has applied its own term.

A server lives while the link to it is up, a client agent while it announces itself. Silence is counted in looks, not
in time: a leader that was paused does not take everybody for dead. Source: Consul, `agent/consul/leader.go`
(reconcile). *Deviation:* connections and announcements stand for gossip; and a node without an id was never an agent:
whoever registered it with a `serfHealth` of its own keeps it.

It must not change the state machine: it proposes, and nothing if nothing has changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from impl.agent.driver import Driver
from impl.agent.logs import Log
from impl.agent.membership.members import Members
from impl.agent.requests.api import AgentError, DefiniteError
from impl.agent.requests.protocol import Announcement
from impl.catalog.commands import Deregister, Register, Transaction, Write
from impl.catalog.rows import CRITICAL, PASSING, SERF_HEALTH, Check, Node, Service, node_key, row_key
from impl.catalog.tables import Tables
from impl.catalog.transactions import NodeOperation
from impl.catalog.transitions import Failed
from impl.raft.configuration import Member
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime

LOOK_NS: Final = NANOSECONDS
"""How often the leader looks who is there."""
POLL_NS: Final = 100 * MILLISECONDS
"""How soon it notices that it leads: sessions need the `serfHealth` of their nodes."""
SILENT_LOOKS_MAX: Final = 10
"""An agent that was not there for so many looks is dead until it is there again."""
PASS_LOOKS: Final = 60
"""A full pass over all agents is made so often, even if nobody came or went."""
REAPED_LOOKS: Final = 72 * 3600
"""A client agent that was not there for so many looks is forgotten (Consul: `reconnect_timeout`)."""
CONSUL: Final = "consul"
"""Name and id of the service that servers are."""
_CHECK_NAME = "Serf Health Status"
_ALIVE = "Agent alive and reachable"
_LOST = "Agent not live or unreachable"


class Sighting(msgspec.Struct, frozen=True):
    """An agent, as the leader knows it."""

    name: str
    node_id: str
    address: str
    alive: bool
    port: int = 0
    """Of a server's RPC; 0: a client agent."""
    voter: bool = True


def due(tables: Tables, sightings: Iterable[Sighting], servers: Iterable[str], datacenter: str) -> list[Write]:
    """The commands that make the registry say what was seen; none if it does.

    Args:
        sightings: the agents of the cluster. A server that nobody has told where it is may be missing.
        servers: the names of all servers of the configuration.
    """
    remaining = {node_key(name) for name in servers}
    found: list[Write] = [
        Deregister(service.node)
        for service in tables.services.group("service", CONSUL)
        if service.id == CONSUL and node_key(service.node) not in remaining
    ]
    for each in sightings:
        node = tables.nodes.get(node_key(each.name))
        if node is not None and node.id not in ("", each.node_id):
            # The name is taken while the one that had it passes.
            found.append(Transaction((NodeOperation("delete-cas", node),)))
            node = None
        registration = _registration(tables, each, node, datacenter)
        if registration is not None:
            found.append(registration)
    return found


def _registration(tables: Tables, seen: Sighting, node: Node | None, datacenter: str) -> Register | None:
    """What registers the agent; None if that would change nothing, or if it died before it was ever registered."""
    key = node_key(seen.name)
    if node is None and not seen.alive:
        return None
    status, output = (PASSING, _ALIVE) if seen.alive else (CRITICAL, _LOST)
    check = Check(seen.name, SERF_HEALTH, _CHECK_NAME, status, output=output)
    service = _consul(seen) if seen.port else None
    if (
        node is not None
        and _is_stored(tables.checks.get(row_key(key, SERF_HEALTH)), check)
        and (service is None or _is_stored(tables.services.get(row_key(key, CONSUL)), service))
    ):
        return None
    row = Node(seen.name, seen.address, id=seen.node_id, datacenter=datacenter)
    return Register(row, service, (check,), skip_node_update=True)


def _consul(seen: Sighting) -> Service:
    voter = str(not seen.voter).lower()
    meta = {"non_voter": voter, "raft_version": "3", "read_replica": voter}
    return Service(seen.name, CONSUL, CONSUL, port=seen.port, meta=meta)


def _is_stored(row: Service | Check | None, wanted: Service | Check) -> bool:
    if row is None:
        return False
    return replace(wanted, node=row.node, create_index=row.create_index, modify_index=row.modify_index) == row


def _leads(driver: Driver) -> bool:
    """Whether this server leads, and has applied what earlier leaders wrote."""
    return driver.core.role is Role.LEADER and driver.core.has_applied_own_term


class Reconciler:
    """The agents that one server knows of; it acts while that server leads."""

    def __init__(self, runtime: Runtime, datacenter: str, members: Members, log: Log) -> None:
        self._runtime = runtime
        self._datacenter = datacenter
        self._members = members
        self._log = log
        self._led_term = 0
        """The term in which silence is counted; 0: it is not."""
        self._clients: dict[str, Announcement] = {}
        """The client agents that live, or did when this server came to lead, by name."""
        self._left: set[str] = set()
        """Client agents that said that they leave, and are still registered."""
        self._silent: dict[str, int] = {}
        """For each agent, the looks since it was there."""
        self._before: list[Sighting] = []
        """What the last pass was about."""
        self._looks = 0
        self._told: set[str] = set()

    def heard(self, announcement: Announcement) -> None:
        """A client agent lives, or leaves."""
        name = announcement.name
        if announcement.leaving:
            self._forget(name)
            self._left.add(name)
            return
        known = self._clients.get(name)
        if known is not None and known.node_id != announcement.node_id and self._is_alive(name):
            self._tell(f"two client agents are named {name!r}: {known.address} and {announcement.address}")
            return
        self._clients[name] = announcement
        self._silent[name] = 0
        self._left.discard(name)

    def replaced(self) -> None:
        """A restore replaced the registry: begin anew, as if this server had just come to lead."""
        self._led_term = 0

    def force_leave(self, name: str, server: bool) -> None:
        """Take an agent for one that left. A server's membership is not this module's to end.

        Raises:
            DefiniteError: it lives, or there is none of this name.
        """
        if not server and name not in self._clients:
            raise DefiniteError(f"agent: No node found with name '{name}'")
        if name == self._members.myself.name or self._is_alive(name):
            raise DefiniteError(f"{name} is alive, and stays a member: only it can leave")
        if not server:
            self._forget(name)
            self._left.add(name)

    def _is_alive(self, name: str) -> bool:
        return self._silent.get(name, 0) <= SILENT_LOOKS_MAX

    def _forget(self, name: str) -> None:
        self._clients.pop(name, None)
        self._silent.pop(name, None)

    async def run(self, driver: Driver, write: Callable[[Write], Awaitable[object]]) -> None:
        """Keep the registry true while this server leads. `write` writes as the leader or not at all."""
        while True:
            await self._next_look(driver)
            if not _leads(driver):
                self._led_term = 0
                continue
            if driver.core.term != self._led_term:
                self._lead(driver.core.term, driver.store.tables)
            for command in self._look(driver):
                await self._attempt(command, write)

    async def _next_look(self, driver: Driver) -> None:
        """Return after `LOOK_NS`, or soon after this server came to lead."""
        for _ in range(LOOK_NS // POLL_NS):
            await self._runtime.clock.sleep(POLL_NS)
            if _leads(driver) and driver.core.term != self._led_term:
                return

    def _lead(self, term: int, tables: Tables) -> None:
        """Everybody lives until silence says otherwise; the client agents are those that are registered."""
        self._led_term, self._looks, self._before, self._silent = term, 0, [], {}
        self._clients = {name: announcement for name, announcement in self._clients.items() if name not in self._left}
        for key in tables.nodes.under(""):
            node = tables.nodes[key]
            if node.id and tables.checks.get(row_key(key, SERF_HEALTH)) is not None:
                self._clients.setdefault(node.node, Announcement(node.node, node.id, node.address))

    def _look(self, driver: Driver) -> list[Write]:
        """Count silence; what there is to write if somebody came, went or changed, or if it is time for a full pass."""
        tables = driver.store.tables
        sightings = self._sightings(driver)
        left = [Deregister(name) for name in sorted(self._left) if tables.nodes.get(node_key(name)) is not None]
        self._left = {command.node for command in left}
        self._looks += 1
        if sightings == self._before and self._looks % PASS_LOOKS:
            return list(left)
        self._before = sightings
        return [*left, *due(tables, sightings, driver.core.configuration.names, self._datacenter)]

    def _sightings(self, driver: Driver) -> list[Sighting]:
        members = driver.core.configuration.members
        servers = [seen for member in members if (seen := self._server(member)) is not None]
        names = {node_key(member.name) for member in members}
        for name in [name for name in self._clients if node_key(name) in names]:
            self._forget(name)
        clients = []
        for name in sorted(self._clients):
            # Its next announcement sets this back.
            self._silent[name] = self._silent.get(name, 0) + 1
            if self._silent[name] > REAPED_LOOKS:
                self._forget(name)
                self._left.add(name)
                continue
            said = self._clients[name]
            clients.append(Sighting(name, said.node_id, said.address, self._is_alive(name)))
        return [*servers, *clients]

    def _server(self, member: Member) -> Sighting | None:
        """A server of the configuration; None: nobody has told where it is."""
        mine = self._members.myself
        if member.name == mine.name:
            return Sighting(mine.name, mine.node_id, mine.host, True, mine.port, member.voter)
        if self._members.links.is_connected(member.name):
            self._silent[member.name] = 0
        else:
            self._silent[member.name] = self._silent.get(member.name, 0) + 1
        met = self._members.met(member)
        if met is None:
            return None
        return Sighting(member.name, member.node_id, met.host, self._is_alive(member.name), met.port, member.voter)

    async def _attempt(self, command: Write, write: Callable[[Write], Awaitable[object]]) -> None:
        """One that fails is tried again at the next look."""
        try:
            result = await write(command)
        except AgentError:
            self._before = []
            return
        if isinstance(result, Failed):
            self._tell(result.why)

    def _tell(self, why: str) -> None:
        """Once for each reason."""
        if why not in self._told:
            self._told.add(why)
            self._log.warn("an agent cannot be registered", error=why)
