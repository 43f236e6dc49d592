"""The readable catalog's states as rows of the relational model's tables.

Keys of rows are the spec's own; a value is all that the model takes for one value (`unnumbered`).
Must not: know a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, assert_never

from msgspec.structs import replace

from model_checks.proofs.algebra import Sort
from model_checks.proofs.catalog_signature import BESIDE, FIELDS, SIGNATURE
from spec.catalog.restore import KV_INDEX
from spec.catalog.state import (
    ArchivedRow,
    Check,
    Node,
    Row,
    Service,
    Session,
    State,
    Status,
    TableIndex,
    Tombstone,
    initial_state,
    node_key,
    row_key,
    service_key,
)

SEEN: Final = "seen"
"""The copy that readers see."""
TableRows = dict[tuple[Any, ...], Any]
"""(symbol, arguments...) -> value; what is not there is false, or says nothing."""
Elements = dict[Sort, frozenset[Any]]


def row_fields(key: str, row: Row) -> TableRows:
    """A key and its lock."""
    found: TableRows = {("row", key): True, ("create", key): row.create_index, ("modify", key): row.modify_index}
    found |= {("value", key): (row.value, row.flags), ("lock_index", key): row.lock_index}
    return found | ({("holds", key, row.session): True} if row.session else {})


def unnumbered(row: Node | Service | Check | Session) -> Any:
    """A row without its indexes: what the model takes for its value."""
    return replace(row, create_index=0, modify_index=0)


def numbers(kind: str, key: str, row: Node | Service | Check) -> TableRows:
    """A row of the registry, its indexes and its value."""
    return {
        (kind, key): True,
        (f"{kind}_create", key): row.create_index,
        (f"{kind}_modify", key): row.modify_index,
        (f"{kind}_value", key): unnumbered(row),
    }


def check_fields(key: str, check: Check) -> TableRows:
    """A check."""
    found = numbers("check", key, check)
    found |= {("critical", key): check.status is Status.CRITICAL, ("of_instance", key): bool(check.service_id)}
    return found | {("subject", key): instance_of(check)}


def instance_of(check: Check) -> str:
    """The key of the instance that a check is of, if it is of one."""
    return row_key(check.node, check.service_id)


def contract(session: Session) -> Session:
    """What a session asks for, whatever its id."""
    return unnumbered(replace(session, id=""))  # type: ignore[no-any-return]


def projection(state: State) -> TableRows:
    """Every row of the model's tables; what is not there is false, or says nothing."""
    found: TableRows = {}
    for key, row in state.rows.items():
        found |= row_fields(key, row)
    for key, index in state.tombstones.items():
        found |= {("tombstone", key): True, ("tombstone_index", key): index}
    for key, node in state.nodes.items():
        found |= numbers("node", key, node)
    for key, service in state.services.items():
        found |= {**numbers("instance", key, service), ("name", key): service_key(service.service)}
        found["member_of", service_key(service.service)] = key
    for key, check in state.checks.items():
        found |= check_fields(key, check)
    for key, session in state.sessions.items():
        found |= {("session", key): True, ("terms", key): contract(session)}
        found["session_create", key] = session.create_index
    for table, index in state.indexes.items():
        group, _, name = table.partition(".")
        if group == "node":
            found["node_index", name] = index
        if group == "service":
            found |= {("populated", name): True, ("service_index", name): index}
    for table in ("nodes", "services", "checks", "sessions"):
        found[f"{table}_index",] = state.index(table)
    found["rows_index",] = state.rows_index
    found["tombstones_index",] = state.tombstones_index
    found["extinction_index",] = state.index("service_last_extinction")
    found["node_extinction_index",] = state.index("node_last_extinction")
    return found


def archived(rows: Iterable[ArchivedRow]) -> State:
    """The state that an archive's rows say, whatever the spec makes of them."""
    state = initial_state()
    for row in rows:
        match row:
            case TableIndex(name, index) if name == KV_INDEX:
                state = replace(state, rows_index=index, tombstones_index=index)
            case TableIndex(name, index):
                state = replace(state, indexes=state.indexes.put(name, index))
            case Tombstone(key, index):
                state = replace(state, tombstones=state.tombstones.put(key, index))
            case Row(key):
                state = replace(state, rows=state.rows.put(key, row))
            case Node(name):
                state = replace(state, nodes=state.nodes.put(node_key(name), row))
            case Service(name, service_id):
                state = replace(state, services=state.services.put(row_key(name, service_id), row))
            case Check(name, check_id):
                state = replace(state, checks=state.checks.put(row_key(name, check_id), row))
            case Session(session_id):
                state = replace(state, sessions=state.sessions.put(session_id, row))
            case _:
                assert_never(row)
    return state


MEANT: Final = {name: row for rows in (FIELDS, BESIDE) for row, fields in rows.items() for name in fields}
"""The row without which a field means nothing."""

HISTORY: Final = frozenset({"grave", "member_of"})
"""What the spec does not have."""


def elements(states: Iterable[State], prefix: str) -> dict[Sort, frozenset[Any]]:
    """All names that a command's states know."""
    found: dict[Sort, set[Any]] = {sort: set() for arity in SIGNATURE.values() for sort in arity.arguments}
    found[Sort.COPY] = {SEEN}
    found[Sort.KEY].add(prefix)
    for state in states:
        found[Sort.KEY] |= {key for table in (state.rows, state.tombstones) for key, _ in table.items()}
        found[Sort.NODE] |= {key for key, _ in state.nodes.items()}
        found[Sort.INSTANCE] |= {key for key, _ in state.services.items()}
        found[Sort.SERVICE] |= {service_key(service.service) for _, service in state.services.items()}
        found[Sort.CHECK] |= {key for key, _ in state.checks.items()}
        found[Sort.SESSION] |= {key for key, _ in state.sessions.items()}
    return {sort: frozenset(names) for sort, names in found.items()}
