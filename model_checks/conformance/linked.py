"""From a real run to the proof: the steps that real servers took, linked to the relational model.

Conformance says that each recorded step is a step of the readable spec; linking says that a step of the readable spec
is one of the proved model. Exploration links every local step within its bounds; here the steps of a run are linked
too, far outside those bounds in terms, crashes, messages and times. Evaluating a step of the model takes time in the
length of the log: so what servers do all the time is linked while logs are short, and what they do seldom (elections,
changes of the configuration, snapshots, transfers) all along the run. Loaded only on demand, since it loads the
relational model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec.structs import replace

from model_checks.conformance.check import prepare_judged
from model_checks.conformance.replay import Replayed, replay
from model_checks.linking.report import link_transitions
from model_checks.verdicts import CheckResult
from spec.raft.actions import Action
from spec.raft.network import Transition
from spec.raft.types import Constants, Outcome, Server, ServerId

CHECKER: Final = "conformance/linking"
LOG_MAX: Final = 40
"""Steps are linked while no log in them is longer."""
SELDOM_LOG_MAX: Final = 3_000
"""The same for what servers do seldom."""
STEPS_MAX: Final = 10_000
"""Distinct steps of each kind."""
WORK_MAX: Final = 600_000
"""What linking the seldom steps of a run may cost: lengths of logs, as often as `work_of` says."""

SELDOM: Final = frozenset(
    {
        *("request_pre_vote", "handle_pre_vote_request", "handle_pre_vote_response"),
        *("timeout", "request_vote", "handle_request_vote_request", "vote_response", "handle_request_vote_response"),
        *("become_leader", "update_term", "step_down"),
        *("transfer_leadership", "timeout_now", "handle_timeout_now", "handle_lease_ended"),
        *("change_configuration", "take_snapshot", "compact"),
        *("install_snapshot", "handle_install_snapshot_request", "restore_snapshot"),
    }
)
"""Actions that are a small part of any run."""


def is_seldom(name: str, s: Server, arguments: tuple[object, ...]) -> bool:
    """Whether a step is one of the seldom ones, or a crash, or writes the term, a vote, a configuration, a snapshot."""
    if name != "persist":
        return name in SELDOM or name == "crash_restart"
    old, found = s.durable, False
    for write in s.issued[: int(str(arguments[0]))]:
        new = write.point
        found = found or replace(new, log=old.log) != old or new.log.configuration_index > old.log.configuration_index
        old = new
    return found


def work_of(step: Transition) -> int:
    """How often linking goes through the log, in tenths: for each write that reaches the disk, or not quite once."""
    if step.action in ("persist", "crash_restart"):
        return 10 * (1 + int(str(step.arguments[0])))
    return 1 if step.after.log is step.before.log and step.action != "become_leader" else 10


class Recorder:
    """The distinct local steps that a replay takes, in order, as far as logs are short enough."""

    def __init__(self, steps_max: int, work_max: int = WORK_MAX) -> None:
        self.steps_max = steps_max
        self._work_left = work_max
        self._frequent: dict[Transition, None] = {}
        self._seldom: dict[Transition, None] = {}
        self.taken = 0
        """Steps taken, recorded or not."""
        self.left_out = 0
        """Seldom steps that were not recorded."""

    @property
    def steps(self) -> list[Transition]:
        """What was recorded."""
        return [*self._frequent, *self._seldom]

    def recording(self, name: str, action: Action) -> Action:
        """The action, which records the step that it takes."""

        def recorded(c: Constants, i: ServerId, s: Server, *args: object) -> Outcome | None:
            """The action itself, unchanged."""
            outcome = action(c, i, s, *args)
            if outcome is not None:
                self.taken += 1
                self._record(Transition(i, name, args, s, outcome))
            return outcome

        return recorded

    def _record(self, step: Transition) -> None:
        """Keep a step that is worth its time."""
        s, after = step.before, step.after
        longest = max(s.log.length, s.durable.log.length, after.log.length)
        if not is_seldom(step.action, s, step.arguments):
            if longest <= LOG_MAX and len(self._frequent) < self.steps_max:
                self._frequent[step] = None
        elif step not in self._seldom:
            work = longest * work_of(step) // 10
            if longest <= SELDOM_LOG_MAX and len(self._seldom) < self.steps_max and work <= self._work_left:
                self._seldom[step] = None
                self._work_left -= work
            else:
                self.left_out += 1


def link_traces(directory: Path | str, steps_max: int = STEPS_MAX) -> CheckResult:
    """Link the steps of the traces in `directory`; a trace that does not conform is linked up to its divergence.

    Raises UnreadableTrace.
    """
    replayed, _ = prepare_judged(directory)
    recorder = Recorder(steps_max)
    record(replayed, recorder)
    replay(replayed)
    result = link_transitions([(replayed.constants, recorder.steps)])
    figures = {**result.figures, "steps_of_the_run": recorder.taken, "seldom_left_out": recorder.left_out}
    return replace(result, checker=CHECKER, figures=figures)


def record(replayed: Replayed, recorder: Recorder) -> None:
    """Let every server of the replay take its steps through the recorder."""
    for server in replayed.servers.values():
        server.actions = {name: recorder.recording(name, action) for name, action in server.actions.items()}
