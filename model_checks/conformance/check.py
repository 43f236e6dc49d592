"""`check_traces`: replay a directory of traces, and say for each checker VALID, INVALID or UNKNOWN.

- conformance/raft: each step is enabled in the spec and yields what was recorded;
- conformance/provenance: each message received was sent, unchanged, to that server; time does not run in circles;
- conformance/durability: nothing leaves or is relied upon before the disk holds it; restarts find what the disk held;
- conformance/forwarding: a client's write is applied at most once, however often it was forwarded;
- conformance/reads: each client was answered what the catalog says;
- conformance/invariants: what is proved holds in every fact, and in the cuts and catalogs that were looked at.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from model_checks.conformance.answers import Answers
from model_checks.conformance.divergence import (
    CHECKERS,
    DURABILITY,
    FORWARDING,
    INVARIANTS,
    PROVENANCE,
    RAFT,
    READS,
    Divergence,
)
from model_checks.conformance.invariants import CUT_EVERY, Invariants
from model_checks.conformance.proposals import Proposals
from model_checks.conformance.replay import Replayed, open_traces, prepare, replay
from model_checks.conformance.server import ServerReplay
from model_checks.conformance.trace import AnswerLine, Propose, Step
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.actions import ACTIONS
from spec.raft.network import Transition
from spec.raft.types import Constants, Elected, Fact, ReadAnswered, ReadConfirmed

FEATURES = {
    "membership_changes": ("change_configuration",),
    "snapshots_taken": ("take_snapshot",),
    "snapshots_sent": ("install_snapshot",),
    "snapshots_installed": ("restore_snapshot",),
    "lease_reads": ("lease_read",),
    "confirmed_reads": ("confirm_read",),
    "transfers": ("transfer_leadership",),
    "step_downs": ("step_down",),
    "ends_believed": ("handle_lease_ended",),
}
"""What a run may be expected to have done, by the actions that show it."""


class Judges:
    """Hands facts and answers to their judges, and keeps the first divergence that each property shows."""

    def __init__(self, constants: Constants) -> None:
        self.answers = Answers()
        self.proposals = Proposals()
        self.invariants = Invariants(constants)
        self.servers: dict[str, ServerReplay] = {}
        """All servers of the replay: a cut is the state of each."""
        self.found: dict[str, Divergence] = {}
        """By property."""
        self._steps = 0
        self._cut_due = False

    def taken(self, server: ServerReplay, step: Transition) -> None:
        """`server` took a step of the spec."""
        try:
            self.invariants.taken(step)
        except Divergence as divergence:
            self._keep(divergence, server)

    def fact(self, server: ServerReplay, fact: Fact) -> None:
        """A fact became true by a step of `server`."""
        if isinstance(fact, ReadAnswered):
            self.answers.read_answered(fact.id, fact.index)
        elif isinstance(fact, ReadConfirmed) and server.action == "lease_read":
            self.answers.read_by_lease(fact.id)
        self._cut_due |= isinstance(fact, Elected)
        try:
            self.invariants.fact(server, fact)
        except Divergence as divergence:
            self._keep(divergence, server)

    def answer(self, server: ServerReplay, line: AnswerLine) -> None:
        """`server` answered a client."""
        try:
            self.answers.add(server, line)
            if line.mode == "write":
                self.proposals.answered(server, line)
        except Divergence as divergence:
            self._keep(divergence, server)

    def propose(self, server: ServerReplay, line: Propose) -> None:
        """`server` names the write that one of its entries carries."""
        try:
            self.proposals.add(server, line)
        except Divergence as divergence:
            self._keep(divergence, server)

    def snapshot(self, server: ServerReplay, line: Step) -> None:
        """`server` took a snapshot of its state machine, or replaced it by one."""
        self.answers.snapshot(server, line)

    def step(self, server: ServerReplay) -> None:
        """Every server stands at a consistent cut: look at it now and then, and after every election."""
        self._steps += 1
        if self._cut_due or self._steps % CUT_EVERY == 0:
            self._cut_due = False
            self.cut(server)

    def cut(self, last: ServerReplay) -> None:
        """Evaluate the invariants on the cut at which the replay stands, after a step of `last`."""
        try:
            self.invariants.cut(self.servers)
        except Divergence as divergence:
            self._keep(divergence, last)

    def _keep(self, divergence: Divergence, server: ServerReplay) -> None:
        if divergence.property not in self.found:
            divergence.place = server.here()
            self.found[divergence.property] = divergence


def check_traces(directory: Path | str, expected: Collection[str] = ()) -> list[CheckResult]:
    """Check all traces in `directory` against the spec: one result for each checker, in the order of `CHECKERS`.

    A run that did not do all of `expected`, names of `FEATURES`, is UNKNOWN. Raises UnreadableTrace (a SetupFailed) if
    there are no traces, or a file is not one.
    """
    started = time.monotonic()
    replayed, judges = prepare_judged(directory)
    replay(replayed)
    judges.cut(max(replayed.servers.values(), key=lambda server: server.here().ns))
    wrong_answer = judges.answers.judge(judges.invariants.applied, replayed.payloads)
    applied_twice = judges.proposals.judge(judges.invariants.committed)
    stale_lease = judges.invariants.judge_leases()
    wrong_tables = judges.answers.tables.broken
    judged_last = (wrong_answer, wrong_tables, applied_twice, stale_lease)
    last = [divergence for divergence in judged_last if divergence is not None]
    found = [*replayed.divergences, *judges.found.values(), *last]
    seconds = time.monotonic() - started
    figures = figures_of(replayed, judges)
    results = [result_of(checker, found, replayed, figures[checker], seconds) for checker in CHECKERS]
    missing = sorted(name for name in expected if not figures[RAFT]["features"][name])
    if missing and results[0].verdict == Verdict.VALID:
        never = ", ".join(name.replace("_", " ") for name in missing)
        results[0].verdict, results[0].reason = Verdict.UNKNOWN, f"vacuous: this run was to show {never}, and did not"
    return results


def prepare_judged(directory: Path | str) -> tuple[Replayed, Judges]:
    """A replay of the traces in `directory` that has not begun, and who will judge it. Raises UnreadableTrace."""
    opened = open_traces(Path(directory))
    judges = Judges(opened.constants)
    replayed = prepare(opened, judges)
    judges.servers = replayed.servers
    return replayed, judges


def result_of(
    checker: str, found: list[Divergence], replayed: Replayed, figures: dict[str, Any], seconds: float
) -> CheckResult:
    """INVALID with the checker's first divergence; UNKNOWN if part of the run could not be judged; else VALID."""
    result = CheckResult(checker=checker, verdict=Verdict.VALID, figures=figures, seconds=seconds)
    own = sorted((each for each in found if each.checker == checker), key=lambda each: each.ns)
    if own:
        result.verdict, result.property = Verdict.INVALID, own[0].property
        result.reason, result.details = own[0].reason(), own[0].details()
        if len(own) > 1:
            result.details += "".join(f"\nalso: {other.property}: {other.reason()}" for other in own[1:])
    elif replayed.incomplete:
        result.verdict, result.reason = Verdict.UNKNOWN, replayed.incomplete[0]
    elif replayed.divergences:
        first = replayed.divergences[0]
        result.verdict = Verdict.UNKNOWN
        result.reason = f"judged only up to the divergence that {first.checker} found at {first.place}"
    elif not figures["judged"]:
        result.verdict, result.reason = Verdict.UNKNOWN, "vacuous: the traces hold nothing for this checker to judge"
    return result


def figures_of(replayed: Replayed, judges: Judges) -> dict[str, dict[str, Any]]:
    """What each checker did; `judged` says how much, 0 is vacuous."""
    counts: Counter[str] = sum((server.counts for server in replayed.servers.values()), Counter())
    steps = {name: number for name, number in sorted(counts.items()) if name in ACTIONS}
    restarts = sum(server.restarts for server in replayed.servers.values())
    modes = Counter(each.line.mode for each in judges.answers.waiting if isinstance(each.line, AnswerLine))
    return {
        RAFT: {
            "judged": sum(steps.values()),
            "lines": sum(reader.lines for reader in replayed.readers),
            "servers": len(replayed.servers),
            "incarnations": len(replayed.readers),
            "steps": steps,
            "features": {name: sum(counts[action] for action in actions) for name, actions in FEATURES.items()},
            "never": sorted(set(ACTIONS) - set(steps) - ({"crash_restart"} if restarts else set())),
            "cut": [reader.cut for reader in replayed.readers if reader.cut],
        },
        PROVENANCE: {"judged": len(replayed.sent), "messages": len(replayed.sent)},
        DURABILITY: {
            "judged": counts["persist"] + counts["issue"] + restarts,
            "restarts": restarts,
            "unconfirmed_writes_survived": sum(server.survived for server in replayed.servers.values()),
            "issued_writes_lost": sum(server.lost for server in replayed.servers.values()),
            "writes": counts["issue"],
            "confirmed": counts["persist"],
        },
        FORWARDING: {"judged": counts["propose"], "writes": len(judges.proposals.attempts)},
        READS: {"judged": counts["answer"], "answers": counts["answer"], "by_mode": dict(sorted(modes.items()))},
        INVARIANTS: {
            "judged": sum(judges.invariants.facts.values()),
            "cuts": judges.invariants.cuts,
            "catalog_cuts": judges.answers.tables.looks,
            "entries_applied": len(judges.invariants.applied),
            "facts": dict(sorted(judges.invariants.facts.items())),
        },
    }
