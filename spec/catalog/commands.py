"""What the replicated log asks of the catalog, and what clients ask of its state. Values only; meanings are in
`transitions` and `queries`.

Commands are normalised: the agents check and complete what clients send (ids that default to names, statuses, TTLs).
Source: Consul, "KV Store", "Transaction", "Catalog", "Health" and "Session" HTTP APIs.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from spec.catalog.state import ArchivedRow, Check, Index, Node, Pairs, Service, Session


class Noop(msgspec.Struct, frozen=True):
    """The entry that a new leader appends so as to commit one of its own term (Ongaro 2014, section 6.4)."""


class Set(msgspec.Struct, frozen=True):
    """Store `value` and `flags` under `key`."""

    key: str
    value: bytes
    flags: int = 0


class CheckAndSet(msgspec.Struct, frozen=True):
    """Set, only if the key's ModifyIndex is `index`; 0: only if the key does not exist."""

    key: str
    value: bytes
    flags: int
    index: Index


class Lock(msgspec.Struct, frozen=True):
    """Set, and acquire the key's lock for `session` (?acquire)."""

    key: str
    value: bytes
    flags: int
    session: str


class Unlock(msgspec.Struct, frozen=True):
    """Set, and release the key's lock, if `session` holds it (?release)."""

    key: str
    value: bytes
    flags: int
    session: str


class Delete(msgspec.Struct, frozen=True):
    """Delete one key."""

    key: str


class DeleteCheckAndSet(msgspec.Struct, frozen=True):
    """Delete one key, only if its ModifyIndex is `index`."""

    key: str
    index: Index


class DeleteTree(msgspec.Struct, frozen=True):
    """Delete every key that begins with `prefix`."""

    prefix: str


class ReapTombstones(msgspec.Struct, frozen=True):
    """Forget the tombstones that are not newer than `up_to`; the leader's doing."""

    up_to: Index


class Register(msgspec.Struct, frozen=True):
    """Register a node with, perhaps, an instance and checks, all or nothing."""

    node: Node
    service: Service | None = None
    checks: tuple[Check, ...] = ()
    skip_node_update: bool = False


class Deregister(msgspec.Struct, frozen=True):
    """Deregister an instance (`service_id`), or else a check (`check_id`), or else the node."""

    node: str
    service_id: str = ""
    check_id: str = ""


class CreateSession(msgspec.Struct, frozen=True):
    """Begin a session; its id was drawn by the leader."""

    session: Session


class DestroySession(msgspec.Struct, frozen=True):
    """End a session: its client destroyed it, or the leader found that its TTL had expired."""

    session_id: str


# ------------------------------------------------------------------------------------------------------- transactions


class Verb(StrEnum):
    """What an operation of a transaction on a node, an instance or a check does."""

    GET = "get"
    SET = "set"
    CAS = "cas"
    DELETE = "delete"
    DELETE_CAS = "delete-cas"


class KvVerb(StrEnum):
    """What an operation of a transaction on the KV store does."""

    SET = "set"
    CAS = "cas"
    LOCK = "lock"
    UNLOCK = "unlock"
    GET = "get"
    GET_OR_EMPTY = "get-or-empty"
    GET_TREE = "get-tree"
    CHECK_INDEX = "check-index"
    CHECK_SESSION = "check-session"
    CHECK_NOT_EXISTS = "check-not-exists"
    DELETE = "delete"
    DELETE_TREE = "delete-tree"
    DELETE_CAS = "delete-cas"


class KvOperation(msgspec.Struct, frozen=True):
    """An operation on a key, or for trees on a prefix. `index` is what CAS verbs and check-index compare with."""

    verb: KvVerb
    key: str
    value: bytes = b""
    flags: int = 0
    index: Index = 0
    session: str = ""


class NodeOperation(msgspec.Struct, frozen=True):
    """An operation on a node. CAS verbs compare with `node.modify_index`; 0: create only."""

    verb: Verb
    node: Node


class ServiceOperation(msgspec.Struct, frozen=True):
    """An operation on an instance. CAS verbs compare with `service.modify_index`."""

    verb: Verb
    service: Service


class CheckOperation(msgspec.Struct, frozen=True):
    """An operation on a check. CAS verbs compare with `check.modify_index`."""

    verb: Verb
    check: Check


Operation = KvOperation | NodeOperation | ServiceOperation | CheckOperation


class Transaction(msgspec.Struct, frozen=True):
    """Operations in order, each seeing what those before it did: all of them, or none."""

    operations: tuple[Operation, ...]


# ------------------------------------------------------------------------------------------------------------ restores


class RestoreBegin(msgspec.Struct, frozen=True):
    """Begin to stage another state, in place of what was staged before; "": stage nothing any more."""

    id: str


class RestoreChunk(msgspec.Struct, frozen=True):
    """The next rows of the archive of the staged state. `number`: from 1, without gaps."""

    id: str
    number: int
    rows: tuple[ArchivedRow, ...]


class RestoreCommit(msgspec.Struct, frozen=True):
    """The staged state, which came in so many chunks, takes the place of the one in force."""

    id: str
    chunks: int


Command = (
    Noop
    | Set
    | CheckAndSet
    | Lock
    | Unlock
    | Delete
    | DeleteCheckAndSet
    | DeleteTree
    | ReapTombstones
    | Register
    | Deregister
    | CreateSession
    | DestroySession
    | Transaction
    | RestoreBegin
    | RestoreChunk
    | RestoreCommit
)


# ------------------------------------------------------------------------------------------------------------ requests


class Get(msgspec.Struct, frozen=True):
    """Read one key."""

    key: str


class List(msgspec.Struct, frozen=True):
    """Read every key that begins with `prefix` (?recurse)."""

    prefix: str


class Keys(msgspec.Struct, frozen=True):
    """The names of the keys that begin with `prefix`, cut after the first `separator` behind it, if that is not empty
    (?keys).
    """

    prefix: str
    separator: str = ""


class ListNodes(msgspec.Struct, frozen=True):
    """All nodes whose metadata have these pairs (`/v1/catalog/nodes`)."""

    meta: Pairs = ()


class ListServices(msgspec.Struct, frozen=True):
    """The names of all services, each with its tags (`/v1/catalog/services`)."""

    meta: Pairs = ()


class ServiceInstances(msgspec.Struct, frozen=True):
    """The instances of a service that have all the tags, each with its node (`/v1/catalog/service/NAME`)."""

    service: str
    tags: tuple[str, ...] = ()
    meta: Pairs = ()
    connect: bool = False
    """Those through which the service is reached in the mesh (`/v1/catalog/connect/NAME`)."""


class NodeServices(msgspec.Struct, frozen=True):
    """A node and the instances on it (`/v1/catalog/node/NAME`)."""

    node: str


class NodeChecks(msgspec.Struct, frozen=True):
    """The checks of a node and its instances (`/v1/health/node/NAME`)."""

    node: str


class ServiceChecks(msgspec.Struct, frozen=True):
    """The checks of the instances of a service (`/v1/health/checks/NAME`)."""

    service: str
    meta: Pairs = ()


class ChecksInState(msgspec.Struct, frozen=True):
    """The checks with a status, or all ("any") (`/v1/health/state/STATE`)."""

    status: str
    meta: Pairs = ()


class ServiceHealth(msgspec.Struct, frozen=True):
    """The instances of a service with their nodes and checks (`/v1/health/service/NAME`)."""

    service: str
    tags: tuple[str, ...] = ()
    passing: bool = False
    """Only those all of whose checks pass (?passing)."""
    meta: Pairs = ()
    connect: bool = False
    """Those through which the service is reached in the mesh (`/v1/health/connect/NAME`)."""


class GetSession(msgspec.Struct, frozen=True):
    """One session (`/v1/session/info/ID`)."""

    session_id: str


class ListSessions(msgspec.Struct, frozen=True):
    """All sessions (`/v1/session/list`), or those of a node (`/v1/session/node/NAME`)."""

    node: str = ""


Request = (
    Get
    | List
    | Keys
    | ListNodes
    | ListServices
    | ServiceInstances
    | NodeServices
    | NodeChecks
    | ServiceChecks
    | ChecksInState
    | ServiceHealth
    | GetSession
    | ListSessions
)
