"""Golden scripts: what the core does, line by line, in `scripts/*.txt`. Read their diff like a change of the protocol.

To write them anew after an intended change: COMITIA_REWRITE=1 pytest tests/impl/test_core_scripts.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_checks.stateful.mutants import applied
from model_checks.stateful.script import rewrite

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_core_does_what_the_script_says(path: Path) -> None:
    golden = path.read_text()
    actual = rewrite(golden)
    if os.environ.get("COMITIA_REWRITE") == "1":
        path.write_text(actual)
        golden = actual
    assert actual == golden


def test_a_change_of_behaviour_changes_a_script() -> None:
    path = next(path for path in SCRIPTS if path.stem == "replication")
    with applied("leader-counts-memory"), pytest.raises(AssertionError):
        assert rewrite(path.read_text()) == path.read_text()


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 12
