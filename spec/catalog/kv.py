"""The KV store: what each of its commands does to it. `(state, ..., index) -> state'`, or with a result beside it.

Source: Consul, "KV Store - HTTP API", and the behaviour of its state store. *Deviation:* a plain set keeps LockIndex,
which Consul's documentation defines as the number of times that the lock was acquired; its state store takes the
number from the request, where it is 0, so that there a plain set of a held key restarts it.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.catalog.state import Index, Row, State


class Invalid(Exception):
    """The command cannot be carried out at all; the text is what the client reads. Nothing was changed."""


def modify_index(state: State, key: str) -> Index:
    """The key's ModifyIndex; 0 if it does not exist, which is what makes `cas=0` mean "create only"."""
    row = state.rows.get(key)
    return 0 if row is None else row.modify_index


def set_row(state: State, key: str, value: bytes, flags: int, index: Index) -> State:
    """Store a value; its lock stays as it is."""
    old = state.rows.get(key)
    return stored(state, Row(key, value, flags, index, index) if old is None else changed(old, value, flags), index)


def changed(row: Row, value: bytes, flags: int) -> Row:
    """The row with another value."""
    return replace(row, value=value, flags=flags)


def stored(state: State, row: Row, index: Index) -> State:
    """Store a row. One that changes nothing leaves every index as it was, so no blocking query wakes for it."""
    old = state.rows.get(row.key)
    if old is not None:
        row = replace(row, create_index=old.create_index, modify_index=old.modify_index)
        if row == old:
            return state
    return replace(state, rows=state.rows.put(row.key, replace(row, modify_index=index)), rows_index=index)


def check_and_set(
    state: State, key: str, value: bytes, flags: int, expected: Index, index: Index
) -> tuple[State, bool]:
    """Set, if the key's ModifyIndex is `expected`; 0: if it does not exist."""
    if modify_index(state, key) != expected:
        return state, False
    return set_row(state, key, value, flags, index), True


def delete_row(state: State, key: str, index: Index) -> State:
    """Delete one key and leave a tombstone, so that the index of a list over it does not go back. An absent key
    changes nothing.
    """
    if key not in state.rows:
        return state
    return replace(
        state,
        rows=state.rows.without(key),
        tombstones=state.tombstones.put(key, index),
        rows_index=index,
        tombstones_index=index,
    )


def delete_check_and_set(state: State, key: str, expected: Index, index: Index) -> tuple[State, bool]:
    """Delete, if the key's ModifyIndex is `expected`. An absent key is already as the client wants it: true."""
    if key in state.rows and modify_index(state, key) != expected:
        return state, False
    return delete_row(state, key, index), True


def delete_tree(state: State, prefix: str, index: Index) -> State:
    """Delete all keys under `prefix`, leaving *one* tombstone, named by the prefix; none for the root, whose lists
    have the table's index.

    A list over a longer prefix does not find that tombstone, so its index may go back: Consul's behaviour, see the
    tests.
    """
    doomed = [key for key, _ in state.rows.with_prefix(prefix)]
    if not doomed:
        return state
    rows = state.rows
    for key in doomed:
        rows = rows.without(key)
    if not prefix:
        return replace(state, rows=rows, rows_index=index)
    tombstones = state.tombstones.put(prefix, index)
    return replace(state, rows=rows, tombstones=tombstones, rows_index=index, tombstones_index=index)


def lock(state: State, key: str, value: bytes, flags: int, session: str, index: Index) -> tuple[State, bool]:
    """Acquire the key's lock and set its value: false if another session holds it.

    A new hold raises LockIndex; the holder may acquire again, which sets the value and keeps LockIndex, so that
    (Key, LockIndex, Session) is a sequencer of the hold. Raises Invalid: no session, or none of that id.
    """
    if not session:
        raise Invalid("missing session")
    if session not in state.sessions:
        raise Invalid(f'invalid session "{session}"')
    old = state.rows.get(key)
    if old is None:
        return stored(state, Row(key, value, flags, index, index, lock_index=1, session=session), index), True
    if old.session not in ("", session):
        return state, False
    lock_index = old.lock_index + (old.session != session)
    return stored(state, replace(changed(old, value, flags), lock_index=lock_index, session=session), index), True


def unlock(state: State, key: str, value: bytes, flags: int, session: str, index: Index) -> tuple[State, bool]:
    """Release the key's lock and set its value: false unless this session holds it. Raises Invalid: no session."""
    if not session:
        raise Invalid("missing session")
    old = state.rows.get(key)
    if old is None or old.session != session:
        return state, False
    return stored(state, replace(changed(old, value, flags), session=""), index), True


def held(state: State, session: str) -> tuple[Row, ...]:
    """The rows whose lock the session holds, in the order of their keys."""
    return tuple(row for _, row in state.rows.items() if row.session == session)


def reap_tombstones(state: State, up_to: Index) -> State:
    """Forget the tombstones that are not newer than `up_to`. Indexes of lists may go back: Consul's behaviour."""
    doomed = [key for key, index in state.tombstones.items() if index <= up_to]
    tombstones = state.tombstones
    for key in doomed:
        tombstones = tombstones.without(key)
    return replace(state, tombstones=tombstones)
