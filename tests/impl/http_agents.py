"""A `-dev` agent with a service, a check, a key and a session, to be asked everything that the HTTP API takes."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.impl.agent_processes import AgentProcess, eventually
from tests.impl.http_routes import UNKNOWN_SESSION, Line


class PreparedAgent(AgentProcess):
    """The node `dev`; `session` is one that it holds."""

    session = UNKNOWN_SESSION

    @classmethod
    @contextlib.contextmanager
    def running(cls, *command: str) -> Iterator[PreparedAgent]:
        """One that has started, and ends afterwards. `command`: how to start an agent, if not `comitia agent`."""
        # With -dev all answers would be pretty.
        directory = tempfile.mkdtemp(prefix="comitia-test-")
        flags = ("-server", "-bootstrap-expect", "1", "-data-dir", directory, "-node", "dev", "-server-port", "0")
        agent = cls(*flags, command=command)
        try:
            agent.started()
            agent.prepare()
            yield agent
        finally:
            agent.terminate()
            shutil.rmtree(directory, ignore_errors=True)

    def prepare(self) -> None:
        """Register and write."""
        eventually(lambda: self.request("GET", "/v1/health/node/dev")[1] not in (b"", b"[]"), "the node is registered")
        self.do("PUT", "/v1/agent/service/register", {"Name": "web", "Check": {"TTL": "1h", "Status": "passing"}})
        self.do("PUT", "/v1/agent/check/register", {"Name": "c", "TTL": "1h", "Status": "passing"})
        self.put("k", "v")
        self.session = json.loads(self.do("PUT", "/v1/session/create", {"Name": "mine"}))["ID"]

    def do(self, method: str, path: str, document: Any = None) -> bytes:
        """As `ask`, of what must succeed."""
        status, answer = self.ask(method, path, document)
        assert status == 200, (method, path, status, answer)
        return answer

    def ask(
        self, method: str, path: str, document: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send bytes, or a JSON document."""
        body = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
        return self.request(method, path.format(session=self.session, node="dev"), body, headers=headers)

    def of(
        self, line: Line, rest: str | None = None, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Ask what a line describes, perhaps with another rest."""
        return self.ask(line.method, line.endpoint + (line.rest if rest is None else rest), body, headers)

    def index(self) -> str:
        """The commit index: a request that wrote nothing left it alone."""
        return str(self.raft()["commit_index"])
