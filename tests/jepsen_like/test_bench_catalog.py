"""`comitia bench catalog`, small: what it fills, and that it finds out whose blocking queries a registration ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepsen_like.bench.catalog import LARGE_INSTANCES, CatalogFigures, Size, lines, measure_catalog, registration
from jepsen_like.bench.command import command
from jepsen_like.bench.servers import ComitiaServers, running
from model_checks.verdicts import Verdict

AGENT = Path(__file__).resolve().parents[1] / "mutants"
SMALL = Size(nodes=20, instances=550, services=250, wakes=5)
"""More watchers than an agent lets one address have by default."""


class MutatedServers(ComitiaServers):
    """Servers with a mistake."""

    mutant = "services-share-one-index"

    def command(self, number: int) -> list[str]:
        [python, _, _, _, *flags] = super().command(number)
        return [python, str(AGENT), self.mutant, *flags]


def measured(servers: ComitiaServers) -> CatalogFigures:
    with running(servers):
        return asyncio.run(measure_catalog(servers, SMALL, 1, lambda line: None))


@pytest.mark.parametrize("size", [SMALL, Size(), Size(nodes=1, instances=102, services=2)], ids=str)
def test_every_service_has_instances_and_the_large_ones_a_hundred(size: Size) -> None:
    sizes = Counter(map(size.service_of, range(size.instances)))
    assert sorted(sizes) == sorted(size.names())
    assert len(sizes) == size.services
    assert {number for name, number in sizes.items() if name.startswith("large")} == {LARGE_INSTANCES}


def test_a_nodes_first_registration_brings_the_node() -> None:
    first, second = (json.loads(registration(SMALL, number).partition(b"\r\n\r\n")[2]) for number in (3, 23))
    assert (first["Node"], first["SkipNodeUpdate"]) == (second["Node"], False)
    assert second["SkipNodeUpdate"]


def test_a_registration_wakes_the_watchers_of_its_service_and_nobody_else(tmp_path: Path) -> None:
    found = measured(ComitiaServers(1, tmp_path))
    assert (found.wakes, found.watchers, found.missed, found.woken_without_cause) == (5, 250, 0, 0)
    assert found.verdict is Verdict.VALID
    assert min(found.health_p50_ms, found.wake_p50_ms, found.registered_per_second) > 0
    assert any("0 woken without cause" in line for line in lines(found))


def test_an_index_that_all_services_share_is_found_out(tmp_path: Path) -> None:
    found = measured(MutatedServers(1, tmp_path))
    assert found.woken_without_cause > 0
    assert found.verdict is Verdict.INVALID


def test_sizes_that_make_no_sense_are_refused_with_what_is_needed() -> None:
    result = CliRunner().invoke(command, ["catalog", "--instances", "1000", "--services", "1000"])
    assert result.exit_code == 2  # click's own; the root maps it
    assert "1000 instances are too few" in result.output
