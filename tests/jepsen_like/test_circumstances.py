"""What a stored run says of its cluster to the checkers: never more than it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jepsen_like.analysis import effort
from jepsen_like.circumstances import GAP_NS, SETTLED_NS, SNAPSHOT, calm, circumstances, reigns, restores
from jepsen_like.nemesis.book import Fault
from jepsen_like.nemesis.partition import between
from jepsen_like.runner import replay_command
from jepsen_like.store.run_directory import ChaosParams, Leadership, RunDirectory
from jepsen_like.workload.base import Least
from jepsen_like.workload.lock import LOCK
from model_checks.verdicts import Verdict

SECOND = 1_000_000_000
SERVERS = ("s1", "s2", "s3")
LED = [((0, 100 * SECOND), "s1")]


def fault(f: str, at: int, nodes: tuple[str, ...] = (), **broken: Any) -> Fault:
    state: dict[str, Any] = {"cut": (), "paused": (), "dead": (), **broken}
    return Fault(package="partition", f=f, nodes=nodes, what="", leader="s1", start_ns=at, end_ns=at + 1, **state)


def test_a_reign_is_one_leader_in_one_term_without_a_gap() -> None:
    samples = [(0, "s1", 1), (SECOND // 2, "s1", 1), (SECOND, None, 0), (2 * SECOND, "s1", 1), (5 * SECOND, "s1", 1)]
    samples += [(5 * SECOND + 1, "s2", 2), (5 * SECOND + 2, "s1", 3), (5 * SECOND + 3, "s1", 3)]
    assert reigns([Leadership(*sample) for sample in samples]) == [
        ((0, SECOND // 2), "s1"),
        ((2 * SECOND, 2 * SECOND), "s1"),
        ((5 * SECOND, 5 * SECOND), "s1"),
        ((5 * SECOND + 1, 5 * SECOND + 1), "s2"),
        ((5 * SECOND + 2, 5 * SECOND + 3), "s1"),
    ]


def test_an_agent_is_calm_while_neither_it_nor_the_leader_is_touched() -> None:
    faults = [fault("cut", 10 * SECOND, ("s2",), cut=between(["s2"], ["s3"])), fault("heal", 20 * SECOND)]
    mended = 20 * SECOND + 1 + SETTLED_NS
    assert calm("s1", SERVERS, LED, faults) == ((0, 100 * SECOND),)
    assert calm("s2", SERVERS, LED, faults) == ((0, 10 * SECOND), (mended, 100 * SECOND))
    assert calm("c1", SERVERS, LED, faults) == calm("s2", SERVERS, LED, faults), "it may have asked any server"
    paused = [fault("pause", 10 * SECOND, ("s1",), paused=("s1",)), fault("resume", 11 * SECOND)]
    assert calm("s3", SERVERS, LED, paused)[0] == (0, 10 * SECOND), "its leader was paused"


def test_nobody_is_calm_after_what_was_never_mended_nor_right_after_an_election() -> None:
    broken = [fault("kill", 10 * SECOND, ("s2",), dead=("s2",))]
    assert calm("s2", SERVERS, LED, broken) == ((0, 10 * SECOND),)
    led = [((0, SECOND), "s1"), ((2 * SECOND, 9 * SECOND), "s2")]
    assert calm("s3", SERVERS, led, []) == ((0, SECOND), (2 * SECOND + GAP_NS, 9 * SECOND))


def test_a_restore_is_a_start_with_a_snapshot_or_one_that_was_installed(tmp_path: Path) -> None:
    def header(ns: int, snapshot: int) -> str:
        state = [0] * 21
        state[SNAPSHOT] = snapshot
        return json.dumps({"kind": "header", "ns": ns, "state": state})

    step = json.dumps({"kind": "step", "ns": 30, "action": "restore_snapshot"})
    (tmp_path / "s1-000001.ndjson").write_text(f'{header(10, 0)}\n{step}\n{{"action":"restore_snapshot","n')
    (tmp_path / "s1-000002.ndjson").write_text(header(20, 7) + "\n")
    assert restores(tmp_path) == (20, 30)


def test_all_of_it_is_found_in_the_directory_of_a_run(tmp_path: Path) -> None:
    params = ChaosParams(nodes=3, clients=1, concurrency=8)
    directory = RunDirectory.create(tmp_path, params, replay_command(params))
    found = circumstances(params, [], [Leadership(1, "s1", 1), Leadership(2, "s1", 1)], directory)
    assert (found.reigns, found.calm, found.restores) == (((1, 2),), (((1, 2),),) * 4, ())
    assert found.calm_at(7, 1, 2) and found.calm_at(15, 2, 2) and not found.calm_at(0, 1, 3)


def test_a_run_that_came_to_too_little_says_of_what() -> None:
    least = Least("holds", 0.5, "holds of locks")
    assert least.missing({"holds": 10}, 20.0) == ""
    assert least.missing({"holds": 9}, 20.0) == "9 holds of locks of at least 10"
    assert least.missing({}, 20.0) == "0 holds of locks of at least 10"
    assert least.missing({}, 9.0) == "", "a run that short need not"


def test_a_run_with_locks_in_which_nothing_was_held_is_unknown() -> None:
    params = ChaosParams(workload="lock", nemesis=(), time_limit_s=20.0)
    figures = {"acknowledged": 5_000, "holds": 19} | {each.figure: 1_000 for each in LOCK.least[1:]}
    verdict = effort(params, figures, interrupted=False)
    assert (verdict.verdict, verdict.reason) == (
        Verdict.UNKNOWN,
        "tried too little: 19 holds of locks of at least 20",
    )
    assert effort(params, figures | {"holds": 20}, interrupted=False).verdict is Verdict.VALID
