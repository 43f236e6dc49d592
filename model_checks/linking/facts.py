"""Points 3 to 5 of the link: claims, facts, reads and writes of a step, once its steps of the model are taken.

Must not: take a step of the model.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, assert_never

from model_checks.linking.claims import claims, is_leader, message_claims
from model_checks.linking.concrete import Numbered, Rejected
from model_checks.linking.evaluation import Evaluation
from spec.raft.types import (
    Applied,
    Committed,
    Elected,
    Fact,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
    Restored,
)

EMITTING: Final = frozenset(
    {"become_leader", "advance_commit", "apply_own", "apply_told", "begin_read", "confirm_read", "lease_read"}
)
"""Steps of the model that make a fact of the readable spec true. (A snapshot that reaches the disk applies what it
covers; the readable spec says so when it restores it.)"""

CAUSELESS: Final = frozenset({"timeout", "client_request", "change_configuration", "take_snapshot", "compact"})
"""Actions that issue writes which no message caused."""


def check_after(evaluation: Evaluation) -> None:
    """Raises Rejected."""
    step, i = evaluation.step, evaluation.i
    for claim in claims(i, step.after):
        if not evaluation.has(claim):
            raise Rejected(f"the next state implies {claim}, which nothing established")
    for message in step.outcome.sent:
        if message.source != i:
            raise Rejected(f"a message of {message.source} is sent by {i}")
        for claim in message_claims(message):
            if not evaluation.has(claim):
                raise Rejected(f"{type(message).__name__} implies {claim}, which nothing established")
    check_facts(evaluation)
    check_reads(evaluation)
    check_writes(evaluation)
    check_bounds(evaluation)
    check_rounds(evaluation)
    check_assumptions(evaluation)


def check_facts(evaluation: Evaluation) -> None:
    """Each fact is the model's, and each election, commit, application and confirmation of the model is a fact."""
    expected: Counter[str] = Counter()
    for fact in evaluation.step.outcome.facts:
        action = counterpart(evaluation, fact)
        if action:
            expected[action] += 1
    found = Counter(do.action for do in evaluation.done if do.action in EMITTING)
    if found != expected:
        raise Rejected(f"the facts say {dict(expected)}, the model did {dict(found)}")


def counterpart(evaluation: Evaluation, fact: Fact) -> str:
    """The model's action that a fact stands for, empty if none. Raises Rejected if the model disagrees."""
    i, s, after = evaluation.i, evaluation.step.before, evaluation.step.after
    state = evaluation.state
    match fact:
        case Elected(term=t, server=server, log=log):
            agreed = server == i and t == after.current_term and log is after.log and state.won(i, t) is True
            action = "become_leader"
        case Committed(term=t, index=index, log=log):
            agreed = (
                t == after.current_term and log.is_prefix_of(after.log) and log.length == index == after.commit_index
            )
            action = "advance_commit"
        case Applied(server=server, index=index, entry=entry):
            held = 0 < index <= s.durable.log.length and s.durable.log.entry(index) == entry
            agreed = held and server == i and index == after.last_applied
            agreed = agreed and state.applied(i, index, state.log_value(i, index)) is True
            action = "apply_own" if is_leader(s) else "apply_told"
        case Restored(server=server, index=index, log=log):
            covered = log.length == index == s.durable.snapshot and log.is_prefix_of(s.durable.log)
            agreed = covered and server == i and index == after.last_applied > s.last_applied
            action = ""
        case ReadStarted() | ReadConfirmed() | ReadAnswered():
            return read_counterpart(evaluation, fact)
        case _:
            assert_never(fact)
    if not agreed:
        raise Rejected(f"the model does not make this fact true: {fact}")
    return action


def read_counterpart(evaluation: Evaluation, fact: ReadStarted | ReadConfirmed | ReadAnswered) -> str:
    """The same for reads. A read by a lease begins and is confirmed in one step of the model."""
    s, after, state = evaluation.step.before, evaluation.step.after, evaluation.state
    by_lease = evaluation.step.action == "lease_read"
    match fact:
        case ReadStarted(id=read, term=t, index=index):
            places = after.confirmed if by_lease else after.reads
            started = next((r for r in places if r.id == read), None)
            agreed = started is not None and t == after.current_term and started.index == index
            action = "" if by_lease else "begin_read"
        case ReadConfirmed(id=read, term=t, index=index):
            found = next((r for r in after.confirmed if r.id == read), None)
            agreed = found is not None and found.index == index and t == after.current_term
            if agreed and found is not None:
                key = Numbered(t, 0, read) if by_lease else Numbered(t, found.round)
                agreed = (by_lease or found in s.reads) and state.read_confirmed(key) is True
            action = "lease_read" if by_lease else "confirm_read"
        case ReadAnswered(id=read, index=index, applied=applied):
            confirmed = next((r for r in s.confirmed if r.id == read), None)
            agreed = confirmed is not None and confirmed.index == index <= applied == s.last_applied
            action = ""
    if not agreed:
        raise Rejected(f"the model does not make this fact true: {fact}")
    return action


def check_reads(evaluation: Evaluation) -> None:
    """Reads wait since they began in the model, and are confirmed when it confirms them."""
    before, after = evaluation.step.before, evaluation.step.after
    begun = [do.arguments[1] for do in evaluation.done if do.action == "begin_read"]
    fresh = [Numbered(after.current_term, read.round) for read in after.reads if read not in before.reads]
    if fresh != begun:
        raise Rejected(f"reads of the rounds {fresh} wait, which the model did not begin")
    done = sum(do.action in ("confirm_read", "lease_read") for do in evaluation.done)
    confirmed = [read.id for read in after.confirmed if read not in before.confirmed]
    if len(confirmed) != done:
        raise Rejected(f"reads {confirmed} are confirmed without a step of the model")


def check_writes(evaluation: Evaluation) -> None:
    """Writes are confirmed in order or lost in a crash; a new one is caused by the message read, or by the server."""
    step = evaluation.step
    gone = int(str(step.arguments[0])) if step.action == "persist" else 0
    kept = () if step.action == "crash_restart" else step.before.issued[gone:]
    if step.after.issued[: len(kept)] != kept:
        raise Rejected("writes that were under way are changed or forgotten")
    for write in step.after.issued[len(kept) :]:
        if write.cause is not None and write.cause != evaluation.message:
            raise Rejected(f"a write names a cause that is not the message that is read: {write.cause}")
        if write.cause is None and step.action not in CAUSELESS:
            raise Rejected(f"{step.action} issues a write that no message caused")


def check_bounds(evaluation: Evaluation) -> None:
    """A server heard of no leader and decided no vote of a later term than that of its memory."""
    i, t = evaluation.i, evaluation.step.after.current_term
    if (evaluation.state.heard_term(i) <= t) is not True:
        raise Rejected(f"{i} has heard from a leader of a later term than its own")
    later = [do for do in evaluation.done if do.action.startswith("decide_vote") and do.arguments[1] > t]
    if later:
        raise Rejected(f"{later[0]} is decided by a server of term {t}")


def check_rounds(evaluation: Evaluation) -> None:
    """A leader numbers its rounds one by one: so each is what the model takes it for, one value with one begin."""
    before, after = evaluation.step.before, evaluation.step.after
    if not is_leader(before) or not is_leader(after):
        return
    begun = [do.arguments[1] for do in evaluation.done if do.action == "begin_round"]
    counted = [Numbered(after.current_term, number) for number in range(before.round + 1, after.round + 1)]
    if begun != counted or after.round < before.round:
        raise Rejected(f"round {before.round} is followed by round {after.round}, and the model began {begun}")


def check_assumptions(evaluation: Evaluation) -> None:
    """What the proof assumes: quorums of a configuration and of the one before it meet; a lease ends before votes."""
    step, c = evaluation.step, evaluation.c
    if step.action == "change_configuration":
        record = evaluation.known.record(step.after.log)
        if not record.is_adjacent():
            raise Rejected(f"quorums of {record} and of {record.previous} need not meet")
    if step.action == "lease_read" and c.lease >= c.election_timeout:
        raise Rejected(f"a lease of {c.lease} does not end before votes that are withheld for {c.election_timeout}")
