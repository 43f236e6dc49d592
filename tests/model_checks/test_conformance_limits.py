"""Conformance is linear in the trace, and no alteration of a trace makes it crash."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from model_checks.conformance import UnreadableTrace, check_traces, observed
from model_checks.conformance.entries import digest_at
from model_checks.conformance.spec_nodes import Lines
from model_checks.conformance.spec_runs import SpecCluster, written
from model_checks.verdicts import Verdict, merge
from spec.raft.log import Log


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every number, text and truth value in a line."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))
    else:
        yield path


def altered(value: object, random: Random) -> object:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + random.choice([1, -1, 2])
        case str():
            return random.choice(["s1", "s2", "", "leader", "stale", f"x{value}", f"{value[:-1]}A", value[:-1]])
        case _:
            return "s2"


def test_whatever_is_altered_the_checker_does_not_crash_and_seldom_fails_to_notice(tmp_path: Path) -> None:
    """What it may miss changes nothing: a read of another missing key, a refusal that nobody waited for, a
    nanosecond.
    """
    random, lines = Random(1), SpecCluster(seed=5).run(1500).lines
    verdicts: Counter[Verdict] = Counter()
    for _ in range(200):
        of_file = lines[random.choice(sorted(lines))]
        place = random.randrange(len(of_file))
        whole = of_file[place]
        of_file[place] = msgspec.json.decode(msgspec.json.encode(whole))
        inner: Any = of_file[place]
        *path, last = random.choice([path for path in places(whole) if path[-1] != "ns"])
        for key in path:
            inner = inner[key]
        inner[last] = altered(inner[last], random)
        try:
            verdicts[merge(result.verdict for result in check_traces(written(lines, tmp_path)))] += (
                of_file[place] != whole
            )
        except UnreadableTrace:
            verdicts[Verdict.INVALID] += 1
        of_file[place] = whole
    assert verdicts[Verdict.VALID] < 0.15 * verdicts.total()


# ---------------------------------------------------------------------------------------------- how much work


def calls_per_line(lines: Lines, directory: Path) -> float:
    """Function calls that checking a trace takes, for each of its lines: a measure of time that does not depend on
    the machine.
    """
    directory.mkdir()
    written(lines, directory)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        check_traces(directory)
    finally:
        sys.setprofile(None)
    return calls / sum(len(of_file) for of_file in lines.values())


def test_doubling_a_trace_at_most_doubles_the_work(tmp_path: Path) -> None:
    short, long = (SpecCluster(seed=7).run(steps).lines for steps in (3000, 12000))
    assert calls_per_line(long, tmp_path / "long") <= 1.2 * calls_per_line(short, tmp_path / "short")


def test_a_checker_that_reads_the_whole_log_at_each_step_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_digest(log: Log) -> str:
        return [digest_at(log, index) for index in range(log.length + 1)][-1]

    monkeypatch.setattr(observed, "digest_of", slow_digest)
    with pytest.raises(AssertionError):
        test_doubling_a_trace_at_most_doubles_the_work(tmp_path)
