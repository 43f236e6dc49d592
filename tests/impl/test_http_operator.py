"""`/v1/operator/raft` and `/v1/agent/leave` as Consul's users know them, over an agent that notes what it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from impl.agent.describe import VERSION
from impl.agent.membership.operations import (
    AddPeer,
    Demote,
    Operation,
    Promote,
    RaftConfiguration,
    RaftServer,
    RemovePeer,
    ServerHealth,
    TransferLeader,
)
from impl.agent.requests.api import DefiniteError, IndefiniteError, NoClusterLeader, ReadOptions, ReadReply
from impl.catalog.queries import Query
from impl.catalog.registry_queries import ListNodes, NodesAnswer
from impl.catalog.rows import Node
from impl.http import autopilot, operator, routes
from impl.http.app import Application
from impl.http.context import Context, Request
from impl.http.response import Response
from tests.impl.asgi import ask

SERVERS = (
    RaftServer("id-1", "s1", "127.0.0.1:8300", True, True, 12),
    RaftServer("id-2", "s2", "127.0.0.1:8301", False, False, 11),
)


class Noting:
    """An agent whose cluster obeys, or refuses with `failure`."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.stale: list[bool] = []
        self.left = 0
        self.servers: tuple[RaftServer, ...] = SERVERS
        self.failure: Exception | None = None

    async def operate(self, operation: Operation) -> int:
        if self.failure is not None:
            raise self.failure
        self.operations.append(operation)
        return 9

    async def raft_configuration(self, stale: bool) -> RaftConfiguration:
        if self.failure is not None:
            raise self.failure
        self.stale.append(stale)
        return RaftConfiguration(self.servers, 7)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        assert query == ListNodes()
        return ReadReply(NodesAnswer(1, [Node("s1", "1", "id-1", meta={"rack": "a"})]), True, 0)

    async def leave(self) -> None:
        self.left += 1


class Client:
    """Calls the application as an ASGI server does: status and body."""

    def __init__(self) -> None:
        self.agent = Noting()
        agent: Any = self.agent
        self.app = Application(agent, "dc1", 1024, lambda what, error: pytest.fail(f"{what}: {error!r}"))

    def __call__(self, method: str, target: str, document: Any = None) -> tuple[int, bytes]:
        found = ask(self.app, method, target, [b"" if document is None else json.dumps(document).encode()])
        return found.status, found.body


@pytest.fixture
def client() -> Client:
    return Client()


def test_the_configuration_has_the_shape_of_consul(client: Client) -> None:
    status, body = client("GET", "/v1/operator/raft/configuration")
    assert status == 200
    assert json.loads(body) == {
        "Servers": [
            {
                "ID": "id-1",
                "Node": "s1",
                "Address": "127.0.0.1:8300",
                "Leader": True,
                "ProtocolVersion": "3",
                "Voter": True,
                "LastIndex": 12,
            },
            {
                "ID": "id-2",
                "Node": "s2",
                "Address": "127.0.0.1:8301",
                "Leader": False,
                "ProtocolVersion": "3",
                "Voter": False,
                "LastIndex": 11,
            },
        ],
        "Index": 7,
    }


def health(healthy: bool, contact_ms: int = 0) -> ServerHealth:
    return ServerHealth(healthy, healthy, contact_ms, 3, 1_600_000_000_500_000_000)


WELL = (
    RaftServer("id-1", "s1", "127.0.0.1:8300", True, True, 12, health=health(True)),
    RaftServer("id-2", "s2", "127.0.0.1:8301", False, True, 11, health=health(True, 23)),
    RaftServer("id-3", "s3", "127.0.0.1:8302", False, True, 12, health=health(True, 1)),
    RaftServer("id-4", "s4", "127.0.0.1:8303", False, False, 12, True, health(True, 1)),
)
ILL = (*WELL[:2], msgspec.structs.replace(WELL[2], health=health(False, -1)), WELL[3])


def autopilot_tells_who_is_well_and_how_many_may_fail(client: Client) -> None:
    client.agent.servers = WELL
    status, body = client("GET", "/v1/operator/autopilot/health")
    found = json.loads(body)
    assert (status, found["Healthy"], found["FailureTolerance"]) == (200, True, 1)
    assert found["Servers"][1] == {
        "ID": "id-2",
        "Name": "s2",
        "Address": "127.0.0.1:8301",
        "SerfStatus": "alive",
        "Version": VERSION,
        "Leader": False,
        "LastContact": "23ms",
        "LastTerm": 3,
        "LastIndex": 11,
        "Healthy": True,
        "Voter": True,
        "StableSince": "2020-09-13T12:26:40Z",
    }
    client.agent.servers = ILL
    status, body = client("GET", "/v1/operator/autopilot/health")
    found = json.loads(body)
    assert (status, found["Healthy"], found["FailureTolerance"]) == (429, False, 0)
    assert (found["Servers"][2]["SerfStatus"], found["Servers"][2]["LastContact"]) == ("failed", "-1ns")
    client.agent.failure = NoClusterLeader()
    assert client("GET", "/v1/operator/autopilot/health") == (500, b"No cluster leader")


def test_autopilot_tells_who_is_well_and_how_many_may_fail(client: Client) -> None:
    autopilot_tells_who_is_well_and_how_many_may_fail(client)


def test_autopilots_state_names_the_leader_and_what_each_server_is(client: Client) -> None:
    client.agent.servers = ILL
    status, body = client("GET", "/v1/operator/autopilot/state")
    found = json.loads(body)
    assert (status, found["Healthy"], found["FailureTolerance"]) == (200, False, 0)
    assert (found["Leader"], found["Voters"]) == ("id-1", ["id-1", "id-2", "id-3"])
    assert [found["Servers"][id]["Status"] for id in ("id-1", "id-2", "id-4")] == ["leader", "voter", "non-voter"]
    assert found["Servers"]["id-1"]["Meta"] == {"rack": "a"} and found["Servers"]["id-2"]["Meta"] == {}
    assert (found["Servers"]["id-4"]["ReadReplica"], found["Servers"]["id-4"]["NodeType"]) == (True, "read-replica")


def what_is_in_force_may_be_put_again_and_nothing_else(client: Client) -> None:
    target = "/v1/operator/autopilot/configuration"
    status, body = client("GET", target)
    assert status == 200
    for document in (json.loads(body), {}, {"lastcontactthreshold": 200_000_000, "MinQuorum": None}):
        assert client("PUT", target, document) == (200, b"true")
    assert client("PUT", f"{target}?cas=0", {}) == (200, b"true")
    assert client("PUT", f"{target}?cas=9", {}) == (200, b"false")
    for name, value in (("CleanupDeadServers", True), ("MaxTrailingLogs", 1), ("UpgradeVersionTag", "v")):
        status, text = client("PUT", target, {name: value})
        assert status == 400 and text.startswith(f"Autopilot's {name} is ".encode())


def test_what_is_in_force_may_be_put_again_and_nothing_else(client: Client) -> None:
    what_is_in_force_may_be_put_again_and_nothing_else(client)


@pytest.mark.parametrize(
    ("name", "mutant", "sentence"),
    [
        ("_tolerance", lambda servers: 1, autopilot_tells_who_is_well_and_how_many_may_fail),
        ("_all_healthy", lambda servers: True, autopilot_tells_who_is_well_and_how_many_may_fail),
        ("_contact", lambda found: "0s", autopilot_tells_who_is_well_and_how_many_may_fail),
        ("_is_in_force", lambda fields, name, value: True, what_is_in_force_may_be_put_again_and_nothing_else),
    ],
)
def test_an_autopilot_that_lies_is_noticed(
    monkeypatch: pytest.MonkeyPatch, client: Client, name: str, mutant: Any, sentence: Callable[[Client], None]
) -> None:
    monkeypatch.setattr(autopilot, name, mutant)
    with pytest.raises(AssertionError):
        sentence(client)


def test_a_stale_question_may_be_answered_by_any_server(client: Client) -> None:
    client("GET", "/v1/operator/raft/configuration")
    client("GET", "/v1/operator/raft/configuration?stale")
    assert client.agent.stale == [False, True]


def each_request_asks_for_the_operation_that_it_names() -> None:
    for method, target, operation, answer in (
        ("DELETE", "peer?id=id-2", RemovePeer(id="id-2"), b""),
        ("DELETE", "peer?address=127.0.0.1:8301", RemovePeer(address="127.0.0.1:8301"), b""),
        ("PUT", "peer?address=h:1&id=i&name=n", AddPeer("h:1", "i", "n", non_voter=False), b'{"Index":9}'),
        ("PUT", "peer?address=h:1&non-voter", AddPeer("h:1", non_voter=True), b'{"Index":9}'),
        ("PUT", "promote?id=id-2", Promote("id-2"), b'{"Index":9}'),
        ("PUT", "demote?id=id-2", Demote("id-2"), b'{"Index":9}'),
        ("POST", "transfer-leader", TransferLeader(), b'{"Success":true}'),
        ("PUT", "transfer-leader?id=id-2", TransferLeader("id-2"), b'{"Success":true}'),
    ):
        client = Client()
        assert client(method, f"/v1/operator/raft/{target}") == (200, answer)
        assert client.agent.operations == [operation]


def test_each_request_asks_for_the_operation_that_it_names() -> None:
    each_request_asks_for_the_operation_that_it_names()


async def demote_instead(context: Context, request: Request) -> Response:
    return await operator._change(context, request, Demote(request.parameters["id"]))


def test_a_request_that_asks_for_another_operation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ENDPOINTS, "/v1/operator/raft/promote", {"PUT": demote_instead})
    with pytest.raises(AssertionError):
        each_request_asks_for_the_operation_that_it_names()


@pytest.mark.parametrize(
    ("method", "target", "text"),
    [
        ("DELETE", "peer", "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"),
        ("DELETE", "peer?id=a&address=b", "Must specify only one of ?id or ?address"),
        ("PUT", "peer?id=a", "Must specify ?address with IP:port of the server to add"),
        ("PUT", "promote", "Must specify ?id with the ID of the server to promote"),
        ("PUT", "demote?id=", "Must specify ?id with the ID of the server to demote"),
    ],
)
def test_a_request_that_makes_no_sense_is_400_and_changes_nothing(
    client: Client, method: str, target: str, text: str
) -> None:
    assert client(method, f"/v1/operator/raft/{target}") == (400, text.encode())
    assert client.agent.operations == []


@pytest.mark.parametrize(
    "error", [DefiniteError("s9 is not a member"), IndefiniteError("leadership lost"), NoClusterLeader()]
)
def test_what_the_cluster_refuses_is_500_with_the_reason(client: Client, error: Exception) -> None:
    client.agent.failure = error
    assert client("PUT", "/v1/operator/raft/promote?id=s9") == (500, str(error).encode())
    assert client("GET", "/v1/operator/raft/configuration") == (500, str(error).encode())


def test_other_methods_are_refused_and_the_right_ones_named(client: Client) -> None:
    assert client("GET", "/v1/operator/raft/peer") == (405, b"method GET not allowed")
    assert client("POST", "/v1/agent/leave")[0] == 405
    assert client.agent.left == 0


def test_leave_ends_the_agent(client: Client) -> None:
    assert client("PUT", "/v1/agent/leave") == (200, b"")
    assert client.agent.left == 1
