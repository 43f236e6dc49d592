"""Reads of the state store, as values: what a forwarded read carries and what a trace's `answer` line names."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from impl.catalog import registry_queries, transactions
from impl.catalog.registry_queries import NodeAnswer, RegistryAnswer, RegistryQuery, ServicesAnswer
from impl.catalog.store import KeysAnswer, KvAnswer, Store
from impl.catalog.transactions import Operation, Outcome


class KvGet(msgspec.Struct, frozen=True, array_like=True, tag="kv-get"):
    """One key."""

    key: str


class KvList(msgspec.Struct, frozen=True, array_like=True, tag="kv-list"):
    """Every key that starts with `prefix`, with its value."""

    prefix: str


class KvKeys(msgspec.Struct, frozen=True, array_like=True, tag="kv-keys"):
    """The names of the keys that start with `prefix`, each cut after the first separator that follows the prefix."""

    prefix: str
    separator: str = ""


class ReadTransaction(msgspec.Struct, frozen=True, array_like=True, tag="transaction-read"):
    """A transaction that only reads, and goes past the log."""

    operations: tuple[Operation, ...]


class TransactionAnswer(msgspec.Struct, frozen=True, array_like=True, tag="transaction"):
    """What a transaction read. It has no index: nobody can wait for it to change."""

    index: int
    outcome: Outcome


Query = KvGet | KvList | KvKeys | RegistryQuery | ReadTransaction
Answer = KvAnswer | KeysAnswer | RegistryAnswer | TransactionAnswer


class Watched(msgspec.Struct, frozen=True):
    """What a blocking query waits for: any of these changes."""

    keys: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """Names of indexes (`impl/catalog/tables.py`)."""


def answer_query(store: Store, query: Query) -> Answer:
    """Evaluate the query now."""
    match query:
        case KvGet(key):
            return store.get(key)
        case KvList(prefix):
            return store.list_prefix(prefix)
        case KvKeys(prefix, separator):
            return store.list_keys(prefix, separator)
        case ReadTransaction(operations):
            return TransactionAnswer(0, transactions.run(store.tables, operations, 0))
        case _:
            return registry_queries.answer(store.tables, query)


def watched(store: Store, query: Query) -> Watched:
    """What to wait for until the answer to the query may have changed."""
    match query:
        case KvGet(key):
            return Watched(keys=(key,))
        case KvList(prefix) | KvKeys(prefix):
            return Watched(prefixes=(prefix,))
        case ReadTransaction():
            return Watched()
        case _:
            return Watched(groups=registry_queries.watched(store.tables, query))


def describe_query(query: Query) -> list[Any]:
    """The query as `answer` lines of a trace name it: an array that begins with its name."""
    described: list[Any] = msgspec.to_builtins(query)
    return described


def recorded_answer(answer: Answer) -> list[Any]:
    """The answer as `answer` lines of a trace have it: [index, rows]."""
    rows: list[Any]
    match answer:
        case KvAnswer(index, entries):
            rows = list(entries)
        case KeysAnswer(index, keys):
            rows = list(keys)
        case ServicesAnswer(index, services):
            rows = [[name, tags] for name, tags in services.items()]
        case NodeAnswer(index, node, services_of_node):
            rows = [] if node is None else [[node, services_of_node]]
        case registry_queries.NodesAnswer(index, nodes):
            rows = list(nodes)
        case registry_queries.InstancesAnswer(index, instances):
            rows = [[instance.node, instance.service, instance.checks] for instance in instances]
        case registry_queries.ChecksAnswer(index, checks):
            rows = list(checks)
        case registry_queries.SessionsAnswer(index, sessions):
            rows = list(sessions)
        case TransactionAnswer(index, outcome):
            rows = [outcome.results, outcome.errors]
        case _:
            assert_never(answer)
    return [index, rows]
