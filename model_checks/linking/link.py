"""Links local steps of the readable spec to the relational model: each is a step of it, several in order, or a stutter.

A step is linked if, in the smallest network that the server's state and the message imply (`claims`),

1. the guard of each claimed step of the model is true, evaluated concretely, whatever is not known;
2. the model's state after them is the projection of the server's next state, row by row;
3. what the next state and the sent messages claim is true then, so that claims hold in every run;
4. the facts that the step emits are those of the model: elected, committed, applied, restored, read confirmed;
5. writes are issued for a reason, and confirmed or lost in order; what the proof assumes of configurations is true.

Together with `polarity` (guards read the network only positively) every run of linked steps is a run of the model, in a
larger network; what the proof says of the model then holds of the run. The proof covers every behaviour of the model;
the readable spec is covered for the steps that were linked, and no others.

The system is the whole of Raft; static Raft is the special case without leases, pre-vote, snapshots and changes.

Must not: trust what `steps` claims.
"""

from __future__ import annotations

from model_checks.linking.claims import is_leader
from model_checks.linking.concrete import Do, Rejected, Slice
from model_checks.linking.evaluation import Evaluation
from model_checks.linking.facts import check_after
from model_checks.linking.projection import on_disk, visible
from model_checks.linking.steps import NoCounterpart, Reach, claimed
from model_checks.linking.truths import NotLocal
from spec.raft.network import ADVANCE_CLOCK, Transition
from spec.raft.types import Constants


def link(c: Constants, step: Transition) -> tuple[Do, ...]:
    """The model's steps that a local step of the readable spec is, none for a stutter. Raises Rejected."""
    if step.changes_nothing and not step.outcome.sent and step.action != ADVANCE_CLOCK:
        return ()
    evaluation = Evaluation(c, step)
    try:
        for part in claimed(c, step):
            if isinstance(part, Reach):
                evaluation.reach(on_disk(c, step.server, part.point))
            else:
                evaluation.take(part)
        lose_role(evaluation)
        evaluation.compare(visible(c, step.server, step.after), "after the step")
        tell(evaluation)
        check_after(evaluation)
    except NoCounterpart as error:
        raise Rejected(str(error)) from error
    except NotLocal as error:
        raise Rejected(f"not local: {error}") from error
    return tuple(evaluation.done)


def lose_role(evaluation: Evaluation) -> None:
    """The role that memory has lost, or that a crash ended, is lost in the model."""
    i, after = evaluation.i, evaluation.step.after
    if evaluation.step.action == "crash_restart":
        evaluation.take(Do("restart", (i,)))
        return
    now = visible(evaluation.c, i, after).rows
    had = evaluation.state.leader(i), evaluation.state.candidate(i)
    keeps = now["leader", i], now["candidate", i]
    if any(before and not still for before, still in zip(had, keeps, strict=True)):
        evaluation.take(Do("step_down", (i,)))


def tell(evaluation: Evaluation) -> None:
    """A leader whose log or commit index grew sends all of it."""
    before, after = evaluation.step.before, evaluation.step.after
    if not is_leader(after):
        return
    if is_leader(before) and (before.log, before.commit_index) == (after.log, after.commit_index):
        return
    evaluation.take(Do("send_append", (evaluation.i, Slice(after.current_term, after.log, after.commit_index))))
