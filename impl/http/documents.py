"""The registry's rows as JSON documents: Go's field names, in Go's order, with the empty values that Consul shows.

Lists and maps that Consul's HTTP API makes empty are `[]` and `{}` here, what it leaves `null` is null. Source: Consul,
"Catalog", "Health", "Session" and "Transaction" HTTP APIs.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Check, Node, Service, Session
from impl.catalog.tagged import CheckRow, KvRow, NodeRow, ServiceRow
from impl.catalog.transactions import Outcome, Shown
from impl.http import mesh
from impl.http.response import kv_row
from impl.http.shapes import (
    AddressDocument,
    AgentServiceDocument,
    CheckDefinitionDocument,
    CheckDocument,
    ErrorDocument,
    HealthDocument,
    InstanceDocument,
    KeyDocument,
    NodeDocument,
    NodeServicesDocument,
    OptionalKind,
    OptionalMesh,
    OptionalPort,
    OptionalServiceTaggedAddresses,
    OptionalSocketPath,
    OptionalTaggedAddresses,
    OutcomeDocument,
    ResultDocument,
    ServiceCheckDocument,
    ServiceDocument,
    SessionDocument,
)


def node_document(node: Node) -> NodeDocument:
    """An element of `/v1/catalog/nodes`."""
    return {
        "ID": node.id,
        "Node": node.node,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": node.tagged_addresses or None,
        "Meta": node.meta or None,
        "CreateIndex": node.create_index,
        "ModifyIndex": node.modify_index,
    }


def service_document(service: Service) -> ServiceDocument:
    """An instance as the health API and `/v1/catalog/node` show it."""
    said = mesh.said(service.mesh)
    return {
        **_kind(service),
        "ID": service.id,
        "Service": service.service,
        "Tags": list(service.tags),
        "Address": service.address,
        **_tagged_if_any(service),
        "Meta": service.meta or None,
        **_port_if_any(service),
        **_socket_if_any(said),
        "Weights": {"Passing": service.weights[0], "Warning": service.weights[1]},
        "EnableTagOverride": service.enable_tag_override,
        "Proxy": said.Proxy,
        "Connect": said.Connect,
        "PeerName": "",
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }


def instance_document(instance: Instance) -> InstanceDocument:
    """An element of `/v1/catalog/service/NAME`: an instance beside its node."""
    node, service, said = instance.node, instance.service, mesh.said(instance.service.mesh)
    return {
        "ID": node.id,
        "Node": node.node,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": node.tagged_addresses or None,
        "NodeMeta": node.meta or None,
        "ServiceKind": service.kind,
        "ServiceID": service.id,
        "ServiceName": service.service,
        "ServiceTags": list(service.tags),
        "ServiceAddress": service.address,
        **_service_tagged_if_any(service),
        "ServiceWeights": {"Passing": service.weights[0], "Warning": service.weights[1]},
        "ServiceMeta": service.meta,
        "ServicePort": service.port,
        "ServiceSocketPath": said.SocketPath,
        "ServiceEnableTagOverride": service.enable_tag_override,
        "ServiceProxy": said.Proxy,
        "ServiceConnect": said.Connect,
        "ServiceLocality": None,
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }


def agent_service_document(service: Service, datacenter: str) -> AgentServiceDocument:
    """An element of `/v1/agent/services`."""
    said = mesh.said(service.mesh)
    return {
        **_kind(service),
        "ID": service.id,
        "Service": service.service,
        "Tags": list(service.tags),
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        **_socket_if_any(said),
        **_tagged_if_any(service),
        "Weights": {"Passing": service.weights[0], "Warning": service.weights[1]},
        "EnableTagOverride": service.enable_tag_override,
        **_mesh_if_any(service, said),
        "Datacenter": datacenter,
    }


def _kind(service: Service) -> OptionalKind:
    return {"Kind": service.kind} if service.kind else {}


def _mesh_if_any(service: Service, said: mesh.Said) -> OptionalMesh:
    found: OptionalMesh = {}
    if service.kind in (mesh.CONNECT_PROXY, *mesh.GATEWAYS):
        found["Proxy"] = mesh.agent_proxy(said.Proxy)
    if said.Connect:
        found["Connect"] = said.Connect
    return found


def _socket_if_any(said: mesh.Said) -> OptionalSocketPath:
    return {"SocketPath": said.SocketPath} if said.SocketPath else {}


def _port_if_any(service: Service) -> OptionalPort:
    return {"Port": service.port} if service.port else {}


def _tagged_if_any(service: Service) -> OptionalTaggedAddresses:
    return {"TaggedAddresses": _tagged(service)} if service.tagged_addresses else {}


def _service_tagged_if_any(service: Service) -> OptionalServiceTaggedAddresses:
    return {"ServiceTaggedAddresses": _tagged(service)} if service.tagged_addresses else {}


def _tagged(service: Service) -> dict[str, AddressDocument]:
    return {name: {"Address": tagged.address, "Port": tagged.port} for name, tagged in service.tagged_addresses.items()}


_read_definition = msgspec.json.Decoder(CheckDefinitionDocument).decode


def check_document(check: Check) -> CheckDocument:
    """A health check."""
    return {
        "Node": check.node,
        "CheckID": check.check_id,
        "Name": check.name,
        "Status": check.status,
        "Notes": check.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service_name,
        "ServiceTags": list(check.service_tags),
        "Type": check.type,
        "Interval": check.interval,
        "Timeout": check.timeout,
        "ExposedPort": 0,
        "Definition": _read_definition(check.definition) if check.definition else {},
        "CreateIndex": check.create_index,
        "ModifyIndex": check.modify_index,
    }


def health_document(instance: Instance) -> HealthDocument:
    """An element of `/v1/health/service/NAME`."""
    return {
        "Node": node_document(instance.node),
        "Service": service_document(instance.service),
        "Checks": [check_document(check) for check in instance.checks],
    }


def node_services_document(node: Node | None, services: list[Service]) -> NodeServicesDocument | None:
    """`/v1/catalog/node/NAME`: null if there is no such node."""
    if node is None:
        return None
    return {
        "Node": node_document(node),
        "Services": {service.id: service_document(service) for service in services},
    }


def session_document(session: Session) -> SessionDocument:
    """An element of the session API's lists."""
    pairs: list[ServiceCheckDocument] = [
        {"ID": check_id, "Namespace": namespace} for check_id, namespace in session.service_checks
    ]
    return {
        "ID": session.id,
        "Name": session.name,
        "Node": session.node,
        "LockDelay": session.lock_delay_ns,
        "Behavior": session.behavior,
        "TTL": session.ttl,
        "NodeChecks": list(session.node_checks),
        "ServiceChecks": pairs or None,
        "CreateIndex": session.create_index,
        "ModifyIndex": session.modify_index,
    }


def outcome_document(outcome: Outcome) -> OutcomeDocument:
    """A transaction's answer: results, or the errors by the position of their operations."""
    results = [_shown_document(shown) for shown in outcome.results]
    errors: list[ErrorDocument] = [{"OpIndex": error.position, "What": error.what} for error in outcome.errors]
    return {"Results": None if errors else results, "Errors": errors or None}


def _shown_document(shown: Shown) -> ResultDocument:
    match shown:
        case KvRow(entry):
            key: KeyDocument = msgspec.to_builtins(kv_row(entry))
            return {"KV": key}
        case NodeRow(node):
            return {"Node": node_document(node)}
        case ServiceRow(service):
            return {"Service": service_document(service)}
        case CheckRow(check):
            return {"Check": check_document(check)}
        case _:
            assert_never(shown)
