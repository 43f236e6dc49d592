"""The KV store's commands, on the tables. Source: Consul, "KV Store - HTTP API"; the rules of its state store:

- an entry that is set to what it already is keeps its ModifyIndex;
- a set leaves the key's lock as it is (*Deviation:* Consul's also restarts LockIndex, against its documentation);
- a deletion leaves a tombstone at the key, that of a tree one at its prefix, that of everything none;
- a new hold of a lock raises LockIndex; the holder may acquire again, which only sets the value.
"""

from __future__ import annotations

import msgspec

from impl.catalog.tables import Invalid, KvEntry, Tables


def set_key(tables: Tables, key: str, value: bytes, flags: int, index: int) -> None:
    """Insert or replace a value."""
    old = tables.entries.get(key)
    if old is None:
        _store(tables, KvEntry(key, flags, value, index, index), index)
    elif old.value != value or old.flags != flags:
        entry = KvEntry(key, flags, value, old.create_index, index, old.lock_index, old.session)
        _store(tables, entry, index)


def _store(tables: Tables, entry: KvEntry, index: int) -> None:
    tables.entries.put(entry.key, entry)
    tables.touch_key(index, entry.key)


def check_and_set(tables: Tables, key: str, value: bytes, flags: int, expected: int, index: int) -> bool:
    """Set, if the key's ModifyIndex is `expected`; 0: if it does not exist."""
    old = tables.entries.get(key)
    if expected != (0 if old is None else old.modify_index):
        return False
    set_key(tables, key, value, flags, index)
    return True


def delete_key(tables: Tables, key: str, index: int) -> None:
    """Delete a key, present or not."""
    if tables.entries.pop(key) is not None:
        tables.tombstones.put(key, index)
        tables.touch_key(index, key)


def check_and_delete(tables: Tables, key: str, expected: int, index: int) -> bool:
    """Delete, if the key's ModifyIndex is `expected` or it is absent."""
    old = tables.entries.get(key)
    if old is not None and old.modify_index != expected:
        return False
    delete_key(tables, key, index)
    return True


def delete_tree(tables: Tables, prefix: str, index: int) -> None:
    """Delete every key that starts with `prefix`."""
    doomed = tables.entries.under(prefix)
    if not doomed:
        return
    for key in doomed:
        tables.entries.pop(key)
        tables.touch_key(index, key)
    if prefix:
        tables.tombstones.put(prefix, index)


def acquire(tables: Tables, key: str, value: bytes, flags: int, session: str, index: int) -> bool:
    """Take the key's lock and set its value; False: another session holds it. Raises Invalid."""
    if not session:
        raise Invalid("missing session")
    if tables.sessions.get(session) is None:
        raise Invalid(f'invalid session "{session}"')
    old = tables.entries.get(key)
    if old is None:
        _store(tables, KvEntry(key, flags, value, index, index, 1, session), index)
        return True
    if old.session == session:
        set_key(tables, key, value, flags, index)
        return True
    if old.session:
        return False
    _store(tables, KvEntry(key, flags, value, old.create_index, index, old.lock_index + 1, session), index)
    return True


def release(tables: Tables, key: str, value: bytes, flags: int, session: str, index: int) -> bool:
    """Give the key's lock back and set its value; False: this session does not hold it. Raises Invalid."""
    if not session:
        raise Invalid("missing session")
    old = tables.entries.get(key)
    if old is None or old.session != session:
        return False
    _store(tables, KvEntry(key, flags, value, old.create_index, index, old.lock_index), index)
    return True


def lose(tables: Tables, entry: KvEntry, index: int) -> None:
    """The lock's session ended: nobody holds the key any more."""
    _store(tables, msgspec.structs.replace(entry, session="", modify_index=index), index)


def reap_tombstones(tables: Tables, up_to: int) -> None:
    """Forget the tombstones that are not newer than `up_to`."""
    for key in tables.tombstones.under(""):
        if tables.tombstones[key] <= up_to:
            tables.tombstones.pop(key)
