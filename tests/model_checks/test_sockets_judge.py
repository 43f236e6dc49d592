"""The socket machine and its judge, over a cluster in memory: what Consul's documentation allows is accepted, unknown
outcomes and what agents write of themselves included; every history that was tampered with is found out.
"""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from impl.catalog.commands import KvSet, Noop
from impl.catalog.commands import Register as RegisterCommand
from impl.catalog.rows import CRITICAL, Check
from model_checks.catalog.http_requests import HttpRequest, Mode, Read, Write
from model_checks.stateful.sockets import conversation as conversations
from model_checks.stateful.sockets import history
from model_checks.stateful.sockets.conversation import Conversation
from model_checks.stateful.sockets.history import (
    BadHistory,
    Baseline,
    CaughtUp,
    Event,
    Exchange,
    Lagging,
    WatchBegan,
    WatchEnded,
    WatchOverdue,
)
from model_checks.stateful.sockets.judge import Judge
from model_checks.stateful.sockets.properties import Difference, Property
from model_checks.stateful.sockets.run import LEAST, check_sockets, judge_again, summary, too_little, too_unsure
from model_checks.verdicts import CheckResult, Verdict
from spec.catalog.commands import (
    CheckAndSet,
    ChecksInState,
    CreateSession,
    Delete,
    DestroySession,
    Get,
    List,
    ListNodes,
    Lock,
    Register,
    Set,
)
from spec.catalog.state import Node, Session
from tests.model_checks.memory_agents import SERVERS, Fate, MemoryAgents
from tests.mutants import agent, catalog

DELAY_NS = 80_000_000


@pytest.fixture(autouse=True)
def nobody_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory nothing happens by itself: what did not come at once never comes."""
    monkeypatch.setattr(conversations, "STILL_S", 0.0)
    monkeypatch.setattr(conversations, "OVERDUE_S", 0.2)
    monkeypatch.setattr(conversations, "PATIENCE_S", 0.1)


def run(agents: MemoryAgents, seed: int, runs: int, **options: Any) -> tuple[CheckResult, list[Event]]:
    events: list[Event] = []
    return check_sockets(agents, seed=seed, runs=runs, steps=50, write=events.append, **options), events


def talk(agents: MemoryAgents) -> tuple[Conversation, list[Event]]:
    """A conversation that has begun."""
    events: list[Event] = []
    conversation = Conversation(agents, 0, events.append)
    conversation.open()
    conversation.begin_run()
    return conversation, events


def judged(events: list[Event]) -> Judge:
    judge = Judge()
    for event in events:
        judge.take(event)
    return judge


# ----------------------------------------------------------------------------------------------- what must be accepted


def test_every_answer_is_as_the_spec_says_and_the_stored_history_says_the_same(tmp_path: Path) -> None:
    result, events = run(MemoryAgents(3), 3, 25)
    assert (result.verdict, result.reason) == (Verdict.VALID, "")
    path = tmp_path / "history.ndjson"
    path.write_bytes(b"".join(map(history.line, events)))
    again = judge_again(path)
    assert (again.verdict, again.figures) == (Verdict.VALID, result.figures)
    assert result.figures["runs"] >= 25 and f"{result.figures['runs']} runs" in summary(result)


OF_ONE_STORE = set(catalog.MUTANTS) - {
    "stale-read-goes-back",
    "stale-default-read",
    "lock-delay-ignored",
    "watch-misses-a-change-of-a-service",
}
"""Mistakes that show without what agents have around a store: a cluster in memory has its own."""


@pytest.mark.parametrize("mutant", sorted(OF_ONE_STORE))
def test_a_mistake_in_the_catalog_or_in_its_documents_is_a_difference(
    mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catalog, agent):
        monkeypatch.setattr(module, "replace", partial(replaced_for_now, monkeypatch))
    catalog.MUTANTS[mutant]()
    result, _ = run(MemoryAgents(3), 3, 300, least={})
    assert result.verdict is Verdict.INVALID


def replaced_for_now(monkeypatch: pytest.MonkeyPatch, target: str, make: Callable[[Any], Any]) -> None:
    """As `tests.mutants.replacement.replace`, until the end of the test."""
    original = pkgutil.resolve_name(target)
    monkeypatch.setattr(target.replace(":", "."), make(original))


def test_a_write_without_an_answer_may_have_happened_or_not_or_happen_later() -> None:
    unknown, states = 0, 0
    for seed in range(1, 7):
        agents, random = MemoryAgents(seed), Random(seed)
        agents.drop = partial(lose_some, random)
        result, _ = run(agents, seed, 5, least={})
        assert result.verdict is Verdict.VALID, (result.property, result.reason, result.details)
        unknown += result.figures.get("of unknown outcome", 0)
        states = max(states, result.figures["most possible states"])
    assert unknown > 5
    assert states > 1


def lose_some(random: Random, request: HttpRequest) -> Fate:
    """One write in fifty is lost on its way there or back, or comes late."""
    if request.method == "GET" or "session/create" in request.target or random.random() > 0.02:
        return Fate()
    return random.choice((Fate(answered=False), Fate(carried_out=False), Fate(answered=False, late=True)))


def test_two_possible_states_become_one_when_an_answer_tells_them_apart() -> None:
    agents = MemoryAgents()
    conversation, _ = talk(agents)
    agents.drop = lambda request: Fate(answered=False)
    conversation.ask("s1", Write(Set("a", b"1")))
    agents.drop = lambda request: Fate()
    agents.append(Noop())
    conversation.ask("s1", Write(Set("b", b"1")))
    conversation.ask("s1", Read(Get("a"), Mode.CONSISTENT))
    conversation.ask("s1", Read(List(""), Mode.CONSISTENT))
    assert conversation.judge.counts["most possible states"] > 1
    assert len(conversation.judge.worlds) == 1


def test_a_session_of_unknown_id_makes_the_rest_undecidable() -> None:
    agents = MemoryAgents(1)
    agents.drop = lambda request: Fate(answered="session/create" not in request.target)
    result, _ = run(agents, 1, 3, least={})
    assert (result.verdict, "whose id nobody knows" in result.reason) == (Verdict.UNKNOWN, True)


def test_what_agents_write_of_themselves_is_learned() -> None:
    agents = MemoryAgents()
    conversation, _ = talk(agents)
    node = agents.at["s1"].store.tables.nodes["s2"]
    agents.append(Noop())  # a new leader's
    agents.append(RegisterCommand(node, None, (Check("s2", "serfHealth", "Serf Health Status", CRITICAL),), True))
    conversation.ask("s1", Write(Set("a", b"1")))
    conversation.ask("s1", Read(ListNodes(), Mode.CONSISTENT))
    conversation.ask("s1", Read(ChecksInState("critical"), Mode.CONSISTENT))
    conversation.ask("s1", Read(Get("a"), Mode.CONSISTENT))
    assert conversation.judge.counts["entries that nobody asked for"] == 2
    assert len(conversation.judge.worlds) == 1


def test_a_change_of_a_client_s_rows_that_no_client_asked_for_is_a_difference() -> None:
    agents = MemoryAgents()
    conversation, _ = talk(agents)
    agents.append(KvSet("a", b"nobody's", 0))
    with pytest.raises(Difference) as found:
        conversation.ask("s1", Read(Get("a"), Mode.CONSISTENT))
    assert found.value.broken is Property.CURRENT


def test_a_stale_read_may_be_old_and_never_older_than_before() -> None:
    agents = MemoryAgents()
    conversation, events = talk(agents)
    for value in (b"1", b"2", b"3"):
        conversation.ask("s1", Write(Set("a", value)))
    conversation.ask("s1", Read(Get("a"), Mode.STALE))  # the leader's own: the newest state
    old = replace(events[-1], number=99)
    assert isinstance(old, Exchange) and old.answer is not None
    first = old.answer.body.replace('"Mw=="', '"MQ=="')
    created = conversation.judge.accounted - 2
    first = first.replace(f'"ModifyIndex":{created + 2}', f'"ModifyIndex":{created}')
    headers = {**old.answer.headers, "x-consul-index": str(created)}
    older = replace(old, agent="s2", answer=replace(old.answer, body=first, headers=headers))
    judged([*events, older])
    with pytest.raises(Difference) as found:
        judged([*events, older, replace(old, agent="s2"), older])
    assert found.value.broken is Property.STALE


# ---------------------------------------------------------------------------------------------------------- lock-delay


def lose_a_lock(conversation: Conversation) -> str:
    """A session that held a key with a lock-delay is destroyed; another session, which may try."""
    for delay in (DELAY_NS, 0):
        conversation.ask("s1", Write(CreateSession(Session("", "s1", str(delay), delay))))
    one, other = (session for _, session in conversation.judge.state.sessions.items())
    lost, left = (one, other) if one.lock_delay_ns else (other, one)
    conversation.ask("s1", Write(Lock("a", b"held", 0, lost.id)))
    conversation.ask("s1", Write(DestroySession(lost.id)))
    return left.id


def test_a_lock_is_not_given_while_its_lock_delay_lasts_and_is_after_that() -> None:
    conversation, _ = talk(MemoryAgents())
    session = lose_a_lock(conversation)
    conversation.ask("s2", Write(Lock("a", b"mine", 0, session)))
    assert conversation.judge.counts["refused by a lock-delay"] == 1
    over = time.monotonic_ns() + 2 * DELAY_NS
    while time.monotonic_ns() < over:
        pass
    conversation.ask("s2", Write(Lock("a", b"mine", 0, session)))
    row = conversation.judge.state.rows.get("a")
    assert row is not None and row.session == session


def test_a_lock_that_is_given_too_early_is_found_out() -> None:
    agents = MemoryAgents()
    conversation, _ = talk(agents)
    session = lose_a_lock(conversation)
    agents.at["s1"].delays.sweep(time.monotonic_ns() + 10 * DELAY_NS)
    with pytest.raises(Difference) as found:
        conversation.ask("s2", Write(Lock("a", b"mine", 0, session)))
    assert found.value.broken is Property.DELAY


def test_a_lock_that_is_refused_without_a_reason_is_found_out() -> None:
    agents = MemoryAgents()
    conversation, _ = talk(agents)
    session = lose_a_lock(conversation)
    agents.at["s1"].delays.begin("b", 10 * DELAY_NS, time.monotonic_ns())
    with pytest.raises(Difference) as found:
        conversation.ask("s2", Write(Lock("b", b"mine", 0, session)))
    assert found.value.broken is Property.LOGGED


# -------------------------------------------------------------------------------------------------- tampered histories


@pytest.fixture(scope="module")
def good() -> list[Event]:
    """A history in which all that is tampered with below happens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversations, "STILL_S", 0.0)
        agents = MemoryAgents()
        conversation, events = talk(agents)
        conversation.ask("s1", Write(Register(Node("n1", "10.0.0.9", datacenter="dc1"))))
        conversation.ask("s1", Write(Set("a/b", b"1")))
        conversation.ask("c1", Write(CheckAndSet("a/b", b"2", 0, 1)))
        conversation.watch("s1", Read(List("a/"), Mode.CONSISTENT, conversation.judge.accounted, 60_000))
        conversation.ask("s2", Write(Delete("a/b")))
        conversation.ask("s3", Write(Set("a/c", b"1")))
        conversation.ask("s2", Read(List("a/"), Mode.CONSISTENT))
        conversation.ask("s1", Read(List("a/"), Mode.STALE))
        conversation.ask("s1", Write(Lock("a/c", b"", 0, "none")))
        conversation.end_run()
    return events


def body(event: Event, old: str, new: str) -> Event:
    assert isinstance(event, Exchange | WatchEnded) and event.answer is not None and old in event.answer.body, event
    return replace(event, answer=replace(event.answer, body=event.answer.body.replace(old, new)))


def header(event: Event, name: str, value: str) -> Event:
    assert isinstance(event, Exchange | WatchEnded) and event.answer is not None
    return replace(event, answer=replace(event.answer, headers={**event.answer.headers, name: value}))


def applied_less(event: Event) -> Event:
    assert isinstance(event, Exchange | WatchEnded)
    return replace(event, applied=event.applied - 1)


def not_found(event: Event) -> Event:
    assert isinstance(event, Exchange | WatchEnded) and event.answer is not None
    return replace(event, answer=replace(event.answer, status=404, body=""))


def asked(event: Event, method: str, mode: str = "") -> bool:
    return isinstance(event, Exchange) and event.request.startswith(method) and mode in event.request


def is_cas(event: Event) -> bool:
    return asked(event, "PUT", "cas=")


def is_list(event: Event) -> bool:
    return asked(event, "GET", "consistent")


def is_stale(event: Event) -> bool:
    return asked(event, "GET", "stale")


def is_set(event: Event) -> bool:
    return asked(event, "PUT", "a/c?flags=0")


def is_lock(event: Event) -> bool:
    return asked(event, "PUT", "acquire")


def is_watched(event: Event) -> bool:
    return isinstance(event, WatchEnded)


Tamper = Callable[[Event], list[Event]]
TAMPERS: dict[str, tuple[Callable[[Event], bool], Tamper, Property]] = {
    "a check-and-set that failed is said to have succeeded": (
        is_cas, lambda event: [body(event, "false", "true")], Property.RESULT),
    "a refusal has another text": (
        is_lock, lambda event: [body(event, "invalid session", "no session")], Property.RESULT),
    "a write is acknowledged that is not in the log": (
        is_set, lambda event: [applied_less(event)], Property.LOGGED),
    "a value is another": (
        is_list, lambda event: [body(event, "MQ==", "Mg==")], Property.CURRENT),
    "an index is older": (
        is_list, lambda event: [header(event, "x-consul-index", "7")], Property.INDEX),
    "a ModifyIndex is older": (
        is_list, lambda event: [body(event, '"ModifyIndex":', '"ModifyIndex":1')], Property.CURRENT),
    "a field is not documented": (
        is_list, lambda event: [body(event, '"Flags":', '"Extra":1,"Flags":')], Property.FORM),
    "a field is missing": (
        is_list, lambda event: [body(event, '"Flags":0,', "")], Property.FORM),
    "an answer has no index": (
        is_list, lambda event: [header(event, "x-consul-index", "0")], Property.FORM),
    "a read is answered in another mode": (
        is_list, lambda event: [header(event, "x-consul-effective-consistency", "stale")], Property.FRESHNESS),
    "a leader has not heard from itself": (
        is_list, lambda event: [header(event, "x-consul-lastcontact", "17")], Property.FRESHNESS),
    "nothing is found": (
        is_stale, lambda event: [not_found(event)], Property.STALE),
    "the leader's log goes back": (
        is_stale, lambda event: [applied_less(event)], Property.FORWARD),
    "a blocking query returns something else": (
        is_watched, lambda event: [header(event, "x-consul-index", "12345")], Property.WAITED),
    "a blocking query does not return": (
        is_watched,
        lambda event: [WatchOverdue(event.number, 15_000)],  # type: ignore[union-attr]
        Property.WOKEN,
    ),
    "nothing is said of a blocking query": (is_watched, lambda event: [], Property.WOKEN),
    "a follower does not catch up": (
        lambda event: isinstance(event, CaughtUp),
        lambda event: [Lagging("s2", 3, 9, 15_000)],
        Property.FOLLOWS,
    ),
}  # fmt: skip


def test_the_history_is_good_until_it_is_tampered_with(good: list[Event]) -> None:
    assert judged(good).counts["blocking, woken"] == 1


@pytest.mark.parametrize("name", TAMPERS)
def test_a_history_that_was_tampered_with_is_found_out(good: list[Event], name: str) -> None:
    chosen, tamper, broken = TAMPERS[name]
    events = [each for event in good for each in (tamper(event) if chosen(event) else [event])]
    assert events != good
    with pytest.raises(Difference) as found:
        judged(events)
    assert found.value.broken is broken, found.value.why


def test_a_write_that_vanished_from_a_history_is_found_out(good: list[Event]) -> None:
    with pytest.raises(Difference) as found:
        judged([event for event in good if not is_set(event)])
    assert found.value.broken in (Property.CURRENT, Property.RESULT)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lines: [*lines[:3], lines[3][:20]], "line 4"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":9'), *lines[1:]], "the format is 9"),
        (lambda lines: [line.replace(b'"asked":["read"', b'"asked":["peek"') for line in lines], "is not a request"),
    ],
)
def test_what_is_no_history_is_refused_with_its_place(
    good: list[Event], tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]], says: str
) -> None:
    path = tmp_path / "history.ndjson"
    path.write_bytes(b"".join(spoil([history.line(event) for event in good])))
    with pytest.raises(BadHistory, match=says):
        judge_again(path)


def test_servers_that_are_said_to_have_caught_up_and_have_not_are_no_history(good: list[Event]) -> None:
    events = [CaughtUp(dict.fromkeys(SERVERS, 1)) if isinstance(event, CaughtUp) else event for event in good]
    with pytest.raises(BadHistory, match="said to have caught up"):
        judged(events)


def test_a_cluster_that_is_not_new_is_refused() -> None:
    agents = MemoryAgents()
    agents.append(KvSet("old", b"", 0))
    with pytest.raises(BadHistory, match="not new"):
        talk(agents)


# -------------------------------------------------------------------------------------------------- blocking queries


def test_a_blocking_query_that_returns_early_is_allowed_and_counted(good: list[Event]) -> None:
    began = next(event for event in good if isinstance(event, WatchBegan))
    ended = next(event for event in good if isinstance(event, WatchEnded))
    answer = next(event.answer for event in good if isinstance(event, Exchange) and is_list(event))
    assert answer is not None
    before = good[: good.index(began)]
    position = next(event.applied for event in reversed(before) if isinstance(event, Exchange))
    unchanged = replace(answer, body=answer.body.replace("a/c", "a/b"))
    created = next(event.applied for event in before if asked(event, "PUT", "a/b?flags=0"))  # type: ignore[union-attr]
    document = msgspec.json.decode(unchanged.body)
    document[0] |= {"CreateIndex": created, "ModifyIndex": created}
    headers = {**answer.headers, "x-consul-index": str(created)}
    early = replace(
        ended,
        applied=position,
        received_ns=began.sent_ns + 1000,
        answer=replace(answer, body=msgspec.json.encode(document).decode(), headers=headers),
    )
    assert judged([*before, began, early]).counts["blocking, spurious"] == 1


@pytest.mark.parametrize(("mode", "due"), [(Mode.DEFAULT, True), (Mode.CONSISTENT, True), (Mode.STALE, False)])
def test_a_stale_read_of_a_missing_key_may_wait_at_a_server_that_is_behind(mode: Mode, due: bool) -> None:
    """The index of what is not there is the table's: such a server meets an older one, and waits for the key alone."""
    conversation, events = talk(MemoryAgents())
    conversation.ask("s1", Write(Set("b", b"1")))
    read = Read(Get("a"), mode, conversation.judge.accounted - 1, 60_000)
    began = WatchBegan(99, "s2", history.described(read), history.shown(read), time.monotonic_ns())
    assert judged([*events, began]).due(99) is due


# ----------------------------------------------------------------------------------------------------------- verdicts


def test_a_check_that_tried_too_little_is_unknown() -> None:
    result, _ = run(MemoryAgents(1), 1, 1)
    assert (result.verdict, result.reason.startswith("tried too little")) == (Verdict.UNKNOWN, True)


def test_each_figure_that_must_be_reached_is_one_that_is_counted() -> None:
    counts = judged([]).counts
    counts.update(LEAST)
    assert too_little(counts, LEAST) == ""
    for name in LEAST:
        less = counts.copy()
        less[name] -= 1
        assert name in too_little(less, LEAST)


@pytest.mark.parametrize(
    "name", ["of unknown outcome", "not served", "reads without an answer", "entries that nobody asked for"]
)
def test_a_history_of_which_much_is_not_known_is_unknown(name: str) -> None:
    counts = judged([]).counts
    counts.update({"requests": 100, name: 5})
    assert too_unsure(counts) == ""
    counts[name] += 1
    assert name in too_unsure(counts)


def test_the_baseline_is_the_first_line(good: list[Event]) -> None:
    assert isinstance(good[0], Baseline)
