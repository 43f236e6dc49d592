"""Reads of the state store, as values: what a forwarded read carries and what a trace's `answer` line names."""

from __future__ import annotations

from typing import assert_never

import msgspec

from impl.catalog.store import KeysAnswer, KvAnswer, Store


class KvGet(msgspec.Struct, frozen=True, array_like=True, tag="kv-get"):
    """One key."""

    key: str


class KvList(msgspec.Struct, frozen=True, array_like=True, tag="kv-list"):
    """Every key that starts with `prefix`, with its value."""

    prefix: str


class KvKeys(msgspec.Struct, frozen=True, array_like=True, tag="kv-keys"):
    """The names of the keys that start with `prefix`, each cut after the first separator that follows the prefix."""

    prefix: str
    separator: str


Query = KvGet | KvList | KvKeys
Answer = KvAnswer | KeysAnswer


def answer_query(store: Store, query: Query) -> Answer:
    """Evaluate the query now."""
    match query:
        case KvGet(key):
            return store.get(key)
        case KvList(prefix):
            return store.list_prefix(prefix)
        case KvKeys(prefix, separator):
            return store.list_keys(prefix, separator)
        case _:
            assert_never(query)


def describe_query(query: Query) -> list[str]:
    """The query as `answer` lines of a trace name it."""
    match query:
        case KvGet(key):
            return ["kv-get", key]
        case KvList(prefix):
            return ["kv-list", prefix]
        case KvKeys(prefix, separator):
            return ["kv-keys", prefix, separator]
        case _:
            assert_never(query)
