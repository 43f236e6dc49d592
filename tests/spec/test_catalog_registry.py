"""The registry, sessions and transactions of spec/catalog say what Consul says; each sentence kills a mutant, and the
properties hold in every log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from model_checks.catalog.generated import LISTS_OF_KEYS, LOGS, QUERIES
from model_checks.catalog.random_logs import random_log
from spec.catalog import invariants, kv, properties, queries, registry, sessions, transactions, transitions
from spec.catalog.commands import (
    CheckOperation,
    Command,
    CreateSession,
    Deregister,
    DestroySession,
    GetSession,
    KvOperation,
    KvVerb,
    ListNodes,
    ListServices,
    ListSessions,
    Lock,
    NodeChecks,
    NodeOperation,
    Noop,
    Register,
    RestoreCommit,
    ServiceHealth,
    ServiceInstances,
    ServiceOperation,
    Set,
    Transaction,
    Unlock,
    Verb,
)
from spec.catalog.queries import Instance, Tags
from spec.catalog.state import Behavior, Check, Node, Row, Service, Session, State, Status, initial_state
from spec.catalog.transactions import OperationError, Outcome
from spec.catalog.transitions import Failed


def replay(*commands: Command) -> tuple[State, list[Any]]:
    """The state and the results after the log `commands`, whose indexes begin with 1."""
    state, results = initial_state(), []
    for index, command in enumerate(commands, 1):
        state, result = transitions.apply(state, command, index)
        results.append(result)
    return state, results


def after(*commands: Command) -> State:
    return replay(*commands)[0]


N1 = Register(Node("n1", "10.0.0.1"))
N2 = Register(Node("n2", "10.0.0.2"))
WEB = Service("n1", "web-1", "web", tags=("v1",), port=80)
REGISTERED = Register(N1.node, WEB, (Check("n1", "alive", status=Status.PASSING),))
"""Index 1 of most logs here."""
SESSION = Session("s", "n1", node_checks=("alive",))
LOCKED = (REGISTERED, CreateSession(SESSION), Lock("k", b"1", 0, "s"))


def health(state: State, service: str = "web", *, passing: bool = False) -> list[tuple[str, list[str]]]:
    _, found = queries.query(state, ServiceHealth(service, passing=passing))
    instances = [each for each in found if isinstance(each, Instance)]
    return [(each.service.id, [check.check_id for check in each.checks]) for each in instances]


# -------------------------------------------------------------------------------------------------------- the registry


def a_registration_is_all_or_nothing() -> None:
    state, results = replay(Register(N1.node, WEB, (Check("n1", "c", service_id="none"),)))
    assert results == [Failed('failed inserting check on node "n1": Missing service registration')]
    assert state == initial_state()


def a_registration_that_changes_nothing_leaves_every_index() -> None:
    assert after(REGISTERED, REGISTERED) == after(REGISTERED)


def a_check_needs_its_node() -> None:
    (result,) = replay(Transaction((CheckOperation(Verb.SET, Check("n1", "c")),)))[1]
    assert result == Outcome(errors=(OperationError(0, "Missing node registration"),))


def deregistering_a_node_takes_its_instances_and_checks_with_it() -> None:
    state = after(REGISTERED, Deregister("n1"))
    assert not len(state.nodes) and not len(state.services) and not len(state.checks)


def deregistering_an_instance_takes_its_checks_with_it_and_leaves_the_nodes() -> None:
    own = Register(N1.node, None, (Check("n1", "own", service_id="web-1"),))
    state = after(REGISTERED, own, Deregister("n1", service_id="web-1"))
    assert queries.query(state, NodeChecks("n1"))[1] == (
        Check("n1", "alive", status=Status.PASSING, create_index=1, modify_index=1),
    )


def names_of_nodes_have_no_case() -> None:
    assert len(after(N1, Register(Node("N1", "10.0.0.9"))).nodes) == 1


def ids_of_instances_have_no_case_and_are_shown_as_registered() -> None:
    state = after(REGISTERED, Register(N1.node, replace(WEB, id="WEB-1")))
    assert [service.id for _, service in state.services.items()] == ["WEB-1"]
    assert not len(after(REGISTERED, Deregister("n1", service_id="Web-1")).services)


def ids_of_checks_have_no_case_and_are_shown_as_registered() -> None:
    upper = Register(N1.node, None, (Check("n1", "ALIVE", status=Status.CRITICAL),))
    state = after(*LOCKED, upper)
    assert [check.check_id for _, check in state.checks.items()] == ["ALIVE"]
    assert not len(state.sessions)  # they depend on it however they spell it


def checks_find_their_instance_without_regard_to_case() -> None:
    own = Register(N1.node, None, (Check("n1", "own", service_id="WEB-1"),))
    assert health(after(REGISTERED, own)) == [("web-1", ["alive", "own"])]
    gone = after(REGISTERED, own, Deregister("n1", service_id="web-1"))
    assert [check.check_id for _, check in gone.checks.items()] == ["alive"]


def names_of_services_have_no_case_and_share_an_index() -> None:
    second = Service("n1", "web-2", "Web")
    state = after(REGISTERED, Register(N1.node, second))
    assert [each for each, _ in health(state, "WEB")] == ["web-1", "web-2"]
    assert queries.query(state, ServiceHealth("web"))[0] == 2
    assert queries.query(state, ListServices())[1] == (Tags("Web", ()), Tags("web", ("v1",)))
    left = after(REGISTERED, Register(N1.node, second), Deregister("n1", service_id="web-2"))
    assert queries.query(left, ServiceHealth("Web"))[0] == 3  # it still has an instance


def a_node_that_is_known_by_its_id_may_be_renamed() -> None:
    state = after(Register(Node("a", "10.0.0.1", id="u"), Service("a", "web", "web")), Register(Node("b", "1", id="u")))
    assert [node.node for _, node in state.nodes.items()] == ["b"] and not len(state.services)


def the_name_of_a_living_node_is_not_taken() -> None:
    alive = Check("a", "serfHealth", status=Status.PASSING)
    state, results = replay(Register(Node("a", "1", id="u"), None, (alive,)), Register(Node("a", "2", id="v")))
    assert results[1] == Failed(
        'failed inserting node: Error while renaming Node ID: "v": Node name a is reserved by node u with name a (1)'
    )
    state = after(Register(Node("a", "1", id="u")), Register(Node("a", "2", id="v")))
    assert [node.id for _, node in state.nodes.items()] == ["v"]


def a_node_without_an_id_may_be_given_one() -> None:
    alive = Check("a", "serfHealth", status=Status.PASSING)
    state = after(Register(Node("a", "1"), None, (alive,)), Register(Node("a", "1", id="v")))
    assert [node.id for _, node in state.nodes.items()] == ["v"]


def a_service_is_healthy_by_the_checks_of_its_node_and_its_own() -> None:
    own = Register(N1.node, None, (Check("n1", "own", service_id="web-1", status=Status.WARNING),))
    state = after(REGISTERED, own)
    assert health(state) == [("web-1", ["alive", "own"])]
    assert health(state, passing=True) == []


def a_check_of_another_instance_does_not_matter() -> None:
    other = Register(N1.node, Service("n1", "web-2", "web"), (Check("n1", "c", service_id="web-2"),))
    assert health(after(REGISTERED, other), passing=True) == [("web-1", ["alive"])]


def a_check_of_the_node_moves_the_index_of_its_services() -> None:
    failing = Register(N1.node, None, (Check("n1", "alive", status=Status.WARNING),))
    assert queries.query(after(REGISTERED, N2, failing), ServiceHealth("web"))[0] == 3


def a_registration_of_another_service_does_not_move_the_index() -> None:
    other = Register(N2.node, Service("n2", "db", "db"))
    assert queries.query(after(REGISTERED, other), ServiceHealth("web"))[0] == 1
    assert queries.query(after(REGISTERED, other), ListServices()) == (2, (Tags("db", ()), Tags("web", ("v1",))))


def a_service_that_vanished_has_the_index_of_the_last_extinction() -> None:
    other = Register(N2.node, Service("n2", "db", "db"))
    state = after(REGISTERED, other, Deregister("n1", service_id="web-1"), Register(Node("n3", "3")))
    assert queries.query(state, ServiceInstances("web")) == (3, ())
    assert queries.query(state, ServiceInstances("never")) == (3, ())


PROXY = Register(N2.node, Service("n2", "proxy", "web-proxy", kind="connect-proxy", connect="Web"))
ELSEWHERE = Register(N2.node, Service("n2", "proxy", "web-proxy", kind="connect-proxy", connect="db"))
"""The proxy has another destination."""
NATIVE = Register(N1.node, Service("n1", "native", "web", connect="web"))


def through(state: State, service: str = "web") -> tuple[int, list[str]]:
    index, found = queries.query(state, ServiceHealth(service, connect=True))
    assert queries.query(state, ServiceInstances(service, connect=True))[0] == index
    return index, [each.service.id for each in found if isinstance(each, Instance)]


def a_service_is_reached_through_its_proxies_and_its_native_instances() -> None:
    assert through(after(REGISTERED, PROXY, NATIVE)) == (3, ["native", "proxy"])
    assert through(after(REGISTERED, PROXY), "WEB") == (2, ["proxy"])
    assert through(after(REGISTERED, PROXY), "web-proxy")[1] == []
    assert through(after(REGISTERED, PROXY), "")[1] == []
    assert health(after(REGISTERED, PROXY)) == [("web-1", ["alive"])]


def who_waits_for_a_way_into_the_mesh_hears_of_its_checks_and_its_node() -> None:
    assert through(after(PROXY, REGISTERED, Register(N2.node, None, (Check("n2", "c"),))))[0] == 3
    assert through(after(PROXY, REGISTERED, Register(N2.node, None, (Check("n2", "c", service_id="proxy"),))))[0] == 3
    assert through(after(PROXY, REGISTERED, Register(Node("n2", "elsewhere"))))[0] == 3
    assert through(after(PROXY, REGISTERED, Register(N1.node, None, (Check("n1", "c"),))))[0] == 1


def a_proxy_that_leaves_or_has_another_destination_moves_the_index() -> None:
    assert through(after(PROXY, NATIVE, Deregister("n2", service_id="proxy"))) == (3, ["native"])
    assert through(after(PROXY, NATIVE, ELSEWHERE)) == (3, ["native"])
    assert through(after(PROXY, ELSEWHERE, N1)) == (2, [])
    assert through(after(PROXY, ELSEWHERE, N1), "db") == (2, ["proxy"])
    assert through(after(PROXY, Deregister("n2"), N1)) == (2, [])


def tags_have_no_case() -> None:
    assert queries.query(after(REGISTERED), ServiceInstances("web", ("V1",)))[1]
    assert not queries.query(after(REGISTERED), ServiceInstances("web", ("v1", "v2")))[1]


def a_node_update_can_be_skipped() -> None:
    state = after(N1, Register(Node("n1", "elsewhere"), WEB, skip_node_update=True))
    assert queries.query(state, ListNodes())[1] == (Node("n1", "10.0.0.1", create_index=1, modify_index=1),)
    assert len(state.services) == 1


# ------------------------------------------------------------------------------------------------------ sessions, locks


def a_session_needs_its_node_and_passing_checks() -> None:
    state, results = replay(
        CreateSession(SESSION), N1, CreateSession(SESSION), Register(N1.node, None, (Check("n1", "alive"),))
    )
    assert results[0] == Failed("Missing node registration")
    assert results[2] == Failed("Missing check 'alive' registration")
    assert transitions.apply(state, CreateSession(SESSION), 5)[1] == Failed("Check 'alive' is in critical state")


def acquiring_needs_a_session() -> None:
    assert replay(Lock("k", b"", 0, "x"))[1] == [Failed('invalid session "x"')]
    assert replay(Lock("k", b"", 0, ""))[1] == [Failed("missing session")]


def a_lock_that_another_holds_is_not_acquired() -> None:
    other = CreateSession(replace(SESSION, id="t"))
    state, results = replay(*LOCKED, other, Lock("k", b"2", 0, "t"))
    assert results[-1] is False and state.rows.get("k") == after(*LOCKED).rows.get("k")


def a_new_hold_raises_the_lock_index_and_the_same_hold_does_not() -> None:
    state = after(*LOCKED, Lock("k", b"2", 0, "s"), Unlock("k", b"2", 0, "s"), Lock("k", b"2", 0, "s"))
    row = state.rows.get("k")
    assert row is not None and (row.lock_index, row.session) == (2, "s")


def only_the_holder_releases() -> None:
    other = CreateSession(replace(SESSION, id="t"))
    assert replay(*LOCKED, other, Unlock("k", b"", 0, "t"))[1][-1] is False
    assert replay(*LOCKED, Unlock("k", b"", 0, "s"))[1][-1] is True
    assert replay(*LOCKED, Unlock("none", b"", 0, "s"))[1][-1] is False


def a_set_leaves_the_lock_as_it_is() -> None:
    row = after(*LOCKED, Set("k", b"2")).rows.get("k")
    assert row is not None and (row.value, row.session, row.lock_index) == (b"2", "s", 1)


def a_session_ends_when_its_check_turns_critical() -> None:
    state = after(*LOCKED, Register(N1.node, None, (Check("n1", "alive", status=Status.CRITICAL),)))
    row = state.rows.get("k")
    assert row is not None and (row.session, row.modify_index, row.lock_index) == ("", 4, 1)
    assert queries.query(state, GetSession("s")) == (4, ())


def a_warning_ends_no_session() -> None:
    state = after(*LOCKED, Register(N1.node, None, (Check("n1", "alive", status=Status.WARNING),)))
    assert "s" in state.sessions


def a_session_ends_when_its_check_is_deregistered() -> None:
    assert "s" not in after(*LOCKED, Deregister("n1", check_id="alive")).sessions


def a_session_ends_when_its_node_is_deregistered() -> None:
    bare = CreateSession(Session("s", "n1"))
    state = after(N1, bare, Lock("k", b"", 0, "s"), Deregister("n1"))
    row = state.rows.get("k")
    assert "s" not in state.sessions and row is not None and row.session == ""


def a_session_may_ask_that_its_keys_be_deleted() -> None:
    deleting = CreateSession(replace(SESSION, behavior=Behavior.DELETE))
    state = after(REGISTERED, deleting, Lock("k", b"1", 0, "s"), Set("other", b""), DestroySession("s"))
    assert "k" not in state.rows and "other" in state.rows and state.tombstones.get("k") == 5


def a_lock_delay_begins_for_keys_that_were_lost_not_for_those_released() -> None:
    before = after(*LOCKED, Lock("l", b"", 0, "s"), Unlock("l", b"", 0, "s"))
    ended = transitions.apply(before, DestroySession("s"), 6)[0]
    assert sessions.lock_delays(before, ended) == {"k": 15_000_000_000}
    assert sessions.lock_delays(after(*LOCKED[:2]), after(*LOCKED)) == {}


def sessions_are_listed_by_node() -> None:
    state = after(N1, N2, CreateSession(Session("a", "n1")), CreateSession(Session("b", "n2")))
    assert [session.id for session in listed(state, "")] == ["a", "b"]
    assert [session.id for session in listed(state, "N2")] == ["b"]


def listed(state: State, node: str) -> Iterator[Session]:
    _, found = queries.query(state, ListSessions(node))
    yield from (session for session in found if isinstance(session, Session))


# --------------------------------------------------------------------------------------------------------- transactions


def kv_set(key: str, value: bytes = b"1") -> KvOperation:
    return KvOperation(KvVerb.SET, key, value)


def a_transaction_is_all_or_nothing_and_tells_every_error() -> None:
    failing = (kv_set("a"), KvOperation(KvVerb.GET, "none"), KvOperation(KvVerb.CHECK_NOT_EXISTS, "a"))
    state, results = replay(Transaction(failing))
    assert state == initial_state()
    assert results == [
        Outcome(errors=(OperationError(1, 'key "none" doesn\'t exist'), OperationError(2, 'key "a" exists')))
    ]


def an_operation_sees_what_those_before_it_did() -> None:
    _, results = replay(Transaction((kv_set("a"), KvOperation(KvVerb.GET, "a"), KvOperation(KvVerb.GET_TREE, ""))))
    assert [row.value for row in results[0].results] == [b"", b"1", b"1"]


def conditional_operations_compare_the_modify_index() -> None:
    stale = (
        KvOperation(KvVerb.CAS, "k", b"", index=9),
        KvOperation(KvVerb.DELETE_CAS, "k", index=9),
        KvOperation(KvVerb.CHECK_INDEX, "k", index=9),
        NodeOperation(Verb.CAS, replace(N1.node, modify_index=9)),
        ServiceOperation(Verb.DELETE_CAS, replace(WEB, modify_index=9)),
        CheckOperation(Verb.CAS, Check("n1", "alive")),
    )
    _, results = replay(*LOCKED, Transaction(stale))
    assert [error.what for error in results[-1].errors] == [
        'failed to set key "k", index is stale',
        'failed to delete key "k", index is stale',
        'failed index check for key "k", current modify index 3 != 9',
        'failed to set node "n1", index is stale',
        'failed to delete service "web-1" on node "n1", index is stale',
        'failed to set check "alive" on node "n1", index is stale',
    ]


def locks_are_taken_and_checked_in_transactions() -> None:
    operations = (
        KvOperation(KvVerb.CHECK_SESSION, "k", session="s"),
        KvOperation(KvVerb.UNLOCK, "k", session="s"),
        KvOperation(KvVerb.LOCK, "k", session="s"),
    )
    _, results = replay(*LOCKED, Transaction(operations))
    assert [row.lock_index for row in results[-1].results] == [1, 1, 2]


def a_deregistration_in_a_transaction_ends_sessions_too() -> None:
    state = after(*LOCKED, Transaction((NodeOperation(Verb.DELETE, N1.node),)))
    assert "s" not in state.sessions and not kv.held(state, "s")


SENTENCES = (
    a_registration_is_all_or_nothing,
    a_registration_that_changes_nothing_leaves_every_index,
    a_check_needs_its_node,
    deregistering_a_node_takes_its_instances_and_checks_with_it,
    deregistering_an_instance_takes_its_checks_with_it_and_leaves_the_nodes,
    names_of_nodes_have_no_case,
    ids_of_instances_have_no_case_and_are_shown_as_registered,
    ids_of_checks_have_no_case_and_are_shown_as_registered,
    checks_find_their_instance_without_regard_to_case,
    names_of_services_have_no_case_and_share_an_index,
    a_node_that_is_known_by_its_id_may_be_renamed,
    the_name_of_a_living_node_is_not_taken,
    a_node_without_an_id_may_be_given_one,
    a_service_is_healthy_by_the_checks_of_its_node_and_its_own,
    a_check_of_another_instance_does_not_matter,
    a_check_of_the_node_moves_the_index_of_its_services,
    a_registration_of_another_service_does_not_move_the_index,
    a_service_that_vanished_has_the_index_of_the_last_extinction,
    a_service_is_reached_through_its_proxies_and_its_native_instances,
    who_waits_for_a_way_into_the_mesh_hears_of_its_checks_and_its_node,
    a_proxy_that_leaves_or_has_another_destination_moves_the_index,
    tags_have_no_case,
    a_node_update_can_be_skipped,
    a_session_needs_its_node_and_passing_checks,
    acquiring_needs_a_session,
    a_lock_that_another_holds_is_not_acquired,
    a_new_hold_raises_the_lock_index_and_the_same_hold_does_not,
    only_the_holder_releases,
    a_set_leaves_the_lock_as_it_is,
    a_session_ends_when_its_check_turns_critical,
    a_warning_ends_no_session,
    a_session_ends_when_its_check_is_deregistered,
    a_session_ends_when_its_node_is_deregistered,
    a_session_may_ask_that_its_keys_be_deleted,
    a_lock_delay_begins_for_keys_that_were_lost_not_for_those_released,
    sessions_are_listed_by_node,
    a_transaction_is_all_or_nothing_and_tells_every_error,
    an_operation_sees_what_those_before_it_did,
    conditional_operations_compare_the_modify_index,
    locks_are_taken_and_checked_in_transactions,
    a_deregistration_in_a_transaction_ends_sessions_too,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_consul_says(sentence: Callable[[], None]) -> None:
    sentence()


# -------------------------------------------------------------------------------------------------------------- mutants


def unchanged(state: State, *_: Any) -> State:
    return state


def keeps_locks(state: State, session_id: str, index: int) -> State:
    return replace(state, sessions=state.sessions.without(session_id))


def lock_robs(state: State, key: str, value: bytes, flags: int, session: str, index: int) -> tuple[State, bool]:
    row = state.rows.get(key) or Row(key, value, flags, index, index)
    return kv.stored(state, replace(row, session=session, lock_index=row.lock_index + 1), index), True


def cased_key(node: str, identity: str) -> str:
    return f"{node.lower()}\0{identity}"


def cased(name: str) -> str:
    return name


MUTANTS: tuple[tuple[Any, str, Any, Callable[[], None]], ...] = (
    (registry, "row_key", cased_key, ids_of_instances_have_no_case_and_are_shown_as_registered),
    (registry, "row_key", cased_key, ids_of_checks_have_no_case_and_are_shown_as_registered),
    (sessions, "row_key", cased_key, ids_of_checks_have_no_case_and_are_shown_as_registered),
    (registry, "row_key", cased_key, checks_find_their_instance_without_regard_to_case),
    (queries, "row_key", cased_key, checks_find_their_instance_without_regard_to_case),
    (queries, "service_key", cased, names_of_services_have_no_case_and_share_an_index),
    (registry, "service_key", cased, names_of_services_have_no_case_and_share_an_index),
    (registry, "services_touched", unchanged, a_check_of_the_node_moves_the_index_of_its_services),
    (registry, "checks_of", lambda state, node: (), deregistering_a_node_takes_its_instances_and_checks_with_it),
    (registry, "reject_taken_name", lambda *_: None, the_name_of_a_living_node_is_not_taken),
    (registry, "by_id", lambda state, node_id: None, a_node_that_is_known_by_its_id_may_be_renamed),
    (sessions, "of_check", lambda *_: (), a_session_ends_when_its_check_turns_critical),
    (sessions, "of_check", lambda *_: (), a_session_ends_when_its_check_is_deregistered),
    (sessions, "of_node", lambda *_: (), a_session_ends_when_its_node_is_deregistered),
    (sessions, "end", keeps_locks, a_session_ends_when_its_check_turns_critical),
    (sessions, "end", keeps_locks, a_session_may_ask_that_its_keys_be_deleted),
    (kv, "lock", lock_robs, a_lock_that_another_holds_is_not_acquired),
    (kv, "held", lambda state, session: (), a_lock_delay_begins_for_keys_that_were_lost_not_for_those_released),
    (transactions, "require", lambda condition, otherwise: None, conditional_operations_compare_the_modify_index),
    (registry, "left_mesh", unchanged, a_proxy_that_leaves_or_has_another_destination_moves_the_index),
    (
        registry,
        "of_instance",
        lambda service: (registry.of_service(service.service),),
        who_waits_for_a_way_into_the_mesh_hears_of_its_checks_and_its_node,
    ),
    (
        queries,
        "is_asked_for",
        lambda service, request: service.service.lower() == request.service.lower(),
        a_service_is_reached_through_its_proxies_and_its_native_instances,
    ),
    (queries, "has_tags", lambda service, wanted: True, tags_have_no_case),
    (
        queries,
        "service_index",
        lambda state, *_: state.index("services"),
        a_registration_of_another_service_does_not_move_the_index,
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[3].__name__}")
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Any, Callable[[], None]]
) -> None:
    module, name, broken, sentence = mutant
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(AssertionError):
        sentence()


# ----------------------------------------------------------------------------------------------------------- properties


def check_properties(commands: list[Command]) -> None:
    state = initial_state()
    for index, command in enumerate([Noop(), *commands], 1):  # a leader's first entry is its own
        before, (state, result) = state, transitions.apply(state, command, index)
        assert invariants.indexes_are_ordered(state, index)
        assert invariants.references_exist(state)
        assert invariants.only_sessions_hold_locks(state)
        if isinstance(result, Failed) or (isinstance(result, Outcome) and result.errors):
            assert state == before
        if isinstance(command, RestoreCommit) and result is True:
            continue  # two states that have nothing to do with each other
        assert properties.holds_are_numbered(before, state)
        assert properties.nobody_is_robbed(before, command, index)
        for request in QUERIES:
            if isinstance(request, LISTS_OF_KEYS):
                continue
            assert properties.change_is_announced(before, state, request), request


@settings(max_examples=400, deadline=None, derandomize=True)
@given(LOGS)
def test_the_properties_hold_in_every_log(commands: list[Command]) -> None:
    check_properties(commands)


@pytest.mark.parametrize("seed", range(12))
def test_the_properties_hold_in_logs_in_which_locks_are_held(seed: int) -> None:
    """Of the acquisitions that Hypothesis draws, one in a hundred meets a session that lives."""
    check_properties(list(random_log(seed, 80))[1:])


def test_a_transaction_may_hand_a_lock_over() -> None:
    handed = Transaction(
        (KvOperation(KvVerb.UNLOCK, "k", session="s"), KvOperation(KvVerb.LOCK, "k", session="t")),
    )
    check_properties([*LOCKED, CreateSession(replace(SESSION, id="t")), handed])


BROKEN: tuple[tuple[Any, str, Any, str, tuple[Command, ...]], ...] = (
    (sessions, "of_check", lambda *_: (), "references_exist", (*LOCKED, Deregister("n1", check_id="alive"))),
    (sessions, "end", keeps_locks, "only_sessions_hold_locks", (*LOCKED, DestroySession("s"))),
    (registry, "announced", unchanged, "indexes_are_ordered", (REGISTERED,)),
    (registry, "left_mesh", unchanged, "change_is_announced", (PROXY, NATIVE, ELSEWHERE)),
    (registry, "health_touched", unchanged, "change_is_announced", (REGISTERED, Deregister("n1", check_id="alive"))),
    (
        kv,
        "lock",
        lock_robs,
        "nobody_is_robbed",
        (*LOCKED, CreateSession(replace(SESSION, id="t")), Lock("k", b"", 0, "t")),
    ),
    (
        kv,
        "lock",
        lock_robs,
        "nobody_is_robbed",
        (
            *LOCKED,
            CreateSession(replace(SESSION, id="t")),
            Transaction((KvOperation(KvVerb.LOCK, "k", session="t"),)),
        ),
    ),
    (
        kv,
        "set_row",
        lambda state, key, value, flags, index: kv.stored(
            state, Row(key, value, flags, index, index, session="nobody"), index
        ),
        "only_sessions_hold_locks",
        (Set("k", b"1"),),
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken[1]}-{broken[3]}")
def test_a_mutant_breaks_a_property(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[Any, str, Any, str, tuple[Command, ...]]
) -> None:
    module, name, mutant, broken_property, log = broken
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises(AssertionError, match=broken_property):
        check_properties(list(log))
