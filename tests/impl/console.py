"""`comitia` as a user has it beside an agent, for tests of commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import comitia
from tests.impl.agent_processes import ROOT, AgentProcess, eventually


class Console:
    """An agent, and `comitia` to speak with it, in this process or in one of its own."""

    def __init__(self) -> None:
        self.agent = AgentProcess("-dev", "-node", "s1", "-server-port", "0").started()
        self.address = f"127.0.0.1:{self.agent.http_port}"

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        with pytest.raises(SystemExit) as stop:
            comitia.main(list(words))
        found = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, found.out, found.err

    def start(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, str(ROOT / "comitia.py"), *words], text=True, **how)

    def key(self, key: str) -> dict[str, Any] | None:
        status, body = self.agent.request("GET", f"/v1/kv/{key}")
        found: dict[str, Any] | None = json.loads(body)[0] if status == 200 else None
        return found

    def register(self, node: str, **more: Any) -> None:
        body = json.dumps({"Node": node, "Address": "10.0.0.1", **more}).encode()
        assert self.agent.request("PUT", "/v1/catalog/register", body) == (200, b"true")


def served() -> Iterator[Console]:
    """A console whose agent's node is registered: a session depends on its health. For fixtures."""
    console = Console()
    eventually(lambda: b"serfHealth" in console.agent.request("GET", "/v1/health/node/s1")[1], "s1 is registered")
    yield console
    assert console.agent.terminate() == 0
