"""Forwarding, step by step, in the words of Consul's documentation."""

from __future__ import annotations

import pytest

from spec.forwarding import (
    Agent,
    Answer,
    Appended,
    Call,
    Calling,
    Dialling,
    Held,
    Outcome,
    Reply,
    Request,
    Task,
    accept,
    append,
    committed,
    connection_lost,
    crash_restart,
    dial,
    dial_failed,
    handle_call,
    handle_reply,
    hold_timeout,
    leadership_lost,
    read,
    refuse_forwarded,
    send_call,
)

WRITE, READ = Request("w", True), Request("r", False)
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
    assert read("a", agent, agent.tasks[0]) is None
    assert all(dial("a", agent, agent.tasks[0], to) is None for to in ("a", "b"))


def test_a_request_that_is_held_until_the_timeout_is_refused() -> None:
    agent = holding(WRITE, None)
    assert hold_timeout(agent, agent.tasks[0]).answers == ((WRITE, Answer.REFUSED),)


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


@pytest.mark.parametrize(("request_", "answers"), [(READ, ()), (WRITE, ((WRITE, Answer.UNKNOWN),))])
def test_a_lost_connection_is_retried_for_reads_only(
    request_: Request, answers: tuple[tuple[Request, Answer], ...]
) -> None:
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
    assert committed(appended.agent, 6) is None
    assert taken(committed(appended.agent, 7)).answers == ((WRITE, Answer.ACKNOWLEDGED),)


@pytest.mark.parametrize("phase", [Appended(1), calling(WRITE).tasks[0].phase])
def test_what_may_still_be_applied_is_unknown_at_the_timeout(phase: Appended | Calling) -> None:
    agent = Agent(True, "a", (Task(WRITE, None, phase),))
    assert hold_timeout(agent, agent.tasks[0]).answers == ((WRITE, Answer.UNKNOWN),)


def test_leadership_lost_while_committing_is_unknown() -> None:
    agent = Agent(True, "b", (Task(WRITE, BY_SERVER, Appended(1)),))
    assert taken(leadership_lost(agent, agent.tasks[0])).replies == (Reply(BY_SERVER, Answer.UNKNOWN),)


def test_a_late_reply_is_dropped() -> None:
    assert handle_reply(Agent(True), Reply(BY_SERVER, Answer.ACKNOWLEDGED)) is None


def test_a_crash_leaves_the_requests_of_this_agents_clients_unknown() -> None:
    agent = taken(handle_call(accept(Agent(True, "a"), READ).agent, BY_SERVER)).agent
    outcome = crash_restart(agent)
    assert (outcome.agent, outcome.answers, outcome.replies) == (Agent(True), ((READ, Answer.UNKNOWN),), ())
