"""The state store applies every log as the catalog's specification does: same results, same rows, same indexes, same
answers; what it takes back, it takes back whole; and each command means the same to both codecs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings

from impl.catalog import kv, registry, registry_queries, restore, sessions, tables, transactions, transitions
from impl.catalog.commands import decode_command
from impl.catalog.snapshot import StoreView
from impl.catalog.store import Store
from impl.catalog.tables import Tables
from model_checks.catalog import payloads
from model_checks.catalog.generated import LOGS, QUERIES, restore_of, state_after
from model_checks.catalog.random_logs import random_log
from spec.catalog import commands as asked
from spec.catalog.commands import (
    Command,
    CreateSession,
    Deregister,
    DestroySession,
    Lock,
    Noop,
    Register,
    RestoreBegin,
    RestoreChunk,
    Transaction,
    Unlock,
)
from spec.catalog.queries import Instance, OfNode, Tags, query
from spec.catalog.restore import rows_of
from spec.catalog.state import Check, Node, Row, Service, Session, State, Status, Tombstone, initial_state
from spec.catalog.transactions import Outcome
from spec.catalog.transitions import Failed, Result, apply


def plain(value: Any) -> Any:
    """What msgpack makes of a value: arrays and maps."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def fields(row: Any) -> Any:
    """A row of the spec as the array that payloads have."""
    match row:
        case Row():
            return payloads.row_fields(row)
        case Node():
            return payloads.node_fields(row)
        case Service():
            return payloads.service_fields(row)
        case Check():
            return payloads.check_fields(row)
        case Session():
            return payloads.session_fields(row)
        case Instance(node, service, checks):
            return [fields(node), fields(service), [fields(check) for check in checks]]
        case OfNode(node, services):
            return [fields(node), [fields(service) for service in services]]
        case Tags(name, tags):
            return [name, list(tags)]
        case _:
            return row


def expected_tables(state: State) -> dict[str, Any]:
    staging = state.staging
    staged = (
        None if staging is None else (staging.id, staging.chunks, list(map(payloads.archived_fields, staging.rows)))
    )
    return {
        "shift": state.shift,
        "staging": staged,
        "entries": [fields(row) for _, row in state.rows.items()],
        "tombstones": dict(state.tombstones.items()),
        "nodes": [fields(row) for _, row in state.nodes.items()],
        "services": [fields(row) for _, row in state.services.items()],
        "checks": [fields(row) for _, row in state.checks.items()],
        "sessions": [fields(row) for _, row in state.sessions.items()],
        "indexes": dict(state.indexes.items()),
        "kv_index": state.table_index,
    }


def found_tables(store: Tables) -> dict[str, Any]:
    rows = {
        name: [plain(table[key]) for key in table.under("")]
        for name in ("entries", "nodes", "services", "checks", "sessions")
        for table in (getattr(store, name),)
    }
    numbers = {
        name: {key: table[key] for key in table.under("")}
        for name in ("tombstones", "indexes")
        for table in (getattr(store, name),)
    }
    return rows | numbers | {"kv_index": store.kv_index, "shift": store.shift, "staging": staged(store)}


def staged(store: Tables) -> tuple[str, int, list[Any]] | None:
    """What has arrived of a restore, read out as a snapshot does it, after the rows of the state in force."""
    if store.staging is None:
        return None
    whole = Store()
    whole.tables = store
    view, rows = StoreView(whole), list[Any]()
    while not view.done:
        rows += plain(view.rows())
    first = next(position for position, row in enumerate(rows) if row[0] == "staging")
    return store.staging.id, store.staging.chunks, rows[first + 1 :]


def expected_result(result: Result) -> Any:
    match result:
        case bool():
            return result
        case Failed(why):
            return ["failed", why]
        case Outcome(results, errors):
            kinds = {Row: "kv", Node: "node", Service: "service", Check: "check"}
            shown = [[kinds[type(row)], fields(row)] for row in results]
            return ["outcome", shown, [[error.position, error.what] for error in errors]]


def registry_query(request: Any) -> registry_queries.RegistryQuery | None:
    """The implementation's name for a request of the spec; None for the KV store's."""
    match request:
        case asked.ListNodes(meta):
            return registry_queries.ListNodes(dict(meta))
        case asked.ListServices(meta):
            return registry_queries.ListServices(dict(meta))
        case asked.ServiceInstances(service, tags, meta, connect):
            return registry_queries.ServiceInstances(service, tags, dict(meta), connect)
        case asked.ServiceHealth(service, tags, passing, meta, connect):
            return registry_queries.ServiceHealth(service, tags, passing, dict(meta), connect)
        case asked.NodeServices(node):
            return registry_queries.NodeServices(node)
        case asked.NodeChecks(node):
            return registry_queries.NodeChecks(node)
        case asked.ServiceChecks(service, meta):
            return registry_queries.ServiceChecks(service, dict(meta))
        case asked.ChecksInState(status, meta):
            return registry_queries.ChecksInState(status, dict(meta))
        case asked.GetSession(session_id):
            return registry_queries.GetSession(session_id)
        case asked.ListSessions(node):
            return registry_queries.ListSessions(node)
        case _:
            return None


def found_answer(store: Tables, request: registry_queries.RegistryQuery) -> tuple[int, list[Any]]:
    found = registry_queries.answer(store, request)
    match found:
        case registry_queries.NodesAnswer(index, rows):
            return index, plain(rows)
        case registry_queries.ServicesAnswer(index, services):
            return index, [[name, tags] for name, tags in services.items()]
        case registry_queries.InstancesAnswer(index, instances):
            return index, plain(instances)
        case registry_queries.NodeAnswer(index, node, on_it):
            return index, [] if node is None else [[plain(node), plain(on_it)]]
        case registry_queries.ChecksAnswer(index, checks):
            return index, plain(checks)
        case registry_queries.SessionsAnswer(index, sessions_found):
            return index, plain(sessions_found)


def compare(log: list[Command]) -> None:
    """Apply the log to both, comparing everything after each command; what changed must have been announced."""
    state, store = initial_state(), Tables()
    for index, command in enumerate([Noop(), *log], 1):
        payload = payloads.encoded(command)
        assert payloads.decoded(payload) == command
        before = {request: query(state, request) for request in QUERIES}
        waiting = {
            request: set(registry_queries.watched(store, asked_here))
            for request in QUERIES
            if (asked_here := registry_query(request)) is not None
        }
        state, result = apply(state, command, index)
        found = transitions.apply(store, decode_command(payload), index)
        assert plain(found) == expected_result(result), command
        assert found_tables(store) == expected_tables(state), command
        for request, topics in waiting.items():
            asked_here = registry_query(request)
            assert asked_here is not None
            wanted_index, rows = query(state, request)
            assert found_answer(store, asked_here) == (wanted_index, [fields(row) for row in rows]), request
            if (wanted_index, rows) != before[request]:
                assert store.replaced or topics & set(store.touched), f"nobody woke for {request}"
        store.touched.clear()
        store.replaced = False


RENAMED: list[Command] = [
    Register(Node("n2", "1", id="u")),
    Transaction((asked.NodeOperation(asked.Verb.DELETE_CAS, Node("n1", "1", id="u")),)),
]
"""A conditional deletion looks at the node's name: the specification once looked at its id."""


@example(RENAMED)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(LOGS)
def test_every_log_builds_the_state_that_the_specification_says(log: list[Command]) -> None:
    compare(log)


@pytest.mark.parametrize("seed", range(20))
def test_so_do_logs_in_which_sessions_live_and_hold_keys(seed: int) -> None:
    compare(list(random_log(seed, 60, restores=True))[1:])


def test_a_log_says_what_it_is_for() -> None:
    """One acquisition in three takes the lock; of those that Hypothesis draws, one in a hundred."""
    state, taken, tried = initial_state(), 0, 0
    for index, command in enumerate(random_log(1, 2000), 1):
        before, (state, _) = state, apply(state, command, index)
        if isinstance(command, Lock):
            tried += 1
            taken += before.rows.get(command.key) != state.rows.get(command.key)
    assert taken > tried / 4


# ------------------------------------------------------------------------------------------------------------- mutants

ALIVE = Check("n1", "alive", status=Status.PASSING)
WEB = Register(Node("n1", "1"), Service("n1", "x", "web"), (ALIVE,))
PROXY = Register(Node("n2", "1"), Service("n2", "y", "db", connect="Web", mesh="{}"))
SESSION = CreateSession(Session("s", "n1", node_checks=("alive",)))
HELD: tuple[Command, ...] = (WEB, SESSION, Lock("a", b"1", 0, "s"))
BAD_CHECK = Register(Node("n2", "1"), None, (Check("n2", "c", service_id="none"),))


RESTORED = restore_of(rows_of(state_after([*HELD, Deregister("n1", service_id="x")], first=50)))
UNSOUND = restore_of(tuple(row for row in rows_of(state_after(list(HELD))) if not isinstance(row, Node)))


def keeps_sessions(store: Tables, other: Tables) -> None:
    other.sessions = store.sessions
    ADOPT(store, other)


ADOPT = Tables.adopt
COMMIT = restore.commit


PLACE = restore.place
NUMBERS = count()


def always_later(row: Any) -> tuple[int, str]:
    return next(NUMBERS), PLACE(row)[1]


def whatever_is_staged(store: Tables, _: str) -> restore.Staging:
    return store.staging or restore.Staging("")


def commits_without_a_word(store: Tables, *arguments: Any) -> None:
    COMMIT(store, *arguments)
    store.replaced = False


def commits_unshifted(store: Tables, *arguments: Any) -> None:
    shift = store.shift
    COMMIT(store, *arguments)
    store.shift = shift


def nothing(*_: Any) -> None:
    return None


def nowhere(*_: Any) -> list[Any]:
    return []


def goes_at_last(store: Tables, service: Any, index: int) -> None:
    """Who waits for a service that still has instances is not told."""
    if not store.services.has_group("service", service.service):
        LEFT(store, service, index)


LEFT = registry._left


def forgets_its_holds(store: Tables, key: str, *arguments: Any) -> bool:
    released = RELEASE(store, key, *arguments)
    store.entries.put(key, msgspec.structs.replace(store.entries[key], lock_index=0))
    return released


RELEASE = kv.release


def any_pair(node: Any, wanted: dict[str, str]) -> bool:
    return not wanted or any(node.meta.get(key) == value for key, value in wanted.items())


def without_flags(store: Tables, operation: Any) -> list[Any]:
    return [msgspec.structs.replace(entry, flags=0) for entry in KV_READ(store, operation)]


KV_READ = transactions._kv_read


def cased(name: str) -> str:
    return name


def cased_key(node: str, identity: str) -> str:
    return f"{node.lower()}\0{identity}"


MUTANTS: tuple[tuple[Any, str, Any, Sequence[Command]], ...] = (
    (registry, "row_key", cased_key, (WEB, Deregister("n1", service_id="X"))),
    (tables, "row_key", cased_key, (WEB, Register(Node("n1", "1"), None, (Check("n1", "C", service_id="X"),)))),
    (sessions, "row_key", cased_key, (*HELD, Deregister("n1", check_id="ALIVE"))),
    (tables, "service_key", cased, (Register(Node("n1", "1"), Service("n1", "x", "Web")),)),
    (registry, "service_key", cased, (Register(Node("n1", "1"), Service("n1", "x", "Web")),)),
    (registry_queries, "service_key", cased, (WEB,)),
    (registry, "_touch_health", nothing, (WEB, Deregister("n1", check_id="alive"))),
    (registry, "_touch_services_on", nothing, (WEB, Register(Node("n1", "2")))),
    (registry, "_refuse_taken_name", nothing, (
        Register(Node("n1", "1", id="u"), None, (Check("n1", "serfHealth", status=Status.PASSING),)),
        Register(Node("n1", "1", id="v")),
    )),
    (registry, "_left", nothing, (WEB, Deregister("n1", service_id="x"))),
    (registry, "_left", goes_at_last, (
        WEB,
        Register(Node("n1", "1"), Service("n1", "y", "web")),
        Register(Node("n1", "1"), Service("n1", "x", "db")),
    )),
    (registry_queries, "_has", any_pair, (Register(Node("n1", "1", meta=(("os", "linux"), ("rack", "b")))),)),
    (kv, "release", forgets_its_holds, (*HELD, Unlock("a", b"1", 0, "s"))),
    (transactions, "_kv_read", without_flags, (
        Transaction((asked.KvOperation(asked.KvVerb.GET_OR_EMPTY, "none", flags=7),)),
    )),
    (registry, "_left_mesh", nothing, (PROXY, Deregister("n2", service_id="y"))),
    (registry, "_left_mesh", nothing, (PROXY, Register(Node("n2", "1"), Service("n2", "y", "db")))),
    (registry, "_of_instance", lambda service: (registry.of_service(service.service), "service_kind."), (PROXY,)),
    (registry_queries, "_group", lambda query: "service", (PROXY,)),
    (registry_queries, "_own_index", lambda query: registry.of_service(query.service), (PROXY,)),
    (sessions, "of_check", nowhere, (*HELD, Deregister("n1", check_id="alive"))),
    (sessions, "of_node", nowhere, (WEB, CreateSession(Session("s", "n1")), Deregister("n1"))),
    (kv, "lose", nothing, (*HELD, DestroySession("s"))),
    (tables, "undo", nothing, (BAD_CHECK,)),
    (tables, "undo", nothing, (Transaction((asked.KvOperation(asked.KvVerb.SET, "a", b"1"),
                                            asked.KvOperation(asked.KvVerb.GET, "none"))),)),
    (transactions, "_without_value", lambda entry: entry, (
        Transaction((asked.KvOperation(asked.KvVerb.SET, "a", b"1"),)),
    )),
    (registry_queries, "_service_topics", lambda *_: ("services",), (
        WEB,
        Register(Node("n2", "1"), Service("n2", "y", "db")),
    )),
    (registry_queries, "watched", lambda *_: (), (WEB,)),
    (restore.Staging, "sound", True, UNSOUND),
    (restore.Staging, "begun", True, [RestoreBegin("r")]),
    (restore, "place", always_later, [RestoreBegin("r"), RestoreChunk("r", 1, (Tombstone("b", 1), Tombstone("a", 1)))]),
    (restore, "_under_way", whatever_is_staged, [RestoreBegin("q"), *RESTORED[1:2]]),
    (restore, "begin", nothing, [RestoreBegin("r")]),
    (restore, "commit", commits_unshifted, RESTORED),
    (restore, "commit", commits_without_a_word, (WEB, *RESTORED)),
    (Tables, "adopt", keeps_sessions, (*HELD, *RESTORED)),
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}")
def test_a_mutant_differs(monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Any, Sequence[Command]]) -> None:
    module, name, broken, log = mutant
    compare(list(log))
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(AssertionError):
        compare(list(log))


def test_a_payload_that_is_not_of_the_format_is_refused() -> None:
    for bad in (
        b"\xc1",
        msgspec.msgpack.encode(["kv-set", "a"]),
        msgspec.msgpack.encode(["register", [], None, [], 0]),
    ):
        with pytest.raises(payloads.Malformed):
            payloads.decoded(bad)
