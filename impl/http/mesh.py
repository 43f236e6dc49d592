"""What an instance says of itself to the mesh: `Proxy`, `Connect` and `SocketPath` of a registration, kept and shown.

The registry knows one thing of it: which service is reached through the instance. All else is kept for whoever asks.
There is no mesh here: nothing configures a proxy. Source: Consul, "Service mesh proxy configuration reference";
`agent/structs/connect_proxy_config.go`, `NodeService.Validate`. *Deviation:* upstreams and exposed paths are not
judged.

It must not know of rows: text in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from impl.http.fields import Fields, loose
from impl.http.shapes import (
    AgentProxyDocument,
    ConnectDocument,
    ExposeDocument,
    MeshGatewayDocument,
    ProxyDocument,
    UpstreamDocument,
)

CONNECT_PROXY: Final = "connect-proxy"
GATEWAYS: Final = ("mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway")
PORTLESS_GATEWAYS: Final = ("ingress-gateway", "api-gateway")


def _no_proxy() -> ProxyDocument:
    return {"Mode": "", "MeshGateway": {}, "Expose": {}}


class Said(msgspec.Struct, frozen=True):
    """What stands in the log, as JSON: what was not said is not there."""

    Connect: ConnectDocument = {}
    Proxy: ProxyDocument = msgspec.field(default_factory=_no_proxy)
    SocketPath: str = ""

    def text(self) -> str:
        """As it stands there; "": nothing was said."""
        found = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) != _SILENT[name]}
        return _encode(found).decode() if found else ""


class Mesh(NamedTuple):
    """What the registry keeps."""

    connect: str
    """The service that is reached through the instance; "": none."""
    text: str
    """Of a `Said`; "" if nothing was said."""
    problem: str
    """Why Consul refuses it; "": it does not."""


SILENT: Final = Said()
_SILENT: Final = msgspec.structs.asdict(SILENT)
_decode = msgspec.json.Decoder(Said).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def said(text: str) -> Said:
    """What stands in the log."""
    return _decode(text) if text else SILENT


def read(fields: Fields, service: str, kind: str, has_port: bool) -> Mesh:
    """What a registration says, of an instance of `service`. Raises HttpError."""
    proxy = _proxy(fields.within("Proxy"))
    native = fields.within("Connect").truth("Native")
    found = Said({"Native": True} if native else {}, proxy, fields.text("SocketPath"))
    destination = proxy.get("DestinationServiceName", "")
    problems = _problems(kind, destination, native, has_port or bool(found.SocketPath))
    return Mesh(destination if kind == CONNECT_PROXY else service if native else "", found.text(), listed(problems))


def agent_proxy(proxy: ProxyDocument) -> AgentProxyDocument:
    """A proxy as an agent shows it, which leaves out more."""
    shown: AgentProxyDocument = {**proxy}
    if not proxy["Mode"]:
        del shown["Mode"]
    return shown


def _proxy(fields: Fields) -> ProxyDocument:
    """In Go's order, which the log keeps."""
    transparent = _set(fields.within("TransparentProxy"), _OF_TRANSPARENT)
    config = _opaque(fields, "Config")
    upstreams = [_upstream(Fields(loose(each), "Upstreams")) for each in fields.elements("Upstreams")]
    proxy: dict[str, Any] = {"TransparentProxy": transparent} if transparent else {}
    proxy |= {**_set(fields, _OF_PROXIES), "Mode": fields.text("Mode")}
    proxy |= {"Config": config} if config else {}
    proxy |= {"Upstreams": upstreams} if upstreams else {}
    return {**proxy, "MeshGateway": _gateway(fields), "Expose": _expose(fields)}  # type: ignore[typeddict-item]


def _gateway(fields: Fields) -> MeshGatewayDocument:
    mode = fields.within("MeshGateway").text("Mode")
    return {"Mode": mode} if mode else {}


def _expose(fields: Fields) -> ExposeDocument:
    given, expose = fields.within("Expose"), ExposeDocument()
    if given.truth("Checks"):
        expose["Checks"] = True
    if paths := [_set(Fields(loose(each), "Paths"), _OF_PATHS) for each in given.elements("Paths")]:
        expose["Paths"] = paths  # type: ignore[typeddict-item]
    return expose


_OF_PROXIES: Final = {
    "DestinationServiceName": str, "DestinationServiceID": str, "LocalServiceAddress": str, "LocalServicePort": int,
    "LocalServiceSocketPath": str,
}  # fmt: skip
_OF_TRANSPARENT: Final = {"OutboundListenerPort": int, "DialedDirectly": bool}
_OF_PATHS: Final = {"ListenerPort": int, "Path": str, "LocalPathPort": int, "Protocol": str, "ParsedFromCheck": bool}
_DESTINATIONS: Final = {"DestinationNamespace": str, "DestinationPartition": str, "DestinationPeer": str}
_LISTENERS: Final = {
    "LocalBindAddress": str, "LocalBindPort": int, "LocalBindSocketPath": str, "LocalBindSocketMode": str,
}  # fmt: skip


def _upstream(fields: Fields) -> UpstreamDocument:
    config = _opaque(fields, "Config")
    upstream: dict[str, Any] = {
        "DestinationType": fields.text("DestinationType") or "service",
        **_set(fields, _DESTINATIONS),
        "DestinationName": fields.text("DestinationName"),
        "Datacenter": fields.text("Datacenter"),
        **_set(fields, _LISTENERS),
        **({"Config": config} if config else {}),
    }
    return {**upstream, "MeshGateway": _gateway(fields)}  # type: ignore[typeddict-item]


def _set(fields: Fields, names: Mapping[str, type]) -> dict[str, Any]:
    """Those fields that are set."""
    found: dict[str, Any] = {}
    for name, kind in names.items():
        value = fields.text(name) if kind is str else fields.number(name) if kind is int else fields.truth(name)
        if value:
            found[name] = value
    return found


def _opaque(fields: Fields, name: str) -> dict[str, Any]:
    """An object that is kept as it is, but for the order of its names, which Go sorts."""
    value = fields.raw(name)
    if value is None:
        return {}
    found: dict[str, Any] = msgspec.json.decode(_encode_sorted(Fields(value, name).document))
    return found


def _problems(kind: str, destination: str, native: bool, reachable: bool) -> list[str]:
    """What Consul's texts say is wrong."""
    found = []
    if kind == CONNECT_PROXY:
        if not reachable:
            found.append("Port or SocketPath must be set for a connect-proxy")
        if not destination.strip():
            found.append("Proxy.DestinationServiceName must be non-empty for Connect proxy services")
        if destination == "*":
            found.append("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services")
        if native:
            found.append("A Proxy cannot also be Connect Native, only typical services")
    if kind in GATEWAYS:
        if not reachable and kind not in PORTLESS_GATEWAYS:
            found.append(f"Port must be non-zero for a {kind}")
        if destination:
            found.append(f"The Proxy.DestinationServiceName configuration is invalid for a {kind}")
    if native and not reachable:
        found.append("Port or SocketPath must be set for a Connect native service.")
    return found


def listed(problems: list[str]) -> str:
    """As Go's multierror writes them."""
    if not problems:
        return ""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"
