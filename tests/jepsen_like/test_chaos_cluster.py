"""`comitia chaos test` against real processes: short runs, honest, lying, interrupted, and one that cannot start."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "tests" / "mutants"

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def start(store: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "comitia", "chaos", "test", "--store", str(store), "--json", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    report = json.loads(output.splitlines()[-1]) if output.strip() else {}
    return process.returncode, report, errors


def test_a_short_run_is_valid_and_can_be_judged_again_from_its_store(tmp_path: Path) -> None:
    arguments = ("--nodes", "3", "--clients", "1", "--time-limit", "12", "--seed", "1", "--rate", "200")
    code, report, errors = finish(start(tmp_path, *arguments))
    assert (code, report.get("verdict")) == (0, "VALID"), report.get("reason", errors)
    assert report["figures"]["faults"] >= 3
    assert errors.startswith("seed 1; repeat with: comitia chaos test --servers 3 --clients 1")
    run = Path(report["directory"])
    written = {
        "params.json",
        "history.ndjson",
        "faults.ndjson",
        "run.json",
        "results.json",
        "report.html",
        "logs",
        "traces",
    }
    assert written <= {path.name for path in run.iterdir()}
    again = subprocess.run(
        [sys.executable, "-m", "comitia", "chaos", "analyze", str(run), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0
    assert json.loads(again.stdout.splitlines()[-1])["figures"] == report["figures"]


def test_consistent_reads_that_are_not_confirmed_are_found(tmp_path: Path) -> None:
    agent = shlex.join([sys.executable, str(MUTANTS), "consistent-read-without-confirmation"])
    arguments = ("--nodes", "3", "--clients", "0", "--time-limit", "8", "--seed", "1", "--rate", "200")
    code, report, errors = finish(start(tmp_path, *arguments, "--agent-command", agent))
    assert (code, report.get("verdict")) == (1, "INVALID"), report.get("reason", errors)
    assert "conformance/raft: confirm_read" in report["reason"]
    assert report["replay"] in errors


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs that are started hear Ctrl-C, even if whoever started these tests ignores it (a shell's `&` does)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_heals_collects_and_says_unknown(tmp_path: Path) -> None:
    process = start(tmp_path, "--nodes", "3", "--clients", "0", "--time-limit", "60", "--seed", "1", "--rate", "200")
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 0 for path in tmp_path.glob("*/faults.ndjson")):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no fault within a minute"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, report, errors = finish(process)
    assert (code, report.get("verdict")) == (2, "UNKNOWN"), errors
    assert "interrupted" in report["reason"]
    faults = [json.loads(line) for line in next(tmp_path.glob("*/faults.ndjson")).read_text().splitlines()]
    assert (faults[-1]["cut"], faults[-1]["paused"], faults[-1]["dead"]) == ([], [], [])
    assert list(tmp_path.glob("*/traces/*.ndjson"))


def test_an_agent_that_does_not_start_is_a_failed_set_up_and_no_verdict(tmp_path: Path) -> None:
    code, report, errors = finish(start(tmp_path, "--nodes", "1", "--clients", "0", "--agent-command", "false"))
    assert (code, report) == (255, {})
    assert "set-up failed" in errors
