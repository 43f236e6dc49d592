"""The vocabulary of the relational model of the catalog: symbols, mutants.

What the symbols stand for, and what the model leaves out, is said in `catalog`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from model_checks.proofs.algebra import Arity, Signature, Sort, Symbols, Value

KEY, SESSION, CONTRACT, COPY = Sort.KEY, Sort.SESSION, Sort.CONTRACT, Sort.COPY
NODE, INSTANCE, SERVICE, CHECK = Sort.NODE, Sort.INSTANCE, Sort.SERVICE, Sort.CHECK
VALUE, INDEX, BOOL = Sort.VALUE, Sort.INDEX, Sort.BOOL

RIGID: Final[Signature] = {
    "seen": Arity((), COPY),
    "covers": Arity((KEY, KEY), BOOL),
    "root": Arity((KEY,), BOOL),
    "at": Arity((INSTANCE,), NODE),
    "home": Arity((CHECK,), NODE),
    "place": Arity((CONTRACT,), NODE),
    "asks": Arity((CONTRACT, CHECK), BOOL),
}
"""The copy of the tables that readers see; which names are prefixes of which, and the empty one; the nodes of instances
and checks, whose names hold them; what a session rests on: a node, and checks of it."""

TABLES: Final[Signature] = {
    "row": Arity((KEY,), BOOL),
    "create": Arity((KEY,), INDEX),
    "modify": Arity((KEY,), INDEX),
    "value": Arity((KEY,), VALUE),
    "lock_index": Arity((KEY,), INDEX),
    "holds": Arity((KEY, SESSION), BOOL),
    "tombstone": Arity((KEY,), BOOL),
    "tombstone_index": Arity((KEY,), INDEX),
    "node": Arity((NODE,), BOOL),
    "node_create": Arity((NODE,), INDEX),
    "node_modify": Arity((NODE,), INDEX),
    "node_value": Arity((NODE,), VALUE),
    "node_index": Arity((NODE,), INDEX),
    "instance": Arity((INSTANCE,), BOOL),
    "name": Arity((INSTANCE,), SERVICE),
    "instance_create": Arity((INSTANCE,), INDEX),
    "instance_modify": Arity((INSTANCE,), INDEX),
    "instance_value": Arity((INSTANCE,), VALUE),
    "check": Arity((CHECK,), BOOL),
    "critical": Arity((CHECK,), BOOL),
    "of_instance": Arity((CHECK,), BOOL),
    "subject": Arity((CHECK,), INSTANCE),
    "check_create": Arity((CHECK,), INDEX),
    "check_modify": Arity((CHECK,), INDEX),
    "check_value": Arity((CHECK,), VALUE),
    "session": Arity((SESSION,), BOOL),
    "terms": Arity((SESSION,), CONTRACT),
    "session_create": Arity((SESSION,), INDEX),
    "populated": Arity((SERVICE,), BOOL),
    "service_index": Arity((SERVICE,), INDEX),
    "rows_index": Arity((), INDEX),
    "tombstones_index": Arity((), INDEX),
    "nodes_index": Arity((), INDEX),
    "services_index": Arity((), INDEX),
    "checks_index": Arity((), INDEX),
    "sessions_index": Arity((), INDEX),
    "extinction_index": Arity((), INDEX),
    "node_extinction_index": Arity((), INDEX),
    "grave": Arity((KEY,), KEY),
    "member_of": Arity((SERVICE,), INSTANCE),
}
"""What a command changes, row by row. populated(m): a service of that name has instances, and so an index of its own;
extinction_index: the last time that a service lost its last one. node_index: of the answer about a node and its
instances; node_extinction_index: the last time that a node was deregistered.

The last two are history: the name of the tombstone that a key was deleted under, and some instance of a service."""

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "row": ("create", "modify", "value", "lock_index"),
    "tombstone": ("tombstone_index",),
    "node": ("node_create", "node_modify", "node_value"),
    "instance": ("name", "instance_create", "instance_modify", "instance_value"),
    "check": ("critical", "of_instance", "subject", "check_create", "check_modify", "check_value"),
    "session": ("terms", "session_create"),
}
"""What a row says while it exists."""

BESIDE: Final[Mapping[str, tuple[str, ...]]] = {"node": ("node_index",), "populated": ("service_index", "member_of")}
"""What else means nothing without a row: indexes of answers about it, which are no part of them."""

KEPT: Final = "kept_"
"""Before the names of tables: those of a copy."""

SIGNATURE: Final[Signature] = {
    **TABLES,
    **{KEPT + name: Arity((COPY, *arity.arguments), arity.result) for name, arity in TABLES.items()},
    "held_as": Arity((COPY, KEY, INDEX, INDEX, SESSION), BOOL),
    "open": Arity((), BOOL),
    "applied": Arity((), INDEX),
    "applying": Arity((), INDEX),
    "delayed": Arity((KEY,), BOOL),
}
"""The tables that a command works on, and copies: the one that readers see, and snapshots. held_as(b, k, c, l, s): in
the history that led to copy b, session s held key k with CreateIndex c and LockIndex l. Whether an entry of the log
is being applied, the last one that was, this one. delayed: by this server's clock, the key's lock-delay is not over.
"""

MUTANTS: Final[Mapping[str, str]] = {
    "session_end_keeps_lock": "a session ends and still holds its locks",
    "lock_while_held": "a lock is acquired while another session holds it",
    "lock_robs": "a lock is taken from the session that holds it",
    "lock_without_session": "a lock is acquired for a session that does not exist",
    "lock_index_kept": "LockIndex does not grow with a new hold",
    "node_leaves_instances": "a node is deregistered, its instances stay",
    "node_leaves_checks": "a node is deregistered, its checks stay",
    "node_leaves_sessions": "a node is deregistered, its sessions stay",
    "instance_leaves_checks": "an instance is deregistered, its checks stay",
    "instance_without_node": "an instance is registered on a node that is not",
    "check_leaves_session": "a check is deregistered, the sessions that depend on it stay",
    "critical_leaves_session": "a check becomes critical, the sessions that depend on it stay",
    "session_on_critical": "a session begins although one of its checks is critical",
    "changed_set_keeps_index": "a set that changes a value keeps ModifyIndex",
    "unchanged_set_moves_index": "a set that changes nothing raises ModifyIndex",
    "set_keeps_table_index": "a set does not raise the table's index",
    "release_takes_index_back": "a release takes ModifyIndex back to CreateIndex",
    "session_end_not_announced": "a session ends, the index of sessions does not grow",
    "deletion_keeps_index": "a deletion does not raise the table's index",
    "deletion_forgets_tombstone": "a deletion leaves no tombstone",
    "health_not_announced": "a check changes, its service's index does not grow",
    "node_not_announced": "a node changes, the indexes of the services on it do not grow",
    "instance_not_announced": "an instance changes, the index of its node does not grow",
    "departure_not_announced": "a service loses its last instance, not the first one that does, and no index says so",
    "refused_keeps_effects": "a refused command leaves what it did before it failed",
    "operation_seen": "what an operation of a transaction does is seen at once",
    "restore_forgets_sessions": "restoring a snapshot forgets the sessions",
    "restore_stays_behind": "the entries after a restore have indexes that the archive's rows have, too",
    "restore_goes_back": "restoring a snapshot takes the applied index back, too",
}
"""Weakened catalogs that the proof must reject."""

ARGUED: Final = (
    "a command is a sequence of operations that begins and ends whole: linked for the commands that were met",
    "what is said of two states is said of one entry, and does not speak of an entry that restores a snapshot",
)
"""What Z3 does not check."""

LOCAL_LOCK_DELAY: Final = "lock_delay_in_apply"
"""The mutant of which only two replicas show that it is wrong: the tables depend on a server's clock."""


def tables_of(s: Symbols, copy: Value) -> Symbols:
    """The tables of a copy, under their plain names."""

    def of(name: str) -> Callable[..., Value]:
        symbol = getattr(s, KEPT + name)
        return lambda *arguments: symbol(copy, *arguments)

    return Symbols({name: of(name) for name in TABLES})
