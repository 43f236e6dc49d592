"""Broken pieces of the readable catalog, each to stand in for a function of it: linking and conformance reject them."""

from __future__ import annotations

from msgspec.structs import replace

from spec.catalog import kv
from spec.catalog.state import Index, Row, Session, State


def keeps_locks(state: State, session_id: str, index: Index) -> State:
    return replace(state, sessions=state.sessions.without(session_id))


def unchanged(state: State, *_: object) -> State:
    return state


def nobody(*_: object) -> tuple[Session, ...]:
    return ()


def robs(state: State, key: str, value: bytes, flags: int, session: str, index: Index) -> tuple[State, bool]:
    row = state.rows.get(key) or Row(key, value, flags, index, index)
    return kv.stored(state, replace(row, session=session, lock_index=row.lock_index + 1), index), True


def keeps_lock_index(
    state: State, key: str, value: bytes, flags: int, session: str, index: Index
) -> tuple[State, bool]:
    row = state.rows.get(key)
    new = Row(key, value, flags, index, index, 1, session) if row is None else replace(row, session=session)
    return kv.stored(state, new, index), True
