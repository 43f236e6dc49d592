"""Sessions: how they begin, and what becomes of their locks when they end.

A session ends by being destroyed, when its node or one of its checks is deregistered, and when one of its checks is
critical (`registry`). Expiry of the TTL is a destruction that the leader writes to the log. All happens in one entry:
there is no state in which a session has ended and still holds a lock.

Lock-delay is not part of the state: it is a promise of the leader, by its own clock, not to propose an acquisition
too soon after a hold was *lost* (`lock_delays` says for which keys it begins). Source: Consul, "Sessions and
Distributed Locks Overview", "Session HTTP Endpoint".
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from spec.catalog import kv
from spec.catalog.kv import Invalid
from spec.catalog.state import Behavior, Index, Session, State, Status, node_key, row_key, touched

LOCK_DELAY_MAX_NS = 60_000_000_000
"""What a session asks beyond this is cut to it."""


def create(state: State, session: Session, index: Index) -> State:
    """Begin a session. Raises Invalid: its node or one of its checks is not registered, or a check is critical."""
    if not session.id:
        raise Invalid("Missing session ID")
    if node_key(session.node) not in state.nodes:
        raise Invalid("Missing node registration")
    for check_id in session.checks:
        check = state.checks.get(row_key(session.node, check_id))
        if check is None:
            raise Invalid(f"Missing check '{check_id}' registration")
        if check.status is Status.CRITICAL:
            raise Invalid(f"Check '{check_id}' is in {check.status} state")
    begun = replace(session, create_index=index, modify_index=index)
    return touched(replace(state, sessions=state.sessions.put(session.id, begun)), index, "sessions")


def end(state: State, session_id: str, index: Index) -> State:
    """End a session, if it exists: its locks are released, or the keys deleted, as it asked when it began."""
    session = state.sessions.get(session_id)
    if session is None:
        return state
    state = touched(replace(state, sessions=state.sessions.without(session_id)), index, "sessions")
    for row in kv.held(state, session_id):
        if session.behavior is Behavior.RELEASE:
            state = kv.stored(state, replace(row, session=""), index)
        else:
            state = kv.delete_row(state, row.key, index)
    return state


def end_all(state: State, ended: tuple[Session, ...], index: Index) -> State:
    """End several sessions."""
    for session in ended:
        state = end(state, session.id, index)
    return state


def of_node(state: State, node: str) -> tuple[Session, ...]:
    """The sessions of a node, by id."""
    return tuple(session for _, session in state.sessions.items() if node_key(session.node) == node_key(node))


def of_check(state: State, node: str, check_id: str) -> tuple[Session, ...]:
    """The sessions that depend on a check, by id."""
    key = row_key(node, check_id)
    return tuple(session for session in of_node(state, node) if key in {row_key(node, each) for each in session.checks})


def lock_delays(before: State, after: State) -> Mapping[str, int]:
    """The keys whose lock-delay begins with the entry that led from `before` to `after`, in nanoseconds.

    Those that a session held when it ended, whatever ended it. A lock that its holder released has no delay.
    """
    return {
        row.key: min(session.lock_delay_ns, LOCK_DELAY_MAX_NS)
        for _, session in before.sessions.items()
        if session.id not in after.sessions and session.lock_delay_ns > 0
        for row in kv.held(before, session.id)
    }
