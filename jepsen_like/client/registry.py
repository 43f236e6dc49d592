"""Consul's catalog, health and agent APIs for a test: every call returns what happened as a value. Source: Consul,
"Catalog", "Health" and "Agent" HTTP APIs.

An instance `SERVICE/NUMBER` stands on a node of its own without an agent; its version is in the metadata of the
service, its status that of its only check.
"""

from __future__ import annotations

import msgspec

from jepsen_like.client.http import Response
from jepsen_like.client.kv import Answered, KvClient, Unanswered
from jepsen_like.generator.values import Ending

UNKNOWN_SERVICE = 404
TTL = "600s"
"""Of checks at agents: they change when they are told to, not by themselves."""
STATUS_VERBS = {"passing": "pass", "critical": "fail"}


class _Service(msgspec.Struct, frozen=True):
    ID: str
    Meta: dict[str, str] | None = None


class _Check(msgspec.Struct, frozen=True):
    ServiceID: str
    Status: str


class _Instance(msgspec.Struct, frozen=True):
    Service: _Service
    Checks: list[_Check]


_instances = msgspec.json.Decoder(list[_Instance])
_services = msgspec.json.Decoder(dict[str, _Service])
_checks = msgspec.json.Decoder(dict[str, _Check])

State = tuple[int, str]
"""(version, status)."""


class Health(msgspec.Struct, frozen=True):
    """An answer of /v1/health/service: X-Consul-Index, and the state of each instance that it shows."""

    index: int
    instances: dict[str, State]


class RegistryClient:
    """The registry at one agent. One call at a time."""

    def __init__(self, kv: KvClient, timeout_s: float) -> None:
        self._kv = kv
        self._timeout_s = timeout_s

    async def register(self, instance: str, version: int, status: str) -> Answered[bool] | Unanswered:
        """Node, instance and check in one entry."""
        service = instance.rpartition("/")[0]
        check = {"CheckID": f"check:{instance}", "Name": "check", "Status": status, "ServiceID": instance}
        body = {
            "Node": _node(instance),
            "Address": "127.0.0.1",
            "Service": {"ID": instance, "Service": service, "Meta": {"version": str(version)}},
            "Check": check,
        }
        return _done(await self._ask("PUT", "/v1/catalog/register", body))

    async def deregister(self, instance: str) -> Answered[bool] | Unanswered:
        """The instance, with its check; the node stays."""
        body = {"Node": _node(instance), "ServiceID": instance}
        return _done(await self._ask("PUT", "/v1/catalog/deregister", body))

    async def health(
        self, service: str, mode: str, *, passing: bool = False, index: int = 0, wait_ms: int = 0
    ) -> Answered[Health] | Unanswered:
        """The instances; with an index, when it has changed or after `wait_ms` and a sixteenth of that."""
        parameters = [name for name, wanted in ((mode, mode != "default"), ("passing", passing)) if wanted]
        if index:
            parameters += [f"index={index}", f"wait={wait_ms}ms"]
        target = f"/v1/health/service/{service}?{'&'.join(parameters)}"
        answer = await self._ask("GET", target, timeout_s=self._timeout_s + wait_ms / 1000 * 17 / 16)
        if isinstance(answer, Unanswered):
            return answer
        try:
            rows = _instances.decode(answer.body)
            return Answered(Health(int(answer.headers["x-consul-index"]), {r.Service.ID: _state(r) for r in rows}))
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            return Unanswered(Ending.FAIL, f"not what Consul answers: {error}")

    async def agent_register(self, instance: str, version: int, status: str) -> Answered[bool] | Unanswered:
        """As the agent's own instance, with a TTL check."""
        body = {
            "ID": instance,
            "Name": instance.rpartition("/")[0],
            "Meta": {"version": str(version)},
            "Check": {"CheckID": f"check:{instance}", "TTL": TTL, "Status": status},
        }
        return _done(await self._ask("PUT", "/v1/agent/service/register", body))

    async def agent_deregister(self, instance: str) -> Answered[bool] | Unanswered:
        """One that the agent does not have is gone, too."""
        answer = await self._ask("PUT", f"/v1/agent/service/deregister/{instance}")
        if isinstance(answer, Unanswered) and answer.error.startswith(f"{UNKNOWN_SERVICE} "):
            return Answered(True)
        return _done(answer)

    async def agent_state(self, instance: str) -> Answered[State | None] | Unanswered:
        """The instance as its agent has it."""
        services = await self._ask("GET", "/v1/agent/services")
        checks = await self._ask("GET", "/v1/agent/checks")
        if isinstance(services, Unanswered):
            return services
        if isinstance(checks, Unanswered):
            return checks
        service, check = _services.decode(services.body).get(instance), _checks.decode(checks.body)
        if service is None:
            return Answered(None)
        return Answered(_state(_Instance(service, list(check.values()))))

    async def agent_check(self, instance: str, status: str) -> Answered[bool] | Unanswered:
        """Tell the TTL check its status."""
        return _done(await self._ask("PUT", f"/v1/agent/check/{STATUS_VERBS[status]}/check:{instance}"))

    async def _ask(
        self, method: str, target: str, body: object = None, timeout_s: float | None = None
    ) -> Response | Unanswered:
        encoded = b"" if body is None else msgspec.json.encode(body)
        return await self._kv.ask(method, target, encoded, timeout_s or self._timeout_s, changes=method != "GET")


def _node(instance: str) -> str:
    return f"node-{instance.replace('/', '-')}"


def _done(answer: Response | Unanswered) -> Answered[bool] | Unanswered:
    return answer if isinstance(answer, Unanswered) else Answered(True)


def _state(row: _Instance) -> State:
    """Nodes of agents have other checks beside the instance's own."""
    status = next((check.Status for check in row.Checks if check.ServiceID == row.Service.ID), "none")
    return int((row.Service.Meta or {}).get("version", -1)), status
