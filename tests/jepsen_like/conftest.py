"""What the tests that start real processes in namespaces share."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepsen_like.cluster import launch
from jepsen_like.cluster.api import ClusterSpec
from model_checks.verdicts import SetupFailed


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own."""
    monkeypatch.setenv("COMITIA_HOME", str(tmp_path))
    monkeypatch.delenv("SUDO_UID", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def a_machine_that_can(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips, with the reason, where namespaces or TUN devices are not allowed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMITIA_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("SUDO_UID", raising=False)
        try:
            launch.launch(ClusterSpec(servers=0), attached=True).end()
        except SetupFailed as error:
            pytest.skip(str(error))
