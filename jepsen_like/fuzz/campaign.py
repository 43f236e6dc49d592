"""One campaign: rounds over all operations, each with a few cases; then everything is removed and the process weighed.

The seed decides all cases. What an answer is depends on what was asked before, so a finding is repeated by the whole
campaign, or tried alone by its curl command.
"""

from __future__ import annotations

import logging
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Final

import msgspec
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from jepsen_like.fuzz import state
from jepsen_like.fuzz.agents import AgentUnderTest, Usage
from jepsen_like.fuzz.cases import cases
from jepsen_like.fuzz.judging import CONFORMS, IN_TIME, NO_DEFECT, Judged, ask
from model_checks.verdicts import CheckResult, SetupFailed, Verdict

CASES_A_TURN: Final = 20
"""Of one operation, before the next one has its turn."""
TURNS_MAX: Final = 100_000
WARM_UP: Final = 0.2
"""The part of the cases after which memory is measured for the first time."""
MEMORY_MIB_MAX: Final = 32
"""Growth of the resident memory since then: the log in memory, and what Python's allocator keeps."""
FILES_MORE_MAX, TASKS_MORE_MAX, THREADS_MORE_MAX = 4, 4, 4
SETTLE_SECONDS: Final = 5.0
"""Connections that clients closed, and checks that were removed, are gone after that."""
ENDING_SECONDS: Final = 2.0
"""A process that ends closes its sockets before its end can be seen."""
LEAVE_SECONDS: Final = 20.0
CHECKERS: Final = {IN_TIME: "time", CONFORMS: "conformance", NO_DEFECT: "errors"}

ENDED = "the agent does not end by itself"
GROWTH = "requests leave nothing behind"
LEAVES = "an agent that is told to leave answers, and ends"

EXCLUDED: Final[Mapping[str, str]] = {
    "putAgentLeave": "the process ends, which is what it is for: it is asked last",
    "getAgentMonitor": "its answer has no end",
    "putAgentJoin": "it dials whatever address it is given",
}
"""Operations that are not fuzzed, by operationId, and why."""
EXCLUDED_OF_CLUSTERS: Final[Mapping[str, str]] = {
    "deleteOperatorRaftPeer": "servers would be removed until none is left that could be",
    "putOperatorRaftDemote": "the same",
}
"""The same, where there are several servers."""
NEVER_DONE: Final = frozenset(("putOperatorRaftPeer", "putOperatorRaftPromote", "putSnapshot"))
"""What no case succeeds at: it needs a server that waits to be added, or to vote, or an archive."""
NEVER_DONE_ALONE: Final = NEVER_DONE | {
    "deleteOperatorRaftPeer",
    "putOperatorRaftDemote",
    "postOperatorRaftTransferLeader",
    "putOperatorRaftTransferLeader",
}
"""The same of one server: it needs another, which leads or votes instead."""
SUCCESS_AFTER: Final = 100
"""After so many cases for each operation, one of them must have succeeded."""


class Finding(msgspec.Struct, frozen=True):
    """A request that was answered wrongly."""

    operation: str
    property: str
    reason: str
    curl: str


class Campaign:
    """Asks one agent. `run` once."""

    def __init__(self, agent: AgentUnderTest, servers: int, number: int, count: int, only: str | None) -> None:
        """Args:
        number: the seed.
        count: how many cases.
        only: the operationId of the only operation to ask; None: all.

        Raises:
            SetupFailed: the agent serves no OpenAPI document, or it has no such operation.
        """
        self._agent, self._servers, self._seed, self._count = agent, servers, number, count
        try:
            document = agent.get("/v1/openapi.json")
        except OSError as error:
            raise SetupFailed(f"the agent serves no OpenAPI document: {error}") from error
        excluded = {**EXCLUDED, **(EXCLUDED_OF_CLUSTERS if servers else {})}
        self._operations = _operations(document, only, excluded)
        self.findings: list[Finding] = []
        self.statuses: Counter[int] = Counter()
        self._succeeded: set[str] = set()
        self._dropped: set[str] = set()
        self._asked = 0
        self._session = requests.Session()

    def run(self, progress: Callable[[str], None]) -> list[CheckResult]:
        """Ask everything, then weigh the process."""
        began = time.monotonic()
        first = warm = self._agent.usage()
        for turn, name in enumerate(self._turns()):
            try:
                known = state.prepare(self._agent)
                self._take_turn(name, known, Random(f"{self._seed}/{turn}").getrandbits(64))
                progress(f"{self._asked:,} of {self._count:,} cases, {len(self.findings)} findings")
                if self._asked < WARM_UP * self._count:
                    warm = self._agent.usage()
            except OSError:
                break  # what follows says why
        return self._judged(first, warm, time.monotonic() - began)

    def _turns(self) -> Iterator[str]:
        """All operations in a random order, again and again, until enough was asked."""
        random = Random(self._seed)
        for _ in range(TURNS_MAX):
            for name in random.sample(sorted(self._operations), len(self._operations)):
                if self._asked >= self._count or self._dropped.issuperset(self._operations):
                    return
                if name not in self._dropped:
                    yield name

    def _take_turn(self, name: str, known: Mapping[str, tuple[str, ...]], number: int) -> None:
        operation = self._operations[name]
        base_url = f"http://127.0.0.1:{self._agent.port}"

        @seed(number)
        @settings(
            max_examples=min(CASES_A_TURN, self._count - self._asked),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases(operation, known))
        def turn(case: Case[Any]) -> None:
            if name not in self._dropped:
                self._asked += 1
                self._note(name, case, ask(case, base_url, self._session))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turn()

    def _note(self, name: str, case: Case[Any], judged: Judged) -> None:
        self.statuses[judged.status] += 1
        if 0 < judged.status < 400 or judged.status in (429, 503):  # the health of a service is told by statuses
            self._succeeded.add(name)
        if judged.objection is None:
            return
        if judged.status == 0:
            self._dropped.add(name)  # the next would cost as much time, and tell no more
        broken = judged.objection.property
        if not any((each.operation, each.property) == (name, broken) for each in self.findings):
            self.findings.append(Finding(name, broken, judged.objection.reason, case.as_curl_command()))

    # --- the verdict --------------------------------------------------------------------------------------------------

    def _judged(self, first: Usage, warm: Usage, seconds: float) -> list[CheckResult]:
        return [
            *(self._property(name) for name in CHECKERS),
            self._growth(first, warm),
            self._leave(),
            self._effort(seconds),
        ]

    def _property(self, name: str) -> CheckResult:
        found = [each for each in self.findings if each.property == name]
        checker = f"fuzz/{CHECKERS[name]}"
        if not found:
            return CheckResult(checker=checker, verdict=Verdict.VALID)
        details = "\n".join(f"{each.operation}: {each.reason}\n  {each.curl}" for each in found)
        return CheckResult(
            checker=checker,
            verdict=Verdict.INVALID,
            property=name,
            reason=f"{len(found)} operations, among them {found[0].operation}: {found[0].reason}"[:300],
            details=details,
        )

    def _growth(self, first: Usage, warm: Usage) -> CheckResult:
        """Everything is removed; what the process holds then must be what it held before."""
        if (ended := self._ended(0)) is not None:
            return ended
        self._session.close()
        try:
            left = state.clear(self._agent)
            now, more = self._settled(first, warm, left)
        except OSError as error:
            if (ended := self._ended(ENDING_SECONDS)) is not None:
                return ended
            reason = f"the agent cannot be asked any more: {error}"
            return CheckResult(checker="fuzz/growth", verdict=Verdict.INVALID, property=GROWTH, reason=reason)
        figures = {"before": msgspec.to_builtins(first), "after": msgspec.to_builtins(now)}
        if not more:
            return CheckResult(checker="fuzz/growth", verdict=Verdict.VALID, figures=figures)
        reason = ", ".join(more)
        return CheckResult(
            checker="fuzz/growth", verdict=Verdict.INVALID, property=GROWTH, reason=reason, figures=figures
        )

    def _ended(self, wait_s: float) -> CheckResult | None:
        """What is to be said if the process has ended, or does within `wait_s`; None: it has not."""
        try:
            code = self._agent.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None
        reason = f"it ended with {code}: {self._agent.log()[-500:]}"
        return CheckResult(checker="fuzz/growth", verdict=Verdict.INVALID, property=ENDED, reason=reason)

    def _settled(self, first: Usage, warm: Usage, left: int) -> tuple[Usage, list[str]]:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            now = self._agent.usage()
            more = [
                f"{name}: {before} before, {after} after"
                for name, before, after, allowed in (
                    ("open files and connections", first.files, now.files, FILES_MORE_MAX),
                    ("tasks", first.tasks, now.tasks, TASKS_MORE_MAX + 2 * left),
                    ("threads", first.threads, now.threads, THREADS_MORE_MAX),
                    ("resident KiB", warm.resident_kib, now.resident_kib, MEMORY_MIB_MAX * 1024),
                )
                if after > before + allowed
            ]
            if not more or time.monotonic() > deadline:
                return now, more
            time.sleep(0.1)

    def _leave(self) -> CheckResult:
        """Whatever it was asked before, the agent leaves when it is told to."""
        reason = ""
        try:
            status = state.leave(self._agent)
            code = self._agent.process.wait(LEAVE_SECONDS)
            if (status, code) != (200, 0):
                reason = f"it answered {status} and ended with {code}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        verdict = Verdict.INVALID if reason else Verdict.VALID
        return CheckResult(checker="fuzz/leave", verdict=verdict, property=LEAVES if reason else "", reason=reason)

    def _effort(self, seconds: float) -> CheckResult:
        """A campaign that met nothing but refusals has shown little."""
        allowed = NEVER_DONE if self._servers else NEVER_DONE_ALONE
        never = sorted(set(self._operations) - self._succeeded - allowed - self._dropped)
        enough = self._count >= SUCCESS_AFTER * len(self._operations)
        figures = {
            "cases": self._asked,
            "operations": len(self._operations),
            "answers": {str(status): times for status, times in sorted(self.statuses.items())},
        }
        reason = ""
        if self._asked < self._count and not self._dropped:
            reason = f"only {self._asked} of {self._count} cases were tried"
        elif never and enough:
            reason = f"no case succeeded of: {', '.join(never)}"
        return CheckResult(
            checker="fuzz/effort",
            verdict=Verdict.UNKNOWN if reason else Verdict.VALID,
            reason=reason,
            figures=figures,
            seconds=seconds,
        )


def _operations(
    document: Any, only: str | None, excluded: Mapping[str, str]
) -> dict[str, APIOperation[Any, Any, Any, Any]]:
    """By operationId, without those that are excluded. Raises SetupFailed."""
    logging.getLogger("schemathesis").setLevel(logging.ERROR)
    try:
        schema = schemathesis.openapi.from_dict(document)
        schema.config.output.sanitization.update(enabled=False)  # a finding must be repeatable
        every = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
        found = {each.definition.raw["operationId"]: each for each in every}
    except Exception as error:
        raise SetupFailed(f"the agent's OpenAPI document cannot be read: {error!r}") from error
    if only is not None and only not in found:
        raise SetupFailed(f"there is no operation {only!r}; there are: {', '.join(sorted(found))}")
    if only is not None and only in excluded:
        raise SetupFailed(f"{only} is not asked at random: {excluded[only]}")
    return {name: each for name, each in found.items() if (only or name) == name and name not in excluded}
