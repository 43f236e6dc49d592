"""A recorded run of the spec in which everything happens: what conformance accepts, until something is altered."""

from __future__ import annotations

import msgspec
import pytest

from model_checks.conformance.spec_nodes import Lines
from model_checks.conformance.spec_runs import rich_run


@pytest.fixture(scope="session")
def good_run() -> Lines:
    """A run with elections, crashes, commits, reads and answers of every kind, and with every feature."""
    return rich_run(6_000)


@pytest.fixture
def lines(good_run: Lines) -> Lines:
    """The good run, to be tampered with."""
    copy: Lines = msgspec.json.decode(msgspec.json.encode(good_run))
    return copy
