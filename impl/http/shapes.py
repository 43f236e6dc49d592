"""The JSON documents of the HTTP API as types: what `documents` makes, and what `openapi` tells clients.

mypy holds the code to them and msgspec writes them as JSON schemas, so that an answer's type is said once. Names and
order of fields are Go's. Source: Consul's HTTP API documentation.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

Unsigned = Annotated[int, msgspec.Meta(ge=0, extra_json_schema={"maximum": (1 << 64) - 1})]
Integer = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": -(1 << 63), "maximum": (1 << 64) - 1})]
Uuid = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
CheckStatus = Annotated[str, msgspec.Meta(pattern="^(passing|warning|critical)$")]
Aggregated = Annotated[str, msgspec.Meta(pattern="^(passing|warning|critical|maintenance)$")]
Strings = dict[str, str]


class KeyDocument(TypedDict):
    """A key: what `response.KvRow` and `HeldKvRow` write faster."""

    LockIndex: Unsigned
    Key: str
    Flags: Unsigned
    Value: Annotated[str, msgspec.Meta(extra_json_schema={"contentEncoding": "base64"})] | None
    Session: NotRequired[Uuid]
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class EmptyDocument(TypedDict):
    """Something that is not there."""


class AddressDocument(TypedDict):
    """Where an instance is reached."""

    Address: str
    Port: Integer


class WeightsDocument(TypedDict):
    """For DNS, while passing and while warning."""

    Passing: Integer
    Warning: Integer


class ConnectDocument(TypedDict, total=False):
    """Whether an instance speaks for itself in the mesh."""

    Native: bool


class MeshGatewayDocument(TypedDict, total=False):
    """How other datacenters are reached."""

    Mode: str


class UpstreamDocument(TypedDict):
    """What a proxy's service depends on."""

    DestinationType: str
    DestinationName: str
    Datacenter: str
    MeshGateway: MeshGatewayDocument
    DestinationNamespace: NotRequired[str]
    DestinationPartition: NotRequired[str]
    DestinationPeer: NotRequired[str]
    LocalBindAddress: NotRequired[str]
    LocalBindPort: NotRequired[Integer]
    LocalBindSocketPath: NotRequired[str]
    LocalBindSocketMode: NotRequired[str]
    Config: NotRequired[dict[str, Any]]


class ExposedPathDocument(TypedDict, total=False):
    """A path that is reached without the mesh."""

    ListenerPort: Integer
    Path: str
    LocalPathPort: Integer
    Protocol: str
    ParsedFromCheck: bool


class ExposeDocument(TypedDict, total=False):
    """What is reached without the mesh."""

    Checks: bool
    Paths: list[ExposedPathDocument]


class TransparentProxyDocument(TypedDict, total=False):
    """How traffic is redirected to a proxy."""

    OutboundListenerPort: Integer
    DialedDirectly: bool


class _Proxy(TypedDict):
    MeshGateway: MeshGatewayDocument
    Expose: ExposeDocument
    DestinationServiceName: NotRequired[str]
    DestinationServiceID: NotRequired[str]
    LocalServiceAddress: NotRequired[str]
    LocalServicePort: NotRequired[Integer]
    LocalServiceSocketPath: NotRequired[str]
    TransparentProxy: NotRequired[TransparentProxyDocument]
    Config: NotRequired[dict[str, Any]]
    Upstreams: NotRequired[list[UpstreamDocument]]


class ProxyDocument(_Proxy):
    """What a proxy is for."""

    Mode: str


class AgentProxyDocument(_Proxy):
    """The same, as the agent shows it that has it."""

    Mode: NotRequired[str]


class NodeDocument(TypedDict):
    """A node."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: Strings | None
    Meta: Strings | None
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class OptionalKind(TypedDict):
    """Of an instance: told if it has one."""

    Kind: NotRequired[str]


class OptionalTaggedAddresses(TypedDict):
    """Of an instance: told if it has any."""

    TaggedAddresses: NotRequired[dict[str, AddressDocument]]


class OptionalPort(TypedDict):
    """Of an instance: told if it has one. (An agent tells it anyway, and so does `InstanceDocument`.)"""

    Port: NotRequired[Integer]


class OptionalSocketPath(TypedDict):
    """Of an instance: told if it has one."""

    SocketPath: NotRequired[str]


class ServiceDocument(OptionalKind, OptionalPort, OptionalTaggedAddresses, OptionalSocketPath):
    """An instance as the health API and `/v1/catalog/node` show it."""

    ID: str
    Service: str
    Tags: list[str]
    Address: str
    Meta: Strings | None
    Weights: WeightsDocument
    EnableTagOverride: bool
    Proxy: ProxyDocument
    Connect: ConnectDocument
    PeerName: str
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class OptionalServiceTaggedAddresses(TypedDict):
    """Of an instance beside its node: told if it has any."""

    ServiceTaggedAddresses: NotRequired[dict[str, AddressDocument]]


class InstanceDocument(OptionalServiceTaggedAddresses):
    """An instance beside its node."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: Strings | None
    NodeMeta: Strings | None
    ServiceKind: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    ServiceAddress: str
    ServiceWeights: WeightsDocument
    ServiceMeta: Strings
    ServicePort: Integer
    ServiceSocketPath: str
    ServiceEnableTagOverride: bool
    ServiceProxy: ProxyDocument
    ServiceConnect: ConnectDocument
    ServiceLocality: None
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class OptionalMesh(TypedDict):
    """Of an instance: what it is in the mesh, told if it is anything."""

    Proxy: NotRequired[AgentProxyDocument]
    Connect: NotRequired[ConnectDocument]


class AgentServiceDocument(OptionalKind, OptionalTaggedAddresses, OptionalSocketPath, OptionalMesh):
    """An instance as the agent that has it shows it."""

    ID: str
    Service: str
    Tags: list[str]
    Meta: Strings
    Port: Integer
    Address: str
    Weights: WeightsDocument
    EnableTagOverride: bool
    Datacenter: str


class HashedServiceDocument(AgentServiceDocument):
    """The same, with a digest to wait for a change of."""

    ContentHash: str


class CheckDefinitionDocument(TypedDict, total=False):
    """How a check is probed, by whoever registered it in the catalog; an agent keeps that of its own to itself."""

    HTTP: str
    Header: dict[str, list[str]]
    Method: str
    Body: str
    DisableRedirects: bool
    TLSServerName: str
    TLSSkipVerify: bool
    TCP: str
    TCPUseTLS: bool
    UDP: str
    H2PING: str
    H2PingUseTLS: bool
    GRPC: str
    GRPCUseTLS: bool
    OSService: str
    ScriptArgs: list[str]
    DockerContainerID: str
    Shell: str
    AliasNode: str
    AliasService: str
    TTL: int
    Interval: str
    Timeout: str
    DeregisterCriticalServiceAfter: str
    OutputMaxSize: int


class CheckDocument(TypedDict):
    """A health check."""

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
    ExposedPort: int
    Definition: CheckDefinitionDocument
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class HealthDocument(TypedDict):
    """An instance with its node and the checks of both."""

    Node: NodeDocument
    Service: ServiceDocument
    Checks: list[CheckDocument]


class NodeServicesDocument(TypedDict):
    """A node and its instances by their ids."""

    Node: NodeDocument
    Services: dict[str, ServiceDocument]


class NodeServiceListDocument(TypedDict):
    """The same as a list; of a node that does not exist, null and none."""

    Node: NodeDocument | None
    Services: list[ServiceDocument]


class ServiceCheckDocument(TypedDict):
    """A check of an instance that a session depends on."""

    ID: str
    Namespace: str


class SessionDocument(TypedDict):
    """A session."""

    ID: Uuid
    Name: str
    Node: str
    LockDelay: Unsigned
    Behavior: Annotated[str, msgspec.Meta(pattern="^(release|delete)$")]
    TTL: str
    NodeChecks: list[str]
    ServiceChecks: list[ServiceCheckDocument] | None
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class CreatedDocument(TypedDict):
    """A new session."""

    ID: Uuid


class ResultDocument(TypedDict, total=False):
    """What one operation of a transaction did: one of the four."""

    KV: KeyDocument
    Node: NodeDocument
    Service: ServiceDocument
    Check: CheckDocument


class ErrorDocument(TypedDict):
    """Why one operation of a transaction could not be done."""

    OpIndex: Annotated[int, msgspec.Meta(ge=0, lt=128)]
    What: str


class OutcomeDocument(TypedDict):
    """The answer of a transaction."""

    Results: list[ResultDocument] | None
    Errors: list[ErrorDocument] | None


class AgentHealthDocument(TypedDict):
    """The health of an instance of this agent."""

    AggregatedStatus: Aggregated
    Service: AgentServiceDocument | None
    Checks: list[CheckDocument] | None


class MemberDocument(TypedDict):
    """An agent as Serf would show it."""

    Name: str
    Addr: str
    Port: Annotated[int, msgspec.Meta(ge=0, lt=65536)]
    Tags: Strings
    Status: Annotated[int, msgspec.Meta(ge=0, le=4)]
    ProtocolMin: int
    ProtocolMax: int
    ProtocolCur: int
    DelegateMin: int
    DelegateMax: int
    DelegateCur: int


class ConfigDocument(TypedDict):
    """What an agent was told to be."""

    Datacenter: str
    PrimaryDatacenter: str
    NodeName: str
    NodeID: Uuid
    Revision: str
    Server: bool
    Version: str
    BuildDate: str


class SelfDocument(TypedDict):
    """An agent of itself. What stands in `Stats` is for people; it differs from release to release."""

    Config: ConfigDocument
    DebugConfig: dict[str, Any]
    Coord: None
    Member: MemberDocument
    Stats: dict[str, dict[str, Any]]
    Meta: Strings


class VersionDocument(TypedDict):
    """The release."""

    SHA: str
    BuildDate: str
    HumanVersion: str
    FIPS: str


class HostDocument(TypedDict):
    """The machine, by the names of gopsutil; null where it cannot be measured."""

    Memory: dict[str, float] | None
    CPU: list[dict[str, Any]] | None
    Host: dict[str, Any] | None
    Disk: dict[str, Any] | None
    CollectionTime: int
    Errors: list[str] | None


class GaugeDocument(TypedDict):
    """What is so at the end of an interval."""

    Name: str
    Value: float
    Labels: Strings


class SampledDocument(TypedDict):
    """What happened in an interval, summed up."""

    Name: str
    Count: int
    Rate: float
    Sum: float
    Min: float
    Max: float
    Mean: float
    Stddev: float
    Labels: Strings


class MetricsDocument(TypedDict):
    """The last interval of telemetry."""

    Timestamp: str
    Gauges: list[GaugeDocument]
    Points: list[EmptyDocument]
    Counters: list[SampledDocument]
    Samples: list[SampledDocument]


class RaftServerDocument(TypedDict):
    """A member of the cluster."""

    ID: Uuid
    Node: str
    Address: str
    Leader: bool
    ProtocolVersion: str
    Voter: bool
    LastIndex: Unsigned


class RaftConfigurationDocument(TypedDict):
    """The members of the cluster."""

    Servers: list[RaftServerDocument]
    Index: Unsigned


class AutopilotConfigurationDocument(TypedDict):
    """What the leader does by itself. Times as Go writes them."""

    CleanupDeadServers: bool
    LastContactThreshold: str
    MaxTrailingLogs: Unsigned
    MinQuorum: Unsigned
    ServerStabilizationTime: str
    RedundancyZoneTag: str
    DisableUpgradeMigration: bool
    UpgradeVersionTag: str
    CreateIndex: Unsigned
    ModifyIndex: Unsigned


class ServerHealthDocument(TypedDict):
    """How well a server is."""

    ID: Uuid
    Name: str
    Address: str
    SerfStatus: str
    Version: str
    Leader: bool
    LastContact: str
    LastTerm: Unsigned
    LastIndex: Unsigned
    Healthy: bool
    Voter: bool
    StableSince: str


class AutopilotHealthDocument(TypedDict):
    """How well the servers are, and how many of them may fail."""

    Healthy: bool
    FailureTolerance: Unsigned
    Servers: list[ServerHealthDocument]


class AutopilotServerDocument(TypedDict):
    """A server, as autopilot knows it."""

    ID: Uuid
    Name: str
    Address: str
    NodeStatus: str
    Version: str
    LastContact: str
    LastTerm: Unsigned
    LastIndex: Unsigned
    Healthy: bool
    StableSince: str
    ReadReplica: bool
    Status: str
    Meta: Strings
    NodeType: str


class AutopilotStateDocument(TypedDict):
    """All that autopilot knows."""

    Healthy: bool
    FailureTolerance: Unsigned
    OptimisticFailureTolerance: Unsigned
    Servers: dict[str, AutopilotServerDocument]
    Leader: str
    Voters: list[str]


class ChangedDocument(TypedDict):
    """The index of the configuration that a change led to."""

    Index: Unsigned


class SuccessDocument(TypedDict):
    """The leadership was handed over."""

    Success: bool
