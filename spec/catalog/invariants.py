"""What holds in every state of the catalog, whatever the log says.

Source: Consul, "KV Store - HTTP API" (CreateIndex, ModifyIndex), "Sessions" (what a session's end means), "Catalog HTTP
API" (what needs what).
"""

from __future__ import annotations

from spec.catalog.state import Index, State, Status, node_key, row_key


def indexes_are_ordered(state: State, last_applied: Index) -> bool:
    """0 < CreateIndex <= ModifyIndex <= the table's index <= that of the last entry applied, in every table.

    So what is written later has a greater index than all that was restored.
    """
    last = last_applied + state.shift
    tables = (
        (state.rows.items(), state.rows_index),
        (state.nodes.items(), state.index("nodes")),
        (state.services.items(), state.index("services")),
        (state.checks.items(), state.index("checks")),
        (state.sessions.items(), state.index("sessions")),
    )
    return (
        all(0 < row.create_index <= row.modify_index <= index for rows, index in tables for _, row in rows)
        and all(0 < index <= state.tombstones_index for _, index in state.tombstones.items())
        and all(0 < index <= last for _, index in state.indexes.items())
        and state.table_index <= last
    )


def references_exist(state: State) -> bool:
    """Instances and sessions have their node, checks their node and instance, sessions their checks, none critical."""
    services = all(node_key(service.node) in state.nodes for _, service in state.services.items())
    checks = all(
        node_key(check.node) in state.nodes
        and (not check.service_id or row_key(check.node, check.service_id) in state.services)
        for _, check in state.checks.items()
    )
    return services and checks and all(rests(state, session) for session, _ in state.sessions.items())


def rests(state: State, session_id: str) -> bool:
    """Whether what a session depends on is there and healthy."""
    session = state.sessions.get(session_id)
    if session is None or node_key(session.node) not in state.nodes:
        return False
    checks = [state.checks.get(row_key(session.node, check_id)) for check_id in session.checks]
    return all(check is not None and check.status is not Status.CRITICAL for check in checks)


def only_sessions_hold_locks(state: State) -> bool:
    """A session that ended holds nothing; a key that is held was acquired."""
    held = [row for _, row in state.rows.items() if row.session]
    return all(row.session in state.sessions and row.lock_index > 0 for row in held)
