"""Mistakes in the catalog, or in how an agent answers. For `comitia check sockets`.

Raft is sound in all of them, and the servers agree with each other: only the specification of the catalog, and the
promises of the consistency modes, tell that they are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from impl.agent.requests.api import ReadOptions, ReadReply
from impl.catalog import kv, registry
from impl.catalog.queries import Query
from impl.catalog.registry_queries import RegistryQuery, ServiceHealth, ServiceInstances
from impl.catalog.rows import CRITICAL, Session, node_key
from impl.catalog.store import KvAnswer, Store
from impl.catalog.tables import NODE_EXTINCTION, NODES, Tables
from tests.mutants.agent import lock_delay_ignored, session_end_keeps_its_lock, stale_default_read
from tests.mutants.replacement import Function, by_name, replace


def list_index_forgets_tombstones() -> None:
    """The index of a list is that of its entries: a deletion under the prefix wakes nobody."""

    def make(original: Function) -> Function:
        def list_prefix(store: Store, prefix: str) -> KvAnswer:
            found: KvAnswer = original(store, prefix)
            newest = max((entry.modify_index for entry in found.entries), default=0)
            return KvAnswer(newest, found.entries) if prefix and newest else found

        return list_prefix

    replace("impl.catalog.store:Store.list_prefix", make)


def transaction_not_taken_back() -> None:
    """The operations before the one that failed stay done."""

    @contextmanager
    def atomic(tables: Tables) -> Iterator[None]:
        yield

    replace("impl.catalog.tables:Tables.atomic", lambda original: atomic)


def watch_misses_a_change_of_a_service() -> None:
    """A blocking query for a service waits for other services only."""

    def make(original: Function) -> Function:
        def watched(tables: Tables, query: RegistryQuery) -> tuple[str, ...]:
            return () if isinstance(query, ServiceHealth | ServiceInstances) else original(tables, query)

        return watched

    replace("impl.catalog.registry_queries:watched", make)


def cas_zero_overwrites() -> None:
    """`cas=0` means "create only", and sets a key that exists."""

    def make(original: Function) -> Function:
        def check_and_set(tables: Tables, key: str, value: bytes, flags: int, expected: int, index: int) -> bool:
            if expected == 0:
                kv.set_key(tables, key, value, flags, index)
                return True
            return bool(original(tables, key, value, flags, expected, index))

        return check_and_set

    replace("impl.catalog.kv:check_and_set", make)


def deregistered_node_leaves_its_checks() -> None:
    """A node goes, and its own checks stay."""

    def delete_node(tables: Tables, node: str, index: int) -> None:
        key = node_key(node)
        if tables.nodes.get(key) is None:
            return
        for service in tables.services.group("node", key):
            registry.delete_service(tables, node, service.id, index)
        tables.nodes.pop(key)
        tables.touch(index, NODES, NODE_EXTINCTION)
        tables.forget(registry.of_node(key))

    replace("impl.catalog.registry:delete_node", lambda original: delete_node)


def stale_read_goes_back() -> None:
    """A server answers every other stale read as it did the first time that it was asked."""
    first: dict[str, ReadReply] = {}
    count = [0]

    def make(original: Function) -> Function:
        async def read_stale(serving: Any, query: Query, options: ReadOptions) -> ReadReply:
            reply: ReadReply = await original(serving, query, options)
            count[0] += 1
            kept = first.setdefault(repr(query), reply)
            return kept if count[0] % 2 and not options.min_index else reply

        return read_stale

    replace("impl.agent.requests.serving:Serving._read_stale", make)


def critical_check_keeps_its_sessions() -> None:
    """A check turns critical, and the sessions that depend on it live on."""

    def make(original: Function) -> Function:
        def of_check(tables: Tables, node: str, check_id: str) -> list[Session]:
            check = tables.checks.get(f"{node_key(node)}\0{check_id}")
            return [] if check is not None and check.status == CRITICAL else original(tables, node, check_id)

        return of_check

    replace("impl.catalog.sessions:of_check", make)


def definition_loses_a_field() -> None:
    """How much of a check's output is kept is not."""

    def make(original: Function) -> Function:
        return lambda fields: {name: value for name, value in original(fields).items() if name != "OutputMaxSize"}

    replace("impl.http.bodies:probe", make)


def type_not_taken_from_the_definition() -> None:
    """A check that does not name its type has none."""
    replace("impl.http.bodies:kind_of", lambda original: lambda probed: "")


def definition_not_shown() -> None:
    """How a check is probed is kept, and shown to nobody."""

    def make(original: Function) -> Function:
        return lambda check: original(check) | {"Definition": {}}

    replace("impl.http.documents:check_document", make)


def proxy_turns_elsewhere_unannounced() -> None:
    """A service is reached through a proxy no more, and whoever waits for that is told that nothing happened."""
    replace("impl.catalog.registry:_left_mesh", lambda original: lambda *_: None)


MUTANTS: Final = by_name(
    list_index_forgets_tombstones,
    session_end_keeps_its_lock,
    transaction_not_taken_back,
    watch_misses_a_change_of_a_service,
    cas_zero_overwrites,
    deregistered_node_leaves_its_checks,
    stale_read_goes_back,
    stale_default_read,
    lock_delay_ignored,
    critical_check_keeps_its_sessions,
    definition_loses_a_field,
    type_not_taken_from_the_definition,
    definition_not_shown,
    proxy_turns_elsewhere_unannounced,
)
