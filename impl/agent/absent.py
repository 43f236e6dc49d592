"""What Consul's configuration may ask for and Comitia has not: refused, or ignored.

The rule: what somebody would rely on (ACLs, the service mesh, gRPC, a log in a file, names of other domains) is
refused, with a remedy. What nobody misses is accepted, with a warning: ports of a gossip that Comitia does not need, a
pace of asking that it has of its own, the UI if a flag asks for it, as `agent -dev -ui` does by habit. (A file that
asks for the UI is refused: whoever wrote it waits for it.) What Comitia does anyhow is accepted and needs no word.

This module knows the parts of a document, and no document: `config` merges, and decides with what is said here.
Source: Consul, "Agent configuration".
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType


class UiConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`ui_config`."""

    enabled: bool | UnsetType = UNSET


class Connect(msgspec.Struct, forbid_unknown_fields=True):
    """`connect`."""

    enabled: bool | UnsetType = UNSET


class Acl(msgspec.Struct, forbid_unknown_fields=True):
    """`acl`: without `enabled` the rest has no effect, in Consul too."""

    enabled: bool | UnsetType = UNSET
    default_policy: str | UnsetType = UNSET
    down_policy: str | UnsetType = UNSET
    enable_token_persistence: bool | UnsetType = UNSET


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a merged document says of what Comitia has not. Ports: None if it says nothing, -1 for none."""

    ui_config: UiConfig
    connect: Connect
    acl: Acl
    datacenter: str
    primary_datacenter: str
    log_file: str
    recursors: list[str]
    ports: dict[str, int | UnsetType]
    """`grpc`, `grpc_tls`, `https`, `serf_lan`, `serf_wan`."""
    ui: bool
    retry_interval: str
    advertise_addr_wan: str
    disable_host_node_id: bool


def refusal(wanted: Wanted) -> str:
    """Why an agent with this configuration would not be what its user relies on, and the remedy; "" if it would be."""
    if wanted.ui_config.enabled is True:
        return "ui_config.enabled: there is no web UI in Comitia: set it to false"
    if wanted.connect.enabled is True:
        return "connect.enabled: there is no service mesh in Comitia: set it to false"
    if wanted.acl.enabled is True:
        return (
            "acl.enabled: there are no ACLs in Comitia, whoever reaches the HTTP port may do anything: set it to "
            "false, and client_addr to an address that only they reach"
        )
    if wanted.primary_datacenter not in ("", wanted.datacenter):
        return (
            f"primary_datacenter {wanted.primary_datacenter!r}: there is one datacenter in Comitia, "
            f"{wanted.datacenter!r} here: name it, or remove primary_datacenter"
        )
    if wanted.log_file:
        return "-log-file (log_file): the log is written to standard error only: remove it, and redirect that: 2>> FILE"
    if wanted.recursors:
        return (
            "-recursor (recursors): DNS answers for its own domain only: remove it, and let the resolver of this "
            "machine forward that domain to the agent"
        )
    for name, what in (("grpc", "gRPC"), ("grpc_tls", "gRPC"), ("https", "TLS for HTTP")):
        if _is_port(wanted.ports[name]):
            return f"ports.{name}: there is no {what} in Comitia: remove it, or set it to -1"
    return ""


def warnings(wanted: Wanted) -> Iterator[str]:
    """What is ignored, because it does no harm."""
    if wanted.ui:
        yield "-ui is ignored: there is no web UI"
    for name in ("serf_lan", "serf_wan"):
        if _is_port(wanted.ports[name]):
            flag = f"-{name.replace('_', '-')}-port"
            yield f"{flag} (ports.{name}) is ignored: there is no gossip, agents speak to the servers' RPC port only"
    if wanted.retry_interval:
        yield "-retry-interval (retry_interval) is ignored: servers are asked again within two seconds"
    if wanted.advertise_addr_wan:
        yield "-advertise-wan (advertise_addr_wan) is ignored: the tagged address wan is the advertised one"
    if not wanted.disable_host_node_id:
        yield "disable_host_node_id = false is ignored: node IDs are never made of what the host is"


def _is_port(port: int | UnsetType) -> bool:
    """Consul's ports of 0 or less are none."""
    return not isinstance(port, UnsetType) and port > 0
