"""The flags that every command has: which agent is asked, with what, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import comitia

ENVIRONMENT = (
    *("CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_SSL"),
    *("CONSUL_NAMESPACE", "CONSUL_PARTITION"),
)


class Recorder(HTTPServer):
    """Answers everything with an empty list, and keeps what it was asked: path and token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.logins: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(b"[]")

    def do_PUT(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self._answer(b"true")

    def _answer(self, body: bytes) -> None:
        assert isinstance(self.server, Recorder)
        self.server.logins.append(self.headers.get("Authorization", ""))
        self.server.asked.append((self.path, self.headers.get("X-Consul-Token", "")))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        comitia.main(list(words))
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_datacenter_is_asked_for_and_reads_may_be_stale(recorder: Recorder) -> None:
    both = ("-datacenter=dc2", "-stale")
    assert run("kv", "get", "-keys", *both, "a") == 0
    assert run("kv", "put", *both, "a", "b") == 0
    assert run("catalog", "nodes", *both) == 0
    assert run("kv", "export") == 0
    assert [path for path, _ in recorder.asked] == [
        "/v1/kv/a?keys=&separator=%2F&dc=dc2&stale=",
        "/v1/kv/a?dc=dc2",
        "/v1/catalog/nodes?dc=dc2&stale=",
        "/v1/kv/?recurse=",
    ]


def test_a_namespace_and_a_partition_are_sent_so_that_the_agent_refuses_them(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("kv", "put", "-namespace=n1", "-partition=p1", "a", "b") == 0
    monkeypatch.setenv("CONSUL_NAMESPACE", "n2")
    monkeypatch.setenv("CONSUL_PARTITION", "p2")
    assert run("kv", "put", "-flags=0x2a", "a", "b") == 0
    assert run("kv", "put", "-partition=p3", "a", "b") == 0
    assert [path for path, _ in recorder.asked] == [
        "/v1/kv/a?ns=n1&partition=p1",
        "/v1/kv/a?flags=42&ns=n2&partition=p2",
        "/v1/kv/a?ns=n2&partition=p3",
    ]


def services_of_files_are_registered_with_what_flags_add(recorder: Recorder, directory: Path) -> None:
    (directory / "agent.hcl").write_text('datacenter = "dc1"')
    text = 'name = "web" port = 80 tags = ["a"] meta { x = "1" } weights { passing = 5 }'
    (directory / "web.hcl").write_text(f"service {{ {text} }}")
    flags = ("-port=81", "-address=10.0.0.1", "-tag=b", "-meta=y=2=3", "-tagged-address=wan=[::1]:82")
    assert run("services", "register", *flags, str(directory)) == 0
    assert json.loads(recorder.bodies[-1]) == {
        "name": "web",
        "port": 80,
        "Address": "10.0.0.1",
        "tags": ["a", "b"],
        "meta": {"x": "1", "y": "2=3"},
        "weights": {"passing": 5, "warning": 1},
        "TaggedAddresses": {"wan": {"Address": "::1", "Port": 82}},
    }
    assert run("services", "deregister", str(directory)) == 0
    assert recorder.asked[-1][0] == "/v1/agent/service/deregister/web"


def test_services_of_files_are_registered_with_what_flags_add(recorder: Recorder, tmp_path: Path) -> None:
    services_of_files_are_registered_with_what_flags_add(recorder, tmp_path)


def test_flags_that_are_not_added_are_noticed(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impl.cli.registry._combined", lambda definition, described: definition)
    with pytest.raises(AssertionError):
        services_of_files_are_registered_with_what_flags_add(recorder, tmp_path)


def test_a_proxy_before_the_agent_is_told_who_asks_and_where_the_agent_is(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_AUTH", "me:secret")
    assert run("kv", "get", "-keys", f"-http-addr=http://127.0.0.1:{recorder.server_port}/consul/", "a") == 0
    assert recorder.asked[-1][0] == "/consul/v1/kv/a?keys=&separator=%2F"
    assert recorder.logins[-1] == "Basic bWU6c2VjcmV0"
    monkeypatch.delenv("CONSUL_HTTP_AUTH")
    assert (run("kv", "export"), recorder.logins[-1]) == (0, "")


def test_a_watch_asks_for_all_tags_and_filters(recorder: Recorder) -> None:
    assert run("watch", "-type=service", "-service=a", "-tag=b", "-tag=c", "-filter=Node.Node == x") == 0
    assert recorder.asked[-1][0] == "/v1/health/service/a?tag=b&tag=c&filter=Node.Node+%3D%3D+x"
    assert run("watch", "-type=nodes", "-filter=Node == x") == 0
    assert recorder.asked[-1][0] == "/v1/catalog/nodes?filter=Node+%3D%3D+x"


def test_the_token_is_the_one_that_consul_would_send(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("of-file\n")
    second.write_text("of-the-environments-file\n")

    def sent(*flags: str) -> str:
        assert run("kv", "get", "-keys", *flags) == 0
        return recorder.asked[-1][1]

    assert sent() == ""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of-environment")
    assert sent() == "of-environment"
    monkeypatch.setenv("CONSUL_HTTP_TOKEN_FILE", str(second))
    assert sent() == "of-the-environments-file"
    assert sent("-token=of-flag") == "of-flag"
    assert sent("-token=of-flag", f"-token-file={first}") == "of-file"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("kv", "get", "-ca-file=a.pem", "a"), "-ca-file: the HTTP API of Comitia has no TLS yet: leave it out"),
        (("members", "-tls-server-name=x"), "-tls-server-name: the HTTP API of Comitia has no TLS yet"),
        (("info", "-http-addr=https://127.0.0.1:1"), "has no TLS yet: use http://"),
        (("kv", "get", "-token-file=no-such-file", "a"), "Error loading token file no-such-file"),
        (("kv", "get", "-token=a\nb", "a"), "a token is printable ASCII"),
        (("join", "-datacenter=dc1", "a"), "flag provided but not defined: -datacenter"),
    ],
)
def test_what_cannot_be_is_refused(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    assert run(*words) == 1
    assert text in capsys.readouterr().err
    assert not recorder.asked


def test_tls_from_the_environment_is_refused(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    assert run("kv", "get", "-keys") == 1
    assert "CONSUL_HTTP_SSL: the HTTP API of Comitia has no TLS yet" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["kv get", "catalog services", "operator raft list-peers", "snapshot save", "lock"])
def test_help_teaches_the_flags(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(*command.split(), "-help") == 0
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in ("http-addr", "token", "token-file", "ca-file", "datacenter", "stale"))
