"""The catalog's state: its tables, and the index of the last change of each table and of each finer group of rows.

Tables: the KV store and its tombstones, nodes, services (instances on a node), health checks, sessions. A query's
answer depends on its state only, and so does the index that it carries (`queries`).

Names of nodes and services, and ids of instances and checks, are shown as they were registered and compared without
regard to case; keys of the KV store have case.

Source: Consul, "KV Store", "Catalog", "Health", "Session" HTTP APIs; the tables of its state store. *Deviations:* ids
of sessions have case (Consul finds them without, and makes them in lower case). A tombstone stays until a
`ReapTombstones` of the log (Consul's leader writes one 15 minutes after the deletion). Answers about who is reached in
the mesh have an index of their own, "connect.NAME": Consul makes it of those of the proxies' services, so that it goes
back when one of them vanishes. All else of the mesh, peerings and Enterprise (namespaces, partitions) is left out.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace

from spec.catalog.ordered_map import OrderedMap

Index = int
"""An index of Raft's log."""
Pairs = tuple[tuple[str, str], ...]
"""A map from str to str: pairs sorted by key."""


class Row(msgspec.Struct, frozen=True):
    """One key of the KV store."""

    key: str
    value: bytes
    flags: int
    create_index: Index
    """Index of the entry that created the key; a key that is deleted and set again begins anew."""
    modify_index: Index
    """Index of the entry that last *changed* the row."""
    lock_index: int = 0
    """How often a lock on the key was acquired since it was created."""
    session: str = ""
    """The session that holds the key's lock; "" if none does."""


class Status(StrEnum):
    """The status of a health check."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class Node(msgspec.Struct, frozen=True):
    """A machine."""

    node: str
    address: str
    id: str = ""
    """A UUID, or "" for nodes that were registered from outside."""
    datacenter: str = ""
    tagged_addresses: Pairs = ()
    meta: Pairs = ()
    create_index: Index = 0
    modify_index: Index = 0


class Service(msgspec.Struct, frozen=True):
    """One instance of a service: `id` is unique on its node."""

    node: str
    id: str
    service: str
    """The name that the instances of one service share."""
    kind: str = ""
    tags: tuple[str, ...] = ()
    address: str = ""
    port: int = 0
    tagged_addresses: tuple[tuple[str, str, int], ...] = ()
    """(name, address, port), sorted."""
    meta: Pairs = ()
    weights: tuple[int, int] = (1, 1)
    """DNS weights while passing, and while warning."""
    enable_tag_override: bool = False
    create_index: Index = 0
    modify_index: Index = 0
    connect: str = ""
    """The service that is reached through this instance in the mesh: a proxy's destination, or its own if it needs no
    proxy; "": none.
    """
    mesh: str = ""
    """What it says of itself to the mesh: a JSON object, opaque here; "": nothing was said."""


class Check(msgspec.Struct, frozen=True):
    """A health check of a node (no `service_id`) or of an instance."""

    node: str
    check_id: str
    name: str = ""
    status: Status = Status.CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = ""
    service_name: str = ""
    """Copied from the instance when the check is stored, and so are the tags."""
    service_tags: tuple[str, ...] = ()
    type: str = ""
    interval: str = ""
    timeout: str = ""
    create_index: Index = 0
    modify_index: Index = 0
    definition: str = ""
    """How it is probed, by whoever registered it: a JSON object, opaque here; "": nothing was said."""


class Behavior(StrEnum):
    """What becomes of the locks of a session that ends."""

    RELEASE = "release"
    DELETE = "delete"


class Session(msgspec.Struct, frozen=True):
    """A contract between a node, its health checks and the locks of the KV store."""

    id: str
    node: str
    name: str = ""
    lock_delay_ns: int = 15_000_000_000
    behavior: Behavior = Behavior.RELEASE
    ttl: str = ""
    """A Go duration; "" if the session has none. Only the leader's timers look at it."""
    node_checks: tuple[str, ...] = ()
    """Ids of checks of the node; if one is critical or gone, the session ends."""
    service_checks: tuple[tuple[str, str], ...] = ()
    """(check id, namespace) of checks of services on the node."""
    create_index: Index = 0
    modify_index: Index = 0

    @property
    def checks(self) -> tuple[str, ...]:
        """The ids of all checks that the session depends on."""
        return self.node_checks + tuple(check_id for check_id, _ in self.service_checks)


class TableIndex(msgspec.Struct, frozen=True):
    """A row of an archive: the index of the KV store ("kv"), or one of `State.indexes`."""

    name: str
    index: Index


class Tombstone(msgspec.Struct, frozen=True):
    """A row of an archive: one of `State.tombstones`."""

    key: str
    index: Index


ArchivedRow = TableIndex | Row | Tombstone | Node | Service | Check | Session
"""What archives of the state consist of (`restore.rows_of`)."""


class Staging(msgspec.Struct, frozen=True):
    """A restore that is under way: what has arrived of another state."""

    id: str
    chunks: int = 0
    rows: tuple[ArchivedRow, ...] = ()


class State(msgspec.Struct, frozen=True):
    """All that the log's commands have built."""

    rows: OrderedMap[Row]
    tombstones: OrderedMap[Index]
    """Key or prefix that was deleted -> index of the newest deletion under exactly that name."""
    rows_index: Index = 0
    """Index of the last entry that changed `rows`."""
    tombstones_index: Index = 0
    """Index of the last entry that left a tombstone."""
    nodes: OrderedMap[Node] = OrderedMap()
    """By `node_key`."""
    services: OrderedMap[Service] = OrderedMap()
    """By `row_key(node, service id)`."""
    checks: OrderedMap[Check] = OrderedMap()
    """By `row_key(node, check id)`."""
    sessions: OrderedMap[Session] = OrderedMap()
    """By id."""
    indexes: OrderedMap[Index] = OrderedMap()
    """Index of the last change of a table ("nodes", "services", "checks", "sessions") or of a finer group of rows
    ("node.NAME", "service.NAME", "service_kind.KIND", "connect.NAME", "service_last_extinction",
    "connect_last_extinction", "node_last_extinction").
    """
    shift: Index = 0
    """What an entry's index in the log lacks of its index here: a restored state may be of a longer log."""
    staging: Staging | None = None

    @property
    def table_index(self) -> Index:
        """Index of the last change of the KV store: what a read answers that has no index of its own."""
        return max(self.rows_index, self.tombstones_index)

    def index(self, *names: str) -> Index:
        """The greatest of the named indexes; 0 if none was ever set."""
        return max((self.indexes.get(name) or 0 for name in names), default=0)


def initial_state() -> State:
    """The state before the first entry."""
    return State(OrderedMap(), OrderedMap())


def touched(state: State, index: Index, *names: str) -> State:
    """`state` with the named indexes raised to `index`."""
    indexes = state.indexes
    for name in names:
        indexes = indexes.put(name, max(index, indexes.get(name) or 0))
    return replace(state, indexes=indexes)


def node_key(node: str) -> str:
    """The key of a node: its name, in lower case."""
    return node.lower()


def service_key(service: str) -> str:
    """What the name of a service is compared by."""
    return service.lower()


def row_key(node: str, identity: str) -> str:
    """The key of an instance or a check: its node and its id, in lower case. No name contains a NUL."""
    return f"{node_key(node)}\0{identity.lower()}"


def on_node(node: str) -> str:
    """The prefix of the keys of all instances, or checks, of a node."""
    return f"{node_key(node)}\0"
