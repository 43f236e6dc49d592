"""curl, as in Consul's tutorials and API documentation, word for word but for the port and what a run decides.

Sources: Consul, "Key/Value Data" (getting started), "Application Leader Election with Sessions", and the sample
requests of the KV, Session, Agent Service, Health, Catalog and Transaction HTTP APIs. Indexes and the ids of sessions
are those of the run. Answers are compared as they are where the page says what they hold, and by their shape elsewhere:
each documented field is there, and of its JSON type.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.impl.agent_processes import ROOT, AgentProcess, eventually

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


class Shell:
    """Runs a page's commands where its files are, against one agent."""

    def __init__(self, agent: AgentProcess, directory: Path) -> None:
        self._agent, self._directory = agent, directory
        self.shown = ""
        """What the last command showed beside its output (`-v`)."""

    def __call__(self, command: str) -> str:
        """The output of a command line, which names Consul's port 8500."""
        assert ":8500/" in command
        line = command.replace(":8500/", f":{self._agent.http_port}/")
        done = subprocess.run(
            ["bash", "-c", line], cwd=self._directory, capture_output=True, text=True, timeout=30, check=True
        )
        self.shown = done.stderr
        return done.stdout

    def json(self, command: str) -> Any:
        return json.loads(self(command))

    def payload(self, text: str) -> None:
        """The page's payload.json."""
        (self._directory / "payload.json").write_text(text)


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    agent = AgentProcess("-dev", "-node", "foobar", "-server-port", "0", "-enable-script-checks").started()
    try:
        eventually(lambda: json.loads(agent.request("GET", "/v1/health/node/foobar")[1]), "the node is registered")
        yield agent
    finally:
        agent.terminate()


@pytest.fixture
def sh(agent: AgentProcess, tmp_path: Path) -> Shell:
    agent.request("DELETE", "/v1/kv/?recurse")
    return Shell(agent, tmp_path)


ENTERPRISE = {"Namespace"}
"""Fields that the pages show and Consul without its enterprise features does not send."""
USERS_OWN = {"Meta", "TaggedAddresses"}
"""Fields whose keys are the user's own."""


def has_shape(found: Any, documented: Any, where: str = "the answer") -> None:
    """Each documented field is there, of its JSON type; each element of a list has the documented shape."""
    if documented is None or found is None:
        return  # the pages show null where others show a list
    assert type(found) is type(documented), (where, found)
    if isinstance(documented, dict):
        for name, value in documented.items():
            if name not in ENTERPRISE:
                assert name in found, f"{where} lacks {name}"
                has_shape(found[name], {} if name in USERS_OWN else value, f"{where}.{name}")
    if isinstance(documented, list) and documented:
        for each in found:
            has_shape(each, documented[0], f"{where}[]")


def test_key_value_data(sh: Shell) -> None:
    """The page of that name, from its first command to its last."""
    assert sh("curl -v http://localhost:8500/v1/kv/?recurse") == ""
    assert "< HTTP/1.1 404 Not Found" in sh.shown and "< X-Consul-Index: " in sh.shown
    assert "< content-length: 0" in sh.shown.lower()

    assert sh("curl -X PUT -d 'test' http://localhost:8500/v1/kv/web/key1") == "true\n"
    assert sh("curl -X PUT -d 'test' http://localhost:8500/v1/kv/web/key2?flags=42") == "true\n"
    assert sh("curl -X PUT -d 'test'  http://localhost:8500/v1/kv/web/sub/key3") == "true\n"
    rows = sh.json("curl http://localhost:8500/v1/kv/?recurse")
    first = rows[0]["ModifyIndex"]

    def documented(key: str, index: int, flags: int = 0) -> dict[str, Any]:
        return {"CreateIndex": index, "ModifyIndex": index, "Key": key, "Flags": flags, "Value": "dGVzdA=="}

    wanted = [
        documented("web/key1", first),
        documented("web/key2", first + 1, 42),
        documented("web/sub/key3", first + 2),
    ]
    assert [{**row, **each} for row, each in zip(rows, wanted, strict=True)] == rows

    assert sh.json("curl http://localhost:8500/v1/kv/web/key1") == rows[:1]
    sh("curl -X DELETE http://localhost:8500/v1/kv/web/sub?recurse")
    assert sh.json("curl http://localhost:8500/v1/kv/web?recurse") == rows[:2]

    assert sh(f"curl -X PUT -d 'newval' http://localhost:8500/v1/kv/web/key1?cas={first}") == "true\n"
    assert sh(f"curl -X PUT -d 'newval' http://localhost:8500/v1/kv/web/key1?cas={first}") == "false\n"

    index = first + 1
    assert sh.json(f'curl "http://localhost:8500/v1/kv/web/key2?index={index}&wait=1s"') == rows[1:2]


def test_a_blocking_query_answers_when_the_value_changes(sh: Shell) -> None:
    sh("curl -X PUT -d 'test' http://localhost:8500/v1/kv/web/key2?flags=42")
    (row,) = sh.json("curl http://localhost:8500/v1/kv/web/key2")
    query = f'curl "http://localhost:8500/v1/kv/web/key2?index={row["ModifyIndex"]}&wait=20s"'
    (changed,) = sh.json(f"{query} & curl -s -o changed -X PUT -d 'new' http://localhost:8500/v1/kv/web/key2; wait")
    assert changed["Value"] == "bmV3" and changed["ModifyIndex"] > row["ModifyIndex"]


def test_the_kv_api(sh: Shell, tmp_path: Path) -> None:
    (tmp_path / "contents").write_bytes(b"line\nline\x00")
    put = "curl --request PUT --data @contents http://127.0.0.1:8500/v1/kv/my-key"
    assert sh(put) == "true\n", "curl strips line ends and NUL"
    assert sh("curl http://127.0.0.1:8500/v1/kv/my-key?raw") == "lineline"
    assert sh("curl --request PUT --data-binary @contents http://127.0.0.1:8500/v1/kv/my-key") == "true\n"
    (row,) = sh.json("curl \\\n    http://127.0.0.1:8500/v1/kv/my-key")
    has_shape(
        [row], [{"CreateIndex": 1, "ModifyIndex": 2, "LockIndex": 2, "Key": "zip", "Flags": 0, "Value": "dGVzdA=="}]
    )
    assert row["Value"] == "bGluZQpsaW5lAA=="
    for key in ("bar", "foo", "subdir/x"):
        sh(f"curl -X PUT -d '' http://127.0.0.1:8500/v1/kv//web/{key}")
    listed = sh.json("curl 'http://127.0.0.1:8500/v1/kv//web/?keys&separator=/'")
    assert listed == ["/web/bar", "/web/foo", "/web/subdir/"]
    assert sh("curl --request DELETE http://127.0.0.1:8500/v1/kv/my-key") == "true\n"


def test_application_leader_election_with_sessions(sh: Shell) -> None:
    created = sh.json("""curl  -X PUT -d '{"Name": "mysql-session"}' http://localhost:8500/v1/session/create""")
    session = created["ID"]
    has_shape(created, {"ID": "4ca8e74b-6350-7587-addf-a18084928f3c"})
    acquire = f"curl -X PUT -d body http://localhost:8500/v1/kv/service/mysql/leader?acquire={session}"
    assert sh(acquire) == "true\n" and sh(acquire) == "true\n", "who holds it holds it"
    other = sh.json("""curl  -X PUT -d '{"Name": "mysql-session"}' http://localhost:8500/v1/session/create""")["ID"]
    assert sh(acquire.replace(session, other)) == "false\n"

    (row,) = sh.json("curl -X GET http://localhost:8500/v1/kv/service/mysql/leader")
    assert {
        "Session": session,
        "Value": "Ym9keQ==",
        "Flags": 0,
        "Key": "service/mysql/leader",
        "LockIndex": 1,
    }.items() <= row.items()
    info = sh.json(f"curl -X GET http://localhost:8500/v1/session/info/{session}")
    has_shape(
        info, [{"LockDelay": 15000000000, "Node": "n", "Name": "mysql-session", "ID": session, "CreateIndex": 28}]
    )
    assert info[0]["LockDelay"] == 1.5e10 and info[0]["NodeChecks"] == ["serfHealth"]

    assert sh(f"curl -X PUT http://localhost:8500/v1/kv/service/mysql/leader?release={session}") == "true\n"
    (row,) = sh.json("curl -X GET http://localhost:8500/v1/kv/service/mysql/leader")
    assert "Session" not in row and row["LockIndex"] == 1
    assert sh(acquire.replace(session, other)) == "true\n", "released: there is no lock-delay"


def test_the_session_api(sh: Shell, agent: AgentProcess) -> None:
    for check in ("a", "b", "c"):
        agent.request(
            "PUT", "/v1/agent/check/register", json.dumps({"Name": check, "TTL": "1h", "Status": "passing"}).encode()
        )
    eventually(lambda: len(json.loads(agent.request("GET", "/v1/health/node/foobar")[1])) >= 4, "the catalog has them")
    sh.payload(
        """{
  "LockDelay": "15s",
  "Name": "my-service-lock",
  "Node": "foobar",
  "Checks": ["a", "b", "c"],
  "Behavior": "release",
  "TTL": "30s"
}"""
    )
    session = sh.json("curl --request PUT --data @payload.json http://127.0.0.1:8500/v1/session/create")["ID"]
    documented = {
        "ID": "adf4238a-882b-9ddc-4a9d-5b6758e4159e",
        "Name": "test-session",
        "Node": "raja-laptop-02",
        "LockDelay": 15000000000,
        "Behavior": "release",
        "TTL": "30s",
        "NodeChecks": ["serfHealth"],
        "ServiceChecks": None,
        "CreateIndex": 1086449,
        "ModifyIndex": 1086449,
    }
    for command in (
        f"curl http://127.0.0.1:8500/v1/session/info/{session}",
        "curl http://127.0.0.1:8500/v1/session/list",
        "curl http://127.0.0.1:8500/v1/session/node/foobar",
        f"curl --request PUT http://127.0.0.1:8500/v1/session/renew/{session}",
    ):
        answer = sh.json(command)
        has_shape(answer, [documented])
        (mine,) = (each for each in answer if each["ID"] == session)
        assert (mine["LockDelay"], mine["TTL"]) == (15 * 10**9, "30s")
        assert mine["NodeChecks"] == ["a", "b", "c", "serfHealth"], "`Checks` leave the default of `NodeChecks` alone"
        assert list(mine) == list(documented), "in this order, and nothing else"
    assert sh(f"curl --request PUT http://127.0.0.1:8500/v1/session/destroy/{session}") == "true\n"
    assert sh(f"curl http://127.0.0.1:8500/v1/session/info/{session}") == "[]\n"


def test_the_agent_service_api(sh: Shell, tmp_path: Path) -> None:
    sh.payload(
        """{
  "ID": "redis1",
  "Name": "redis",
  "Tags": ["primary", "v1"],
  "Address": "127.0.0.1",
  "Port": 8000,
  "Meta": {
    "redis_version": "4.0"
  },
  "EnableTagOverride": false,
  "Check": {
    "DeregisterCriticalServiceAfter": "90m",
    "Args": ["/usr/local/bin/check_redis.py"],
    "Interval": "10s",
    "Timeout": "5s"
  },
  "Weights": {
    "Passing": 10,
    "Warning": 1
  }
}"""
    )
    register = "curl --request PUT --data @payload.json http://127.0.0.1:8500/v1/agent/service/register"
    assert sh(f"{register}?replace-existing-checks=true") == ""
    redis = {
        "ID": "redis",
        "Service": "redis",
        "Tags": [],
        "Meta": {"redis_version": "4.0"},
        "Namespace": "default",
        "Port": 8000,
        "Address": "",
        "EnableTagOverride": False,
        "Datacenter": "dc1",
        "Weights": {"Passing": 10, "Warning": 1},
    }
    services = sh.json("curl http://127.0.0.1:8500/v1/agent/services")
    has_shape(services, {"redis1": redis})
    assert services["redis1"]["Weights"] == {"Passing": 10, "Warning": 1}
    has_shape(
        sh.json("curl http://127.0.0.1:8500/v1/agent/service/redis1"), {**redis, "ContentHash": "4ecd29c7bc647ca8"}
    )

    assert sh('curl "http://localhost:8500/v1/agent/health/service/name/redis?format=text"') == "critical"
    (health,) = sh.json("curl localhost:8500/v1/agent/health/service/name/redis")
    has_shape(health, {"AggregatedStatus": "critical", "Service": redis, "Checks": [CHECK]})
    maintenance = "http://127.0.0.1:8500/v1/agent/service/maintenance/redis1?enable=true&reason=For+the+docs"
    assert sh(f'curl --request PUT "{maintenance}"') == ""
    assert sh('curl "http://localhost:8500/v1/agent/health/service/id/redis1?format=text"') == "maintenance"
    assert sh("curl --request PUT http://127.0.0.1:8500/v1/agent/service/deregister/redis1") == ""
    assert "redis1" not in sh.json("curl http://127.0.0.1:8500/v1/agent/services")


CHECK = {
    "Node": "foobar",
    "CheckID": "service:redis",
    "Name": "Service 'redis' check",
    "Status": "passing",
    "Notes": "",
    "Output": "",
    "ServiceID": "redis",
    "ServiceName": "redis",
    "ServiceTags": ["primary"],
    "Namespace": "default",
}
NODE = {
    "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
    "Node": "foobar",
    "Address": "10.1.10.12",
    "Datacenter": "dc1",
    "TaggedAddresses": {"lan": "10.1.10.12", "wan": "10.1.10.12"},
    "Meta": {"instance_type": "t2.medium"},
}
REGISTRATION = """{
  "Datacenter": "dc1",
  "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
  "Node": "t2.320",
  "Address": "10.1.10.12",
  "TaggedAddresses": {
    "lan": "10.1.10.12",
    "wan": "10.1.10.12"
  },
  "NodeMeta": {
    "instance_type": "t2.medium"
  },
  "Service": {
    "ID": "redis1",
    "Service": "redis",
    "Tags": ["primary", "v1"],
    "Address": "10.1.10.12",
    "TaggedAddresses": {
      "lan": {
        "address": "127.0.0.1",
        "port": 8000
      },
      "wan": {
        "address": "198.18.0.1",
        "port": 80
      }
    },
    "Meta": {
      "redis_version": "4.0"
    },
    "Port": 8000,
    "Weights": {"Passing": 10, "Warning": 1}
  },
  "Check": {
    "Node": "t2.320",
    "CheckID": "service:redis1",
    "Name": "Redis health check",
    "Notes": "Script based health check",
    "Status": "passing",
    "ServiceID": "redis1",
    "Definition": {
      "TCP": "localhost:8888",
      "Interval": "5s",
      "Timeout": "1s",
      "DeregisterCriticalServiceAfter": "30s"
    }
  },
  "SkipNodeUpdate": false
}"""
"""payload.json of "Register Entity"."""
DEREGISTRATION = '{\n  "Datacenter": "dc1",\n  "Node": "t2.320"\n}'


@pytest.fixture
def registered(sh: Shell) -> Iterator[None]:
    """The node of the pages, with its redis and its check, is in the catalog while a test runs."""
    sh.payload(REGISTRATION)
    assert sh("curl --request PUT --data @payload.json http://127.0.0.1:8500/v1/catalog/register") == "true\n"
    yield
    sh.payload(DEREGISTRATION)
    assert sh("curl --request PUT --data @payload.json http://127.0.0.1:8500/v1/catalog/deregister") == "true\n"


@pytest.mark.usefixtures("registered")
def test_the_catalog_api(sh: Shell) -> None:
    assert sh.json("curl http://127.0.0.1:8500/v1/catalog/datacenters") == ["dc1"]
    has_shape(sh.json("curl http://127.0.0.1:8500/v1/catalog/nodes"), [NODE])
    assert sh.json("curl http://127.0.0.1:8500/v1/catalog/services")["redis"] == ["primary", "v1"]
    (row,) = sh.json("curl http://127.0.0.1:8500/v1/catalog/service/redis")
    assert (row["ServiceTaggedAddresses"]["wan"], row["NodeMeta"]) == (
        {"Address": "198.18.0.1", "Port": 80},
        {"instance_type": "t2.medium"},
    )
    node = sh.json("curl http://127.0.0.1:8500/v1/catalog/node/t2.320")
    has_shape(
        node, {"Node": NODE, "Services": {"redis1": {"ID": "redis1", "Service": "redis", "Port": 8000, "Tags": []}}}
    )


@pytest.mark.usefixtures("registered")
def test_the_health_api(sh: Shell) -> None:
    health = sh.json("curl http://127.0.0.1:8500/v1/health/service/redis")
    service = {
        "ID": "redis",
        "Service": "redis",
        "Tags": ["primary"],
        "Address": "10.1.10.12",
        "Meta": {"redis_version": "4.0"},
        "Port": 8000,
        "Weights": {"Passing": 10, "Warning": 1},
        "Namespace": "default",
    }
    has_shape(health, [{"Node": NODE, "Service": service, "Checks": [CHECK]}])
    assert sh.json("curl 'http://localhost:8500/v1/health/service/redis?passing'") == health
    get, expression = "curl --get http://127.0.0.1:8500/v1/health/service/redis", 'Service.Meta.redis_version == "4.0"'
    filtered = f"{get} --data-urlencode 'filter={expression}'"
    assert sh.json(filtered) == health
    for path in ("node/t2.320", "checks/redis", "state/passing"):
        has_shape(sh.json(f"curl http://127.0.0.1:8500/v1/health/{path}"), [CHECK])


def test_the_transaction_api(sh: Shell) -> None:
    node = {
        "ID": "67539c9d-b948-ba67-edd4-d07a676d6673",
        "Node": "bar",
        "Address": "192.168.0.1",
        "Datacenter": "dc1",
        "Meta": {"instance_type": "m2.large"},
    }
    key = {"Verb": "set", "Key": "txn", "Value": "dGVzdA==", "Flags": 0, "Index": 0, "Session": ""}
    web = {"Verb": "set", "Node": "bar", "Service": {"ID": "web1", "Service": "web"}}
    check = {
        "Node": "bar",
        "CheckID": "service:web1",
        "Name": "Web HTTP Check",
        "Status": "critical",
        "ServiceID": "web1",
        "ServiceName": "web",
        "ServiceTags": None,
        "Definition": {"HTTP": "http://localhost:8080", "Interval": "10s"},
        "ModifyIndex": 0,
    }
    operations = [
        {"KV": key},
        {"Node": {"Verb": "set", "Node": node}},
        {"Service": web},
        {"Check": {"Verb": "cas", "Check": check}},
    ]
    put = "curl \\\n    --request PUT \\\n    --data @payload.json \\\n    http://127.0.0.1:8500/v1/txn"
    sh.payload(json.dumps(operations))
    done = sh.json(put)
    indexes = {"CreateIndex": 22, "ModifyIndex": 35}
    has_shape(done["Results"][0], {"KV": {"LockIndex": 0, "Key": "k", "Flags": 0, **indexes}})
    has_shape(done["Results"][1], {"Node": {**node, **indexes}})
    has_shape(
        done["Results"][3], {"Check": {"Node": "bar", "Status": "critical", "Notes": "", "Output": "", **indexes}}
    )
    assert done["Errors"] is None and done["Results"][0]["KV"]["Value"] is None, "saved: it is no get"

    failed = sh.json(put)
    assert failed["Results"] is None and [each["OpIndex"] for each in failed["Errors"]] == [3]
    has_shape(failed["Errors"], [{"OpIndex": 3, "What": "text"}])


def test_an_agent_that_differs_is_noticed(tmp_path: Path) -> None:
    command = (sys.executable, str(ROOT / "tests/mutants"), "key-error-let-through")
    agent = AgentProcess("-dev", "-server-port", "0", command=command).started()
    try:
        sh = Shell(agent, tmp_path)
        eventually(lambda: json.loads(agent.request("GET", "/v1/catalog/nodes")[1]), "the node is registered")
        assert sh("curl -X PUT -d '{}' http://localhost:8500/v1/session/create").startswith("internal error")
        with pytest.raises(json.JSONDecodeError):
            sh.json("curl -X PUT -d '{}' http://localhost:8500/v1/session/create")
    finally:
        agent.terminate()
    with pytest.raises(AssertionError, match="lacks Output"):
        has_shape([{name: value for name, value in CHECK.items() if name != "Output"}], [CHECK])
