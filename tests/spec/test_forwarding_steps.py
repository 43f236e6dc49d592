"""Forwarding, step by step, in the words of Consul's documentation."""

from __future__ import annotations

import pytest

from spec.forwarding import (
    Agent,
    Answer,
    Answered,
    Appended,
    Call,
    Calling,
    Confirmed,
    Confirming,
    Dialling,
    Held,
    Mode,
    Outcome,
    Reply,
    Request,
    Task,
    accept,
    answer_read,
    append,
    apply_entry,
    begin_read,
    confirm_read,
    connection_lost,
    crash_restart,
    dial,
    dial_failed,
    handle_call,
    handle_reply,
    hold_timeout,
    leadership_lost,
    lease_read,
    refuse_forwarded,
    send_call,
    stale_read,
)

WRITE, READ = Request("w", True), Request("r", False)
STALE, CONSISTENT = Request("r", False, Mode.STALE), Request("r", False, Mode.CONSISTENT)
BY_SERVER = Call("b", "a", 1, 1, WRITE, True, ("b",))
BY_CLIENT_AGENT = Call("c", "a", 1, 1, WRITE, False, ("c",))


def holding(request: Request, leader: str | None, source: Call | None = None, *, server: bool = True) -> Agent:
    return Agent(server, leader, (Task(request, source, Held()),))


def calling(request: Request) -> Agent:
    call = Call("a", "b", 3, 1, request, True, ("a",))
    return Agent(True, "b", (Task(request, None, Calling(call)),), 1)


def taken(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return outcome


def test_a_request_is_held_while_no_leader_is_known() -> None:
    agent = holding(WRITE, None)
    assert append("a", agent, agent.tasks[0], 1) is None
    reading = holding(READ, None)
    assert begin_read("a", reading, reading.tasks[0], 0) is None
    assert lease_read("a", reading, reading.tasks[0], 0) is None
    assert all(dial("a", agent, agent.tasks[0], to) is None for to in ("a", "b"))


def test_a_request_that_is_held_until_the_timeout_is_refused() -> None:
    agent = holding(WRITE, None)
    assert hold_timeout(agent, agent.tasks[0]).answers == (Answered(WRITE, Answer.REFUSED),)


def test_a_follower_that_knows_the_leader_forwards() -> None:
    agent = holding(WRITE, "b")
    dialling = taken(dial("a", agent, agent.tasks[0], "b")).agent
    sent = taken(send_call("a", dialling, dialling.tasks[0], 1))
    assert sent.calls == (Call("a", "b", 1, 1, WRITE, True, ("a",)),)


def test_a_client_agent_forwards_to_any_server_and_a_server_forwards_for_it() -> None:
    client = holding(WRITE, None, server=False)
    assert all(dial("c", client, client.tasks[0], to) is not None for to in ("a", "b"))
    server = taken(handle_call(Agent(True, "b"), BY_CLIENT_AGENT)).agent
    assert dial("a", server, server.tasks[0], "b") is not None
    assert refuse_forwarded("a", server, server.tasks[0]) is None


def test_a_client_agent_takes_no_calls() -> None:
    assert handle_call(Agent(False), BY_CLIENT_AGENT) is None


def test_a_forwarded_request_is_not_forwarded_again_but_refused() -> None:
    agent = taken(handle_call(Agent(True, "c"), BY_SERVER)).agent
    assert dial("a", agent, agent.tasks[0], "c") is None
    assert taken(refuse_forwarded("a", agent, agent.tasks[0])).replies == (Reply(BY_SERVER, Answer.REFUSED),)


def test_no_cluster_leader_is_always_safe_to_retry() -> None:
    for request in (READ, WRITE):
        agent = calling(request)
        phase = agent.tasks[0].phase
        assert isinstance(phase, Calling)
        after = taken(handle_reply(agent, Reply(phase.call, Answer.REFUSED))).agent
        assert after.tasks[0].phase == Held()


@pytest.mark.parametrize(("request_", "answers"), [(READ, ()), (WRITE, (Answered(WRITE, Answer.UNKNOWN),))])
def test_a_lost_connection_is_retried_for_reads_only(request_: Request, answers: tuple[Answered, ...]) -> None:
    outcome = connection_lost(calling(request_), "b", 3)
    assert outcome.answers == answers
    assert [task.phase for task in outcome.agent.tasks] == ([] if answers else [Held()])


def test_a_connection_of_another_epoch_may_be_lost_without_harm() -> None:
    assert connection_lost(calling(WRITE), "b", 2) == Outcome(calling(WRITE))


def test_a_write_that_was_definitely_not_sent_is_retried() -> None:
    agent = Agent(True, "b", (Task(WRITE, None, Dialling("b")),))
    assert taken(dial_failed(agent, agent.tasks[0])).agent.tasks[0].phase == Held()


def test_a_write_is_acknowledged_when_it_is_applied_and_not_before() -> None:
    appended = taken(append("a", holding(WRITE, "a"), holding(WRITE, "a").tasks[0], 7))
    assert (appended.answers, appended.appended) == ((), (WRITE,))
    assert apply_entry(appended.agent, 6).answers == ()
    assert apply_entry(appended.agent, 7).answers == (Answered(WRITE, Answer.ACKNOWLEDGED),)


def test_a_stale_read_is_answered_by_any_server_from_what_it_has_applied() -> None:
    agent = holding(STALE, None)
    after = apply_entry(agent, 3).agent
    assert taken(stale_read(agent, agent.tasks[0])).answers == (Answered(STALE, Answer.ACKNOWLEDGED),)
    assert taken(stale_read(after, after.tasks[0])).answers == (Answered(STALE, Answer.ACKNOWLEDGED, (3,)),)


@pytest.mark.parametrize("asked", [READ, CONSISTENT, WRITE])
def test_nothing_else_is_answered_as_if_it_were_stale(asked: Request) -> None:
    agent = holding(asked, "a")
    assert stale_read(agent, agent.tasks[0]) is None


def test_a_consistent_read_waits_for_its_confirmation_and_for_its_index() -> None:
    agent = holding(CONSISTENT, "a")
    assert lease_read("a", agent, agent.tasks[0], 0) is None
    begun = taken(begin_read("a", agent, agent.tasks[0], 1)).agent
    assert begun.tasks[0].phase == Confirming(1) and answer_read(begun, begun.tasks[0]) is None
    confirmed = taken(confirm_read(begun, begun.tasks[0])).agent
    assert answer_read(confirmed, confirmed.tasks[0]) is None
    applied = apply_entry(confirmed, 1).agent
    assert taken(answer_read(applied, applied.tasks[0])).answers == (Answered(CONSISTENT, Answer.ACKNOWLEDGED, (1,)),)


def test_a_default_read_needs_no_confirmation_from_who_holds_the_lease() -> None:
    agent = holding(READ, "a")
    held = taken(lease_read("a", agent, agent.tasks[0], 0)).agent
    assert taken(answer_read(held, held.tasks[0])).answers == (Answered(READ, Answer.ACKNOWLEDGED),)


def test_a_read_that_is_not_confirmed_when_leadership_is_lost_is_held_again() -> None:
    agent = Agent(True, "b", (Task(READ, None, Confirming(2)),))
    assert taken(leadership_lost(agent, agent.tasks[0])).agent.tasks[0].phase == Held()


def test_a_confirmed_read_outlives_leadership() -> None:
    agent = Agent(True, None, (Task(READ, None, Confirmed(0)),))
    assert leadership_lost(agent, agent.tasks[0]) is None
    assert taken(answer_read(agent, agent.tasks[0])).answers == (Answered(READ, Answer.ACKNOWLEDGED),)


@pytest.mark.parametrize("phase", [Appended(1), calling(WRITE).tasks[0].phase])
def test_what_may_still_be_applied_is_unknown_at_the_timeout(phase: Appended | Calling) -> None:
    agent = Agent(True, "a", (Task(WRITE, None, phase),))
    assert hold_timeout(agent, agent.tasks[0]).answers == (Answered(WRITE, Answer.UNKNOWN),)


def test_leadership_lost_while_committing_is_unknown() -> None:
    agent = Agent(True, "b", (Task(WRITE, BY_SERVER, Appended(1)),))
    assert taken(leadership_lost(agent, agent.tasks[0])).replies == (Reply(BY_SERVER, Answer.UNKNOWN),)


def test_a_late_reply_is_dropped() -> None:
    assert handle_reply(Agent(True), Reply(BY_SERVER, Answer.ACKNOWLEDGED)) is None


def test_a_crash_leaves_the_requests_of_this_agents_clients_unknown() -> None:
    agent = taken(handle_call(accept(Agent(True, "a"), READ).agent, BY_SERVER)).agent
    outcome = crash_restart(agent)
    assert (outcome.agent, outcome.answers, outcome.replies) == (Agent(True), (Answered(READ, Answer.UNKNOWN),), ())
