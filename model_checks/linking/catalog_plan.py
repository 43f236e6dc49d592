"""What a command of the readable catalog may be in the relational model: operations, claimed from what differs.

A command is cut into parts, each carried out by the spec itself; the difference that a part makes says which rows
changed. What is announced comes first, then what goes, before what it needs, then what comes.
Must not: be trusted (`linking/catalog.py` looks at guards and results).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from model_checks.linking.catalog_tables import Elements, contract, instance_of, unnumbered
from model_checks.linking.concrete import Do
from model_checks.proofs.algebra import Sort
from spec.catalog import registry, transactions, transitions
from spec.catalog.commands import Command, DeleteTree, KvOperation, KvVerb, Register, Transaction
from spec.catalog.state import Check, Index, Service, State, Status, node_key, service_key


class Tables(Protocol):
    """The model's tables while an entry is applied."""

    known: Elements

    def holds(self, name: str, *at: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a command: the spec's state before and after it, and the name of the tombstone that it leaves, if it
    deletes a tree.
    """

    before: State
    after: State
    prefix: str | None = None


def parts(state: State, command: Command, index: Index) -> Iterator[Part]:
    """The parts of a command that succeeds, carried out by the spec one after the other."""
    number = index + state.shift
    match command:
        case Transaction(operations):
            for operation in operations:
                after, _ = transactions.step(state, operation, number)
                tree = isinstance(operation, KvOperation) and operation.verb is KvVerb.DELETE_TREE
                yield Part(state, after, operation.key if tree and isinstance(operation, KvOperation) else None)
                state = after
        case Register(node, service, checks, skip):
            steps: list[Callable[[State], State]] = []
            if node_key(node.node) not in state.nodes or not skip:
                steps.append(lambda s: registry.ensure_node(s, node, number))
            if service is not None:
                steps.append(lambda s: registry.ensure_service(s, service, number))
            steps += [checked(check, number) for check in checks]
            for step in steps:
                after = step(state)
                yield Part(state, after)
                state = after
        case DeleteTree(prefix):
            yield Part(state, transitions.apply(state, command, index)[0], prefix)
        case _:
            yield Part(state, transitions.apply(state, command, index)[0])


def checked(check: Check, index: Index) -> Callable[[State], State]:
    """The registration of a check."""
    return lambda state: registry.ensure_check(state, check, index)


def planned(part: Part, index: Index, entry: Tables) -> Iterator[Do]:
    """The operations that make the difference; what is announced first, what goes before what it needs.

    `index`: the one that rows have.
    """
    before, after = part.before, part.after
    for table, raised in before.indexes.items():
        group, _, name = table.partition(".")
        raises = raised != index and (after.indexes.get(table) == index or table not in after.indexes)
        if group == "service" and raises:
            yield Do("touch_service", (name,))
    yield from ended(before, after)
    gone = {key for key, _ in before.checks.items() if key not in after.checks}
    yield from (Do("delete_check", (key,)) for key in sorted(gone))
    for key, _ in before.services.items():
        if key not in after.services:
            yield Do("delete_instance", (key, left_behind(entry, key)))
    yield from (Do("delete_node", (key,)) for key, _ in before.nodes.items() if key not in after.nodes)
    for key, node in after.nodes.items():
        if before.nodes.get(key) != node:
            yield Do("put_node", (key, unnumbered(node), node.create_index))
    for key, service in after.services.items():
        if before.services.get(key) != service:
            yield stored_instance(entry, key, service)
    for key, check in after.checks.items():
        if before.checks.get(key) != check:
            critical, own = check.status is Status.CRITICAL, bool(check.service_id)
            yield Do("put_check", (key, unnumbered(check), critical, own, instance_of(check)))
    for key, session in after.sessions.items():
        if before.sessions.get(key) != session:
            yield Do("create_session", (key, contract(session)))
    yield from keys(part, entry)
    reaped = [index for key, index in before.tombstones.items() if key not in after.tombstones]
    if reaped:
        yield Do("reap_tombstones", (max(reaped),))


def ended(before: State, after: State) -> Iterator[Do]:
    """Sessions that end, each after its keys are released or deleted."""
    for session_id, _ in before.sessions.items():
        if session_id in after.sessions:
            continue
        for key, row in before.rows.items():
            if row.session == session_id:
                kept = after.rows.get(key)
                if kept is None:
                    yield Do("delete_key", (key, key))
                elif not kept.session:
                    yield Do("release", (key, session_id, (kept.value, kept.flags)))
        yield Do("end_session", (session_id,))


def left_behind(entry: Tables, key: str) -> str:
    """Another instance of the service that an instance leaves; itself if there is none."""
    name = entry.holds("name", key)
    others = entry.known[Sort.INSTANCE] - {key}
    return min((x for x in others if entry.holds("instance", x) and entry.holds("name", x) == name), default=key)


def stored_instance(entry: Tables, key: str, service: Service) -> Do:
    """An instance that is new, or changed."""
    value = unnumbered(service)
    if entry.holds("instance", key) and entry.holds("name", key) != service_key(service.service):
        return Do("move_instance", (key, service_key(service.service), value, left_behind(entry, key)))
    return Do("put_instance", (key, service_key(service.service), value))


def keys(part: Part, entry: Tables) -> Iterator[Do]:
    """What is left to do to keys when the sessions that end have ended."""
    for key, _ in part.before.rows.items():
        if key not in part.after.rows and entry.holds("row", key):
            named_by = part.prefix is not None and key.startswith(part.prefix)
            yield Do("delete_key", (key, part.prefix if named_by else key))
    for key, row in part.after.rows.items():
        held = {x for x in entry.known[Sort.SESSION] | {row.session} if entry.holds("holds", key, x)}
        value = (row.value, row.flags)
        if row.session and row.session not in held:
            yield Do("lock", (key, row.session, value, row.lock_index))
        elif held - {row.session}:
            yield from (Do("release", (key, x, value)) for x in sorted(held - {row.session}))
        elif not entry.holds("row", key) or entry.holds("value", key) != value:
            yield Do("set_key", (key, value))
