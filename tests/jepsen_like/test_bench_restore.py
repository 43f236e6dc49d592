"""`comitia bench restore`, small: what was restored is what was saved, and what differs is found out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jepsen_like.bench.catalog import Size
from jepsen_like.bench.restore import RestoreFigures, lines, measure_restore, not_a_prefix
from jepsen_like.bench.servers import ComitiaServers, running
from model_checks.verdicts import Verdict

AGENT = Path(__file__).resolve().parents[1] / "mutants"
SMALL = Size(nodes=20, instances=400, services=12)


class MutatedServers(ComitiaServers):
    """Servers with a mistake."""

    mutant = "restore-forgets-checks"

    def command(self, number: int) -> list[str]:
        [python, _, _, _, *flags] = super().command(number)
        return [python, str(AGENT), self.mutant, *flags]


def measured(directory: Path, new: type[ComitiaServers]) -> RestoreFigures:
    for name in ("old", "new"):
        (directory / name).mkdir()
    old, restored = ComitiaServers(1, directory / "old"), new(1, directory / "new")
    with running(old), running(restored):
        return asyncio.run(measure_restore(old, restored, SMALL, directory, lambda line: None))


def test_a_catalog_that_is_saved_under_writes_is_restored_as_it_was(tmp_path: Path) -> None:
    found = measured(tmp_path, ComitiaServers)
    assert (found.verdict, found.differences, found.servers_compared) == (Verdict.VALID, [], 1)
    assert found.writes_meanwhile > 0 and found.archive_bytes > 0
    assert any("0 differences" in line for line in lines(found))


def test_a_restore_that_forgets_rows_is_found_out(tmp_path: Path) -> None:
    found = measured(tmp_path, MutatedServers)
    assert found.verdict is Verdict.INVALID
    assert any("/v1/health/service/" in each for each in found.differences)


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ((0, 1, 2), ""),
        ((), ""),
        ((0, 2), "not the first"),
        ((1, 2), "not the first"),
        (range(6), "6 keys are there of 5"),
    ],
    ids=str,
)
def test_what_was_put_meanwhile_is_there_up_to_some_moment(numbers: range, wrong: str) -> None:
    found = not_a_prefix([f"meanwhile/{number:08d}" for number in numbers], 5)
    assert found == "" if not wrong else wrong in found
