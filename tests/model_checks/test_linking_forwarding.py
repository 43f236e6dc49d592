"""Every step of the readable forwarding, in its composition, is a step of the relational model that is proved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from model_checks.explore import forwarding_mutants
from model_checks.explore.forwarding import WRITE
from model_checks.explore.forwarding_world import Bounds
from model_checks.linking import forwarding
from model_checks.linking.command import command
from model_checks.linking.concrete import Do
from model_checks.linking.forwarding import (
    AT_ONE_SERVER,
    CRASHES,
    DEFAULT_READS,
    READS,
    STALE_READS,
    WRITES,
    link_forwarding,
)
from model_checks.verdicts import Verdict

FORWARDS = Bounds(requests=(WRITE,), calls=2, crashes=0, entrances=AT_ONE_SERVER, clients=())


@pytest.mark.timeout(300)
def test_every_step_of_forwarding_is_a_step_of_the_proved_model() -> None:
    checked = link_forwarding()
    assert checked.reason == ""
    assert checked.verdict is Verdict.VALID
    assert checked.figures["linked"] > 1_000
    assert all(checked.figures["by_model_action"].values())


def test_a_model_that_is_used_in_part_is_not_linked() -> None:
    checked = link_forwarding((STALE_READS,))
    assert checked.verdict is Verdict.UNKNOWN
    assert "send_call" in checked.reason


@pytest.mark.parametrize(
    ("mutant", "bounds", "missing"),
    [
        ("retry_write_after_lost_connection", WRITES, "connection_lost"),
        ("refuse_after_lost_connection", WRITES, "connection_lost"),
        ("forward_what_was_forwarded", FORWARDS, "the guard of dial is false"),
        ("refuse_at_timeout", CRASHES, "hold_timeout"),
        ("refuse_after_append", CRASHES, "leadership_lost"),
        ("read_before_applied", READS, "the guard of answer_read is false"),
        ("read_outlives_unconfirmed", READS, "leadership_lost"),
        ("lease_too_long", DEFAULT_READS, "the guard of lease_read is false"),
    ],
)
def test_a_broken_forwarding_is_no_step_of_the_model(mutant: str, bounds: Bounds, missing: str) -> None:
    with forwarding_mutants.applied_mutant(forwarding_mutants.MUTANTS[mutant]):
        checked = link_forwarding((bounds,))
    assert checked.verdict is Verdict.INVALID
    assert missing in checked.reason


def test_a_channel_that_delivers_twice_is_no_step_of_the_model() -> None:
    with forwarding_mutants.applied_mutant(forwarding_mutants.MUTANTS["duplicate_calls"]):
        checked = link_forwarding((WRITES,))
    assert checked.verdict is Verdict.INVALID
    assert "handle_call" in checked.reason


def test_a_claim_that_is_wrong_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed by a step's name is checked against both states."""

    def stutters(*arguments: Any) -> list[tuple[Do, ...]]:
        return [()]

    monkeypatch.setattr(forwarding, "claimed", stutters)
    checked = link_forwarding((STALE_READS,))
    assert checked.verdict is Verdict.INVALID
    assert "a stutter:" in checked.reason


def test_the_command_reports_counts_and_refuses_what_is_of_raft() -> None:
    done = CliRunner().invoke(command, ["--spec", "forwarding", "--json"], standalone_mode=False)
    report = json.loads(done.stdout)
    assert (done.return_value, report["verdict"]) == (0, "VALID")
    assert f"{report['figures']['linked']:,} local steps linked" in report["summary"]
    refused = CliRunner().invoke(command, ["--spec", "forwarding", "--mutant", "ack_before_durable"])
    assert refused.exit_code == 2
    assert "--spec raft" in refused.stderr
