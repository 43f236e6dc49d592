"""Sessions, on the tables: how they begin, and what becomes of their locks when they end.

Whatever ends a session (its client, the leader's TTL timer, its node, one of its checks), its locks are given up in the
same entry; `Tables.lost` then names the keys whose lock-delay begins. Source: Consul, "Session HTTP Endpoint",
"Sessions and Distributed Locks Overview".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from impl.catalog import kv
from impl.catalog.rows import CRITICAL, DELETE, Session, node_key, row_key
from impl.catalog.tables import SESSIONS, Invalid, Tables

LOCK_DELAY_NS_MAX = 60_000_000_000
"""A longer lock-delay is cut to this."""


def create(tables: Tables, session: Session, index: int) -> None:
    """Begin a session. Raises Invalid: its node or a check is missing, or a check is critical."""
    if not session.id:
        raise Invalid("Missing session ID")
    if tables.nodes.get(node_key(session.node)) is None:
        raise Invalid("Missing node registration")
    for check_id in session.checks:
        check = tables.checks.get(row_key(session.node, check_id))
        if check is None:
            raise Invalid(f"Missing check '{check_id}' registration")
        if check.status == CRITICAL:
            raise Invalid(f"Check '{check_id}' is in {check.status} state")
    begun = msgspec.structs.replace(session, create_index=index, modify_index=index)
    tables.sessions.put(session.id, begun)
    tables.session_changes.append((session.id, begun))
    tables.touch(index, SESSIONS)


def end(tables: Tables, session_id: str, index: int) -> None:
    """End a session, if it exists."""
    session = tables.sessions.pop(session_id)
    if session is None:
        return
    tables.touch(index, SESSIONS)
    tables.session_changes.append((session_id, None))
    delay = min(session.lock_delay_ns, LOCK_DELAY_NS_MAX)
    for entry in tables.entries.group("session", session_id):
        if session.behavior == DELETE:
            kv.delete_key(tables, entry.key, index)
        else:
            kv.lose(tables, entry, index)
        if delay > 0:
            tables.lost.append((entry.key, delay))


def end_all(tables: Tables, ended: Iterable[Session], index: int) -> None:
    """End several sessions."""
    for session in ended:
        end(tables, session.id, index)


def of_node(tables: Tables, node: str) -> list[Session]:
    """The sessions of a node, by id."""
    return tables.sessions.group("node", node_key(node))


def of_check(tables: Tables, node: str, check_id: str) -> list[Session]:
    """The sessions that depend on a check, by id."""
    return tables.sessions.group("check", row_key(node, check_id))
