"""The JSON bodies of requests as types, for `openapi`.

`bodies` and `definitions` read them by hand, with `fields`: names have no case there, and other fields are ignored.
Source: Consul's HTTP API documentation.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from impl.http.shapes import CheckDefinitionDocument, CheckStatus, ConnectDocument, Integer, Strings, Unsigned, Uuid


class AddressBody(TypedDict, total=False):
    """Where an instance is reached."""

    Address: str
    Port: Integer


class WeightsBody(TypedDict, total=False):
    """For DNS, while passing and while warning."""

    Passing: Integer
    Warning: Integer


class ServiceCheckBody(TypedDict, total=False):
    """A check of an instance that a session depends on."""

    ID: str
    Namespace: str


class CheckRegistration(TypedDict, total=False):
    """A check of `/v1/catalog/register`, and of transactions."""

    Node: str
    CheckID: str
    Name: str
    Status: CheckStatus
    Notes: str
    Output: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    Type: str
    Interval: str
    Timeout: str
    Definition: CheckDefinitionDocument
    ModifyIndex: Unsigned


class ProxyBody(TypedDict, total=False):
    """What a proxy is for."""

    DestinationServiceName: str
    DestinationServiceID: str
    LocalServiceAddress: str
    LocalServicePort: Integer
    Mode: str
    Config: dict[str, Any]
    Upstreams: list[dict[str, Any]]


class ServiceRegistration(TypedDict, total=False):
    """An instance of `/v1/catalog/register`, and of transactions."""

    Kind: str
    ID: str
    Service: str
    Tags: list[str]
    Address: str
    Port: Integer
    TaggedAddresses: dict[str, AddressBody]
    Meta: Strings
    Weights: WeightsBody
    EnableTagOverride: bool
    Proxy: ProxyBody
    Connect: ConnectDocument
    SocketPath: str
    ModifyIndex: Unsigned


class NodeRegistration(TypedDict, total=False):
    """A node of a transaction."""

    ID: Uuid
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: Strings
    Meta: Strings
    ModifyIndex: Unsigned


class Registration(TypedDict):
    """The body of `/v1/catalog/register`."""

    Node: str
    Address: NotRequired[str]
    ID: NotRequired[Uuid]
    Datacenter: NotRequired[str]
    TaggedAddresses: NotRequired[Strings]
    NodeMeta: NotRequired[Strings]
    Service: NotRequired[ServiceRegistration]
    Check: NotRequired[CheckRegistration]
    Checks: NotRequired[list[CheckRegistration]]
    SkipNodeUpdate: NotRequired[bool]


class Deregistration(TypedDict):
    """The body of `/v1/catalog/deregister`."""

    Node: str
    Datacenter: NotRequired[str]
    ServiceID: NotRequired[str]
    CheckID: NotRequired[str]


class NewSession(TypedDict, total=False):
    """The body of `/v1/session/create`. Times as Go writes them; a number is nanoseconds, a small one seconds."""

    Node: str
    Name: str
    LockDelay: str | int
    Behavior: Annotated[str, msgspec.Meta(pattern="^(release|delete)$")]
    TTL: str
    NodeChecks: list[str]
    Checks: list[str]
    ServiceChecks: list[ServiceCheckBody]


class CheckDefinitionBody(TypedDict, total=False):
    """A check of an agent. Times as Go writes them, or in nanoseconds."""

    CheckID: str
    Name: str
    Notes: str
    Status: CheckStatus
    ServiceID: str
    TTL: str | int
    HTTP: str
    Method: str
    Header: dict[str, list[str]]
    Body: str
    TLSSkipVerify: bool
    DisableRedirects: bool
    TCP: str
    TCPUseTLS: bool
    UDP: str
    GRPC: str
    GRPCUseTLS: bool
    H2PING: str
    H2PingUseTLS: bool
    TLSServerName: str
    AliasNode: str
    AliasService: str
    ScriptArgs: list[str]
    Interval: str | int
    Timeout: str | int
    SuccessBeforePassing: Integer
    FailuresBeforeWarning: Integer
    FailuresBeforeCritical: Integer
    DeregisterCriticalServiceAfter: str | int
    OutputMaxSize: Integer


class ConnectBody(TypedDict, total=False):
    """What an instance is in the mesh, and the proxy that is registered with it."""

    Native: bool
    SidecarService: dict[str, Any]


class ServiceDefinitionBody(TypedDict):
    """An instance of an agent, with its checks."""

    Name: str
    ID: NotRequired[str]
    Kind: NotRequired[str]
    Tags: NotRequired[list[str]]
    Address: NotRequired[str]
    Port: NotRequired[Integer]
    TaggedAddresses: NotRequired[dict[str, AddressBody]]
    Meta: NotRequired[Strings]
    Weights: NotRequired[WeightsBody]
    EnableTagOverride: NotRequired[bool]
    Proxy: NotRequired[ProxyBody]
    Connect: NotRequired[ConnectBody]
    SocketPath: NotRequired[str]
    Check: NotRequired[CheckDefinitionBody]
    Checks: NotRequired[list[CheckDefinitionBody]]


class StatusUpdate(TypedDict):
    """The body of `/v1/agent/check/update`."""

    Status: CheckStatus
    Output: NotRequired[str]


class KvOperationBody(TypedDict):
    """An operation on a key. `Value` is base64."""

    Verb: str
    Key: str
    Value: NotRequired[str]
    Flags: NotRequired[Unsigned]
    Index: NotRequired[Unsigned]
    Session: NotRequired[str]


class NodeOperationBody(TypedDict):
    """An operation on a node."""

    Verb: str
    Node: NodeRegistration


class ServiceOperationBody(TypedDict):
    """An operation on an instance of `Node`."""

    Verb: str
    Node: str
    Service: ServiceRegistration


class CheckOperationBody(TypedDict):
    """An operation on a check."""

    Verb: str
    Check: CheckRegistration


class OperationBody(TypedDict, total=False):
    """An operation of a transaction: one of the four."""

    KV: KvOperationBody
    Node: NodeOperationBody
    Service: ServiceOperationBody
    Check: CheckOperationBody


class AutopilotBody(TypedDict, total=False):
    """What autopilot is to do: what is in force already, or it is refused. Times as those of a check."""

    CleanupDeadServers: bool
    LastContactThreshold: str | int
    MaxTrailingLogs: Unsigned
    MinQuorum: Unsigned
    ServerStabilizationTime: str | int
    RedundancyZoneTag: str
    DisableUpgradeMigration: bool
    UpgradeVersionTag: str


NAMES = frozenset(name for name, each in globals().items() if isinstance(each, type) and each.__module__ == __name__)
"""Of all these types."""
