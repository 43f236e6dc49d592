"""The check as one call: so many runs of Hypothesis's machine over a system that is handed in, or a stored history.

INVALID: an answer differs from the spec. UNKNOWN: too much was not known, or too little was tried.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.stateful import run_state_machine_as_test

from model_checks.stateful.sockets import history
from model_checks.stateful.sockets.conversation import Conversation
from model_checks.stateful.sockets.history import Event
from model_checks.stateful.sockets.judge import Judge
from model_checks.stateful.sockets.machine import SocketMachine
from model_checks.stateful.sockets.properties import Difference
from model_checks.stateful.sockets.system import SystemUnderTest
from model_checks.stateful.sockets.worlds import Undecided
from model_checks.verdicts import CheckResult, Verdict
from spec.catalog.commands import KvVerb, Verb

CHECKER: Final = "sockets"
STEPS: Final = 50
BATCH: Final = 25
"""Runs that Hypothesis is asked for at once: its first one is always the simplest there is."""
TIMED_BATCH: Final = 5
"""The same, if the time is limited."""
COMMANDS: Final = (
    "Set", "CheckAndSet", "Delete", "DeleteCheckAndSet", "DeleteTree", "Lock", "Unlock", "CreateSession",
    "DestroySession", "Register", "Deregister", "Transaction",
)  # fmt: skip
READS: Final = (
    "Get", "List", "Keys", "ListNodes", "ListServices", "ServiceInstances", "NodeServices", "NodeChecks",
    "ServiceChecks", "ChecksInState", "ServiceHealth", "GetSession", "ListSessions", "Transaction",
)  # fmt: skip
LEAST: Final[Mapping[str, int]] = {
    **{f"command {name}": 2 for name in COMMANDS},
    **{f"read {name}": 5 for name in READS},
    **{f"operation KvOperation {verb.value}": 1 for verb in KvVerb},
    **{f"operation {kind}Operation {verb.value}": 1 for kind in ("Node", "Service", "Check") for verb in Verb},
    "mode default": 50,
    "mode consistent": 50,
    "mode stale": 50,
    "blocking, woken": 10,
    "blocking, time over": 5,
    "refused by the state machine": 5,
    "refused by a lock-delay": 1,
    "answered false": 5,
    "renewals": 2,
    "written": 300,
}
"""What a check must have done at least, or it is UNKNOWN: some forty runs do it with ease."""
UNKNOWN_SHARE_MAX: Final = 0.05
"""Of requests without an answer, or entries of the log that nobody asked for: more, and too much was not checked."""


def check_sockets(
    system: SystemUnderTest,
    *,
    seed: int,
    runs: int,
    steps: int,
    write: Callable[[Event], None],
    seconds: float | None = None,
    progress: Callable[[int, int], None] = lambda done, requests: None,
    least: Mapping[str, int] = LEAST,
) -> CheckResult:
    """Ask a cluster that was just formed in `runs` runs of `steps` requests, or until `seconds` are over.

    `write` stores the history; `progress` is told after each run how many there were, and how many requests.
    """
    started = time.monotonic()
    conversation = Conversation(system, seed, write)
    broken: Difference | None = None
    unknown = ""
    try:
        conversation.open()
        batch = 0
        while conversation.run < runs and (seconds is None or time.monotonic() - started < seconds):
            batch_runs = BATCH if seconds is None else TIMED_BATCH
            _some_runs(
                conversation, seed * 1_000_003 + batch, min(batch_runs, runs - conversation.run), steps, progress
            )
            batch += 1
    except Difference as difference:
        broken = difference
    except Undecided as undecided:
        unknown = f"run {conversation.run}: {undecided}"
    return _result(conversation.judge.counts, broken, unknown, time.monotonic() - started, least, seed)


def _some_runs(
    conversation: Conversation, seed: int, runs: int, steps: int, progress: Callable[[int, int], None]
) -> None:
    """Raises what ended the conversation."""

    class Machine(SocketMachine):
        def teardown(self) -> None:
            super().teardown()
            progress(conversation.run, conversation.judge.counts["requests"])

    Machine.conversation = conversation
    settings = hypothesis.settings(
        max_examples=runs,
        stateful_step_count=steps,
        phases=(Phase.generate,),
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=settings)
    except Exception:
        if conversation.ended is None:
            raise
        # Hypothesis tried the run once more, which is over, and says so at length.
        raise conversation.ended from None


def judge_again(path: Path, least: Mapping[str, int] = LEAST) -> CheckResult:
    """Judge a stored history. Raises BadHistory."""
    started = time.monotonic()
    judge, broken, unknown, seed = Judge(), None, "", 0
    last = 0
    try:
        for number, event in history.read(path):
            last = number
            if isinstance(event, history.Baseline):
                seed = event.seed
            judge.take(event)
    except Difference as difference:
        broken = difference
        broken.evidence = (*difference.evidence, f"  at line {last} of {path}")
    except Undecided as undecided:
        unknown = f"line {last}: {undecided}"
    return _result(judge.counts, broken, unknown, time.monotonic() - started, least, seed)


def _result(
    counts: Counter[str],
    broken: Difference | None,
    unknown: str,
    seconds: float,
    least: Mapping[str, int],
    seed: int,
) -> CheckResult:
    figures = {"seed": seed, **{name: counts[name] for name in sorted(counts)}}
    if broken is not None:
        return CheckResult(
            checker=CHECKER,
            verdict=Verdict.INVALID,
            property=broken.broken.value,
            reason=broken.why,
            details="\n".join(broken.evidence),
            figures=figures,
            seconds=seconds,
        )
    reason = unknown or too_unsure(counts) or too_little(counts, least)
    verdict = Verdict.UNKNOWN if reason else Verdict.VALID
    return CheckResult(checker=CHECKER, verdict=verdict, reason=reason, figures=figures, seconds=seconds)


def too_unsure(counts: Counter[str]) -> str:
    """Why so much of a history was not compared that it says little; empty if it says enough."""
    for name in ("of unknown outcome", "not served", "reads without an answer", "entries that nobody asked for"):
        if counts[name] > counts["requests"] * UNKNOWN_SHARE_MAX:
            return f"{counts[name]} {name}, of {counts['requests']} requests: the cluster was not at rest"
    return ""


def too_little(counts: Counter[str], least: Mapping[str, int]) -> str:
    """Why a history says too little; empty if it tried enough."""
    missing = [f"{counts[name]} {name} (at least {need})" for name, need in least.items() if counts[name] < need]
    return "tried too little: " + "; ".join(missing) if missing else ""


def summary(result: CheckResult) -> str:
    """One line of what was done."""
    figures = Counter[str]({name: value for name, value in result.figures.items() if isinstance(value, int)})

    def total(prefix: str) -> int:
        return sum(value for name, value in figures.items() if name.startswith(prefix))

    modes = ", ".join(f"{figures[f'mode {mode}']} {mode}" for mode in ("default", "consistent", "stale"))
    return (
        f"{figures['runs']} runs, {figures['requests']} requests: {total('command ')} commands ({figures['written']} "
        f"done, {figures['answered false']} false, {figures['refused by the state machine']} refused, "
        f"{figures['refused by a lock-delay']} by a lock-delay), {total('read ')} reads ({modes}), blocking: "
        f"{figures['blocking, woken']} woken, {figures['blocking, time over']} in vain, "
        f"{figures['blocking, spurious']} spurious"
    )


def encoded(result: CheckResult) -> bytes:
    """The report as JSON."""
    return msgspec.json.encode({**msgspec.structs.asdict(result), "summary": summary(result)})
