"""What clients send as JSON, read into commands: registrations, sessions, transactions.

`fields` refuses what has the wrong type (400); what Consul's servers refuse is refused here, with their text (500).
Source: Consul, "Catalog", "Session" and "Transaction" HTTP APIs.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final
from uuid import UUID

import msgspec

from impl.agent.local.definitions import go_duration
from impl.catalog.commands import Deregister, Register
from impl.catalog.rows import BEHAVIORS, CRITICAL, RELEASE, SERF_HEALTH, STATUSES, Check, Node, Service, ServiceAddress
from impl.catalog.rows import Session as SessionRow
from impl.catalog.transactions import (
    KV_READS,
    KV_WRITES,
    VERBS,
    CheckOperation,
    KvOperation,
    NodeOperation,
    Operation,
    OperationError,
    ServiceOperation,
)
from impl.http.fields import Fields, duration, json_type, read_json, wrong_type
from impl.http.request import NO_PATH, HttpError
from impl.runtime.interfaces import NANOSECONDS

TTL_SECONDS_MIN: Final = 10
TTL_SECONDS_MAX: Final = 86_400
LOCK_DELAY_DEFAULT_NS: Final = 15 * NANOSECONDS
DURATION_NS_MAX: Final = (1 << 63) - 1
"""As in Go."""
SMALL_LOCK_DELAY: Final = 1000
"""A smaller number was meant as seconds."""
OPERATIONS_MAX: Final = 128
"""Of a transaction."""
PROBE_TEXTS: Final = (
    "HTTP", "Method", "Body", "TLSServerName", "TCP", "UDP", "H2PING", "GRPC", "OSService", "DockerContainerID",
    "Shell", "AliasNode", "AliasService",
)  # fmt: skip
PROBE_TRUTHS: Final = ("DisableRedirects", "TLSSkipVerify", "TCPUseTLS", "H2PingUseTLS", "GRPCUseTLS")
PROBE_TIMES: Final = ("Interval", "Timeout", "DeregisterCriticalServiceAfter")
KINDS: Final = (
    ("GRPC", "grpc"), ("HTTP", "http"), ("TTL", "ttl"), ("TCP", "tcp"), ("UDP", "udp"), ("AliasNode", "alias"),
    ("AliasService", "alias"), ("DockerContainerID", "docker"), ("ScriptArgs", "script"), ("H2PING", "h2ping"),
    ("OSService", "os_service"),
)  # fmt: skip
"""What a check asks, and the type that it has then; in the order in which Consul looks."""
ANY_ADDRESS: Final = ("0.0.0.0", "::", "[::]")
"""Addresses that an instance cannot be reached at."""


# ------------------------------------------------------------------------------------------------------------- registry


def registration(body: bytes, datacenter: str, asked: str = "") -> Register:
    """The command of `PUT /v1/catalog/register`; `asked`: the datacenter of the query string, which has the last word.
    Raises HttpError."""
    fields = Fields(read_json(body))
    _refuse_elsewhere(fields, datacenter, asked)
    skip = fields.truth("SkipNodeUpdate")
    node = msgspec.structs.replace(_node(fields, datacenter), datacenter=datacenter)
    if not node.node:
        raise HttpError(500, "Must provide node")
    if not node.address and not skip:
        raise HttpError(500, "Must provide address if SkipNodeUpdate is not set")
    service = fields.object("Service")
    single = fields.object("Check")
    checks = [*fields.objects("Checks"), *([single] if single is not None else [])]
    return Register(
        node,
        None if service is None else _service(service, node.node),
        tuple(_check(check, node.node) for check in checks),
        skip,
    )


def deregistration(body: bytes, datacenter: str, asked: str = "") -> Deregister:
    """The command of `PUT /v1/catalog/deregister`; `asked` as for a registration. Raises HttpError."""
    fields = Fields(read_json(body))
    _refuse_elsewhere(fields, datacenter, asked)
    if not fields.text("Node"):
        raise HttpError(500, "Must provide node")
    return Deregister(fields.text("Node"), fields.text("ServiceID"), fields.text("CheckID"))


def _refuse_elsewhere(fields: Fields, datacenter: str, asked: str) -> None:
    """What is meant for another datacenter must not be done here. Raises HttpError."""
    if (asked or fields.text("Datacenter") or datacenter) != datacenter:
        raise HttpError(500, NO_PATH)


def refuse_nul(name: str, what: str) -> None:
    """The catalog's keys are a node and an id with a NUL between them. Raises HttpError."""
    if "\0" in name:
        raise HttpError(400, f"Invalid {what}: it must not contain NUL")


def _node(fields: Fields, datacenter: str) -> Node:
    refuse_nul(fields.text("Node"), "node name")
    node_id = fields.text("ID")
    if node_id:
        try:
            UUID(node_id)
        except ValueError:
            raise HttpError(500, f"Bad node ID: uuid string is wrong: {node_id}") from None
    return Node(
        fields.text("Node"),
        fields.text("Address"),
        node_id.lower(),
        fields.text("Datacenter") or datacenter,
        fields.mapping("TaggedAddresses"),
        fields.mapping("NodeMeta") or fields.mapping("Meta"),
        modify_index=fields.unsigned("ModifyIndex"),
    )


def _service(fields: Fields, node: str, *, named: bool = True) -> Service:
    """`named`: it must have a name; who looks for an instance may give its id alone."""
    identity, name = fields.text("ID"), fields.text("Service")
    if identity and not name and named:
        raise HttpError(500, "Must provide service name with ID")
    if not name and not identity:
        raise HttpError(500, "Must provide service name")
    refuse_nul(node, "node name")
    refuse_nul(identity or name, "service ID")
    if fields.text("Address") in ANY_ADDRESS:
        raise HttpError(500, "Invalid service address")
    given = fields.object("Weights")
    tagged = tagged_addresses(fields)
    return Service(
        node,
        identity or name,
        name,
        fields.text("Kind"),
        fields.strings("Tags"),
        fields.text("Address"),
        fields.number("Port"),
        tagged,
        fields.mapping("Meta"),
        weights(given),
        fields.truth("EnableTagOverride"),
        modify_index=fields.unsigned("ModifyIndex"),
    )


def tagged_addresses(fields: Fields) -> dict[str, ServiceAddress]:
    """The addresses of an instance by their tags, sorted, since they will stand in the log."""
    return {
        label: ServiceAddress(address.text("Address"), address.number("Port"))
        for label, address in sorted(fields.named_objects("TaggedAddresses").items())
    }


def weights(given: Fields | None) -> tuple[int, int]:
    """The DNS weights of an instance, while passing and while warning."""
    return (1, 1) if given is None else (given.number("Passing", 1), given.number("Warning", 1))


def _check(fields: Fields, node: str) -> Check:
    status = fields.text("Status") or CRITICAL
    if status not in STATUSES:
        raise HttpError(400, f"Request decode failed: Status must be one of {', '.join(STATUSES)}, not {status!r}")
    definition = probe(fields.object("Definition"))
    on, check_id = fields.text("Node") or node, fields.text("CheckID") or fields.text("Name")
    refuse_nul(on, "node name")
    refuse_nul(check_id, "check ID")
    return Check(
        on,
        check_id,
        fields.text("Name"),
        status,
        fields.text("Notes"),
        fields.text("Output"),
        fields.text("ServiceID"),
        fields.text("ServiceName"),
        fields.strings("ServiceTags"),
        fields.text("Type") or kind_of(definition),
        fields.text("Interval"),
        fields.text("Timeout"),
        modify_index=fields.unsigned("ModifyIndex"),
        definition=msgspec.json.encode(definition, order="sorted").decode() if definition else "",
    )


def probe(fields: Fields | None) -> dict[str, Any]:
    """How a check is probed by whoever registers it in the catalog (`CheckDefinitionDocument`); what is not set is left
    out, as by Consul. Raises HttpError.
    """
    if fields is None:
        return {}
    found: dict[str, Any] = {name: fields.text(name) for name in PROBE_TEXTS}
    found |= {name: fields.truth(name) for name in PROBE_TRUTHS}
    found |= {name: go_duration(time) if (time := fields.duration(name)) else "" for name in PROBE_TIMES}
    found["TTL"] = fields.duration("TTL")
    found["OutputMaxSize"] = fields.unsigned("OutputMaxSize")
    found["ScriptArgs"] = list(fields.strings("ScriptArgs"))
    found["Header"] = fields.lists("Header")
    return {name: value for name, value in found.items() if value}


def kind_of(probed: dict[str, Any]) -> str:
    """The type of a check that does not name one; "": it is not known."""
    for name, kind in KINDS:
        if name in probed and ("Interval" in probed or kind in ("ttl", "alias")):
            return kind
    return ""


# ------------------------------------------------------------------------------------------------------------- sessions


def session(body: bytes, node: str) -> SessionRow:
    """The session that `PUT /v1/session/create` asks for, on `node` unless it says otherwise. Raises HttpError.

    Its id is empty: whoever proposes it draws one.
    """
    fields = Fields(read_json(body) if body.strip() else {})
    behavior = fields.text("Behavior") or RELEASE
    if behavior not in BEHAVIORS:
        raise HttpError(500, f"Invalid Behavior setting '{behavior}'")
    pairs = tuple((each.text("ID"), each.text("Namespace")) for each in fields.objects("ServiceChecks"))
    return SessionRow(
        "",
        fields.text("Node") or node,
        fields.text("Name"),
        _lock_delay(fields.raw("LockDelay")),
        behavior,
        _ttl(fields.text("TTL")),
        _node_checks(fields),
        pairs,
    )


def _node_checks(fields: Fields) -> tuple[str, ...]:
    """The checks of the node that a session depends on: both of `NodeChecks` and of the older `Checks`.

    Each is serfHealth unless it is given. One that is given as empty, or null, empties the other's default, and
    `Checks` everything. *Deviation:* Consul shows a session's `Checks` apart; here they stand in `NodeChecks`.
    """
    older, newer = (fields.strings(name) if name in fields else (SERF_HEALTH,) for name in ("Checks", "NodeChecks"))
    if not older:
        return ()
    if not newer or older == (SERF_HEALTH,):
        older = ()
    return tuple(dict.fromkeys(older + newer))


def _lock_delay(value: Any) -> int:
    """Nanoseconds. A small number was meant as seconds."""
    match value:
        case None:
            return LOCK_DELAY_DEFAULT_NS
        case str():
            delay = duration(value, lambda why: HttpError(400, f"Request decode failed: {why}"))
        case bool():
            raise wrong_type("LockDelay", "a duration", value)
        case int() | float():
            delay = int(value)
        case _:
            raise wrong_type("LockDelay", "a duration", value)
    if delay > DURATION_NS_MAX:
        raise wrong_type("LockDelay", "a duration of at most 292 years", value)
    return max(delay * NANOSECONDS if delay < SMALL_LOCK_DELAY else delay, 0)


def _ttl(text: str) -> str:
    if not text:
        return ""
    ttl = duration(text, lambda why: HttpError(500, f"Session TTL '{text}' invalid: {why}"))
    if ttl and not TTL_SECONDS_MIN * NANOSECONDS <= ttl <= TTL_SECONDS_MAX * NANOSECONDS:
        raise HttpError(500, f"Invalid Session TTL '{ttl}', must be between [10s=24h0m0s]")
    return text


# --------------------------------------------------------------------------------------------------------- transactions


class RefusedOperations(Exception):
    """Operations of a transaction that Consul's servers refuse before anything is done: a 409 with their positions."""

    def __init__(self, errors: list[OperationError]) -> None:
        super().__init__(", ".join(error.what for error in errors))
        self.errors = errors


def operations(body: bytes, datacenter: str, value_size_max: int) -> tuple[Operation, ...]:
    """The operations of `PUT /v1/txn`. Raises HttpError and RefusedOperations."""
    document = read_json(body)
    if not isinstance(document, list):
        raise HttpError(400, f"Failed to parse body: it must be a list of operations, not {json_type(document)}")
    if len(document) > OPERATIONS_MAX:
        count = f"({len(document)} > {OPERATIONS_MAX})"
        raise HttpError(413, f"Transaction contains too many operations {count}")
    found: list[Operation] = []
    refused: list[OperationError] = []
    for position, each in enumerate(document):
        try:
            found.append(_operation(Fields(each, f"operation {position}"), datacenter, value_size_max))
        except HttpError as error:
            if error.status != 500:
                raise
            refused.append(OperationError(position, error.text))
    if refused:
        raise RefusedOperations(refused)
    return tuple(found)


def _operation(fields: Fields, datacenter: str, value_size_max: int) -> Operation:
    if (kv := fields.object("KV")) is not None:
        return _kv_operation(kv, value_size_max)
    if (asked := fields.object("Node")) is not None:
        verb, node = _verb(asked), _node(_within(asked, "Node"), datacenter)
        if verb != "get" and not node.node:
            raise HttpError(500, "Must provide node")
        return NodeOperation(verb, node)
    if (asked := fields.object("Service")) is not None:
        verb, on = _verb(asked), asked.text("Node")
        return ServiceOperation(verb, _service(_within(asked, "Service"), on, named=verb != "get"))
    if (asked := fields.object("Check")) is not None:
        return CheckOperation(_verb(asked), _check(_within(asked, "Check"), asked.text("Node")))
    raise HttpError(400, "Failed to parse body: an operation has one of KV, Node, Service and Check")


def _within(fields: Fields, name: str) -> Fields:
    found = fields.object(name)
    return found if found is not None else Fields({}, name)


def _verb(fields: Fields) -> str:
    verb = fields.text("Verb")
    if verb not in VERBS:
        raise HttpError(400, f"Failed to parse body: Verb must be one of {', '.join(VERBS)}, not {verb!r}")
    return verb


def _kv_operation(fields: Fields, value_size_max: int) -> KvOperation:
    verb, key = fields.text("Verb"), fields.text("Key")
    if verb not in (*KV_WRITES, *KV_READS):
        verbs = ", ".join((*KV_WRITES, *KV_READS))
        raise HttpError(400, f"Failed to parse body: Verb must be one of {verbs}, not {verb!r}")
    try:
        value = b64decode(fields.text("Value"), validate=True)
    except ValueError as error:  # binascii.Error is one; text that is not ASCII is another
        raise HttpError(400, f"Failed to parse body: failed to decode value: {error}") from None
    if len(value) > value_size_max:
        size = f"({len(value)} > {value_size_max} bytes)"
        raise HttpError(413, f'Value for key "{key}" is too large {size}')
    return KvOperation(verb, key, value, fields.unsigned("Flags"), fields.unsigned("Index"), fields.text("Session"))
