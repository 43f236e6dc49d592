"""From a real run to the proof: the steps that real servers took, linked to the relational model.

Conformance says that each recorded step is a step of the readable spec; linking says that a step of the readable spec
is one of the proved model. Exploration links every local step within its bounds; here the steps of a run are linked
too, far outside those bounds in terms, crashes and messages, as long as logs are short: evaluating a step of the
model takes time in the length of the log. Loaded only on demand, since it loads the relational model.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from model_checks.conformance.check import prepare_judged
from model_checks.conformance.replay import Replayed, replay
from model_checks.linking.report import link_transitions
from model_checks.verdicts import CheckResult
from spec.raft.actions import Action
from spec.raft.network import Transition
from spec.raft.types import Constants, Outcome, Server, ServerId

CHECKER = "conformance/linking"
LOG_MAX = 40
"""Steps are linked while no log in them is longer."""
ELECTION_LOG_MAX = 1_000
"""The same for the steps of elections: there are few, and they happen all along a run."""
STEPS_MAX = 10_000
ELECTIONS = frozenset(
    {
        "timeout",
        "request_vote",
        "handle_request_vote_request",
        "vote_response",
        "handle_request_vote_response",
        "become_leader",
        "update_term",
    }
)


class Recorder:
    """The distinct local steps that a replay takes, in order, while logs are short enough."""

    def __init__(self, steps_max: int) -> None:
        self.steps_max = steps_max
        self.steps: dict[Transition, None] = {}
        self.taken = 0
        """Steps taken, recorded or not."""

    def recording(self, name: str, action: Action) -> Action:
        """The action, which records the step that it takes."""
        log_max = ELECTION_LOG_MAX if name in ELECTIONS else LOG_MAX

        def recorded(c: Constants, i: ServerId, s: Server, *args: object) -> Outcome | None:
            """The action itself, unchanged."""
            outcome = action(c, i, s, *args)
            if outcome is not None:
                self.taken += 1
                longest = max(s.log.length, s.durable.log.length, outcome.server.log.length)
                if longest <= log_max and len(self.steps) < self.steps_max:
                    self.steps[Transition(i, name, args, s, outcome)] = None
            return outcome

        return recorded


def link_traces(directory: Path | str, steps_max: int = STEPS_MAX) -> CheckResult:
    """Link the steps of the traces in `directory`; a trace that does not conform is linked up to its divergence.

    Raises UnreadableTrace.
    """
    replayed, _ = prepare_judged(directory)
    recorder = Recorder(steps_max)
    record(replayed, recorder)
    replay(replayed)
    result = link_transitions([(replayed.constants, recorder.steps)])
    figures = {**result.figures, "steps_of_the_run": recorder.taken}
    return replace(result, checker=CHECKER, figures=figures)


def record(replayed: Replayed, recorder: Recorder) -> None:
    """Let every server of the replay take its steps through the recorder."""
    for server in replayed.servers.values():
        server.actions = {name: recorder.recording(name, action) for name, action in server.actions.items()}
