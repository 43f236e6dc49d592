"""Services and checks of an agent as users write them, in JSON, read into definitions.

Names of fields have neither case nor underscores: `ScriptArgs`, `script_args` and `args` say the same. Durations are
Go's, or nanoseconds. Source: Consul, "Agent HTTP API", "Define services", "Define health checks". *Deviation:* kinds of
checks that Comitia does not run are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from impl.agent.config.metadata import metadata_problem
from impl.agent.config.validated import ConfigError
from impl.agent.local.definitions import OUTPUT_BYTES_MAX, CheckDefinition, ServiceDefinition, Sidecar, problem
from impl.catalog.rows import CRITICAL, STATUSES, Service
from impl.http import mesh, sidecars
from impl.http.bodies import ANY_ADDRESS, refuse_nul, tagged_addresses, weights, weights_problem
from impl.http.fields import Fields, loose
from impl.http.request import HttpError

NOT_RUN: Final = {
    "dockercontainerid": "Docker",
    "osservice": "OS service",
}
"""Consul's checks that Comitia does not have, by the field that asks for one."""

_REFUSED: Final = "Request decode failed: "
"""How errors begin that are about a body."""


def configured(
    services: Iterable[Any], checks: Iterable[Any], scripts: bool
) -> tuple[list[ServiceDefinition], list[CheckDefinition]]:
    """The definitions of configuration files. Raises ConfigError.

    Args:
        scripts: whether their checks may run commands.
    """
    found = [verified_service(each) for each in services], [verified_check(each) for each in checks]
    for check in (*(check for service in found[0] for check in service.all_checks), *found[1]):
        if check.args and not scripts:
            raise ConfigError(
                f"check {check.check_id!r} is a script: set 'enable_local_script_checks' (or 'enable_script_checks') "
                "to true, or remove it"
            )
    names = {service.service.id for service in found[0]}
    for check in found[1]:
        if check.service_id and check.service_id not in names:
            raise ConfigError(
                f"check {check.check_id!r}: service {check.service_id!r} is defined by no file: define it"
            )
    return found


def verified_service(document: Any) -> ServiceDefinition:
    """The definition of an instance in a configuration file. Raises ConfigError."""
    try:
        return service_definition(document)
    except HttpError as error:
        raise ConfigError(f"a service: {error.text.removeprefix(_REFUSED)}") from error


def verified_check(document: Any) -> CheckDefinition:
    """The definition of a check in a configuration file. Raises ConfigError."""
    try:
        return check_definition(document)
    except HttpError as error:
        raise ConfigError(f"a check: {error.text.removeprefix(_REFUSED)}") from error


def service_definition(document: Any) -> ServiceDefinition:
    """The definition of an instance, with its checks and its sidecar. Raises HttpError."""
    definition = _service_definition(document)
    described = sidecars.described(Fields(loose(document)), definition.service)
    if described is None:
        return definition
    proxy = _service_definition(described.document, is_sidecar=True)
    return replace(definition, sidecar=Sidecar(proxy.service, proxy.checks, described.host))


def _service_definition(document: Any, *, is_sidecar: bool = False) -> ServiceDefinition:
    """`is_sidecar`: it need not have a port."""
    fields = Fields(loose(document))
    name = fields.text("Name") or fields.text("Service")
    if not name:
        raise HttpError(400, "Missing service name")
    if fields.text("Address") in ANY_ADDRESS:
        raise HttpError(400, "Invalid service address")
    kind, port = fields.text("Kind"), fields.number("Port")
    of_mesh = mesh.read(fields, name, kind, port != 0 or is_sidecar)
    service = Service(
        "",
        fields.text("ID") or name,
        name,
        kind,
        fields.strings("Tags"),
        fields.text("Address"),
        port,
        tagged_addresses(fields),
        fields.mapping("Meta"),
        weights(fields),
        fields.truth("EnableTagOverride"),
        connect=of_mesh.connect,
        mesh=of_mesh.text,
    )
    refuse_nul(service.id, "service ID")
    if why := weights_problem(*service.weights):
        raise HttpError(400, f"Invalid Weights: {why}")
    if why := metadata_problem(service.meta):
        raise HttpError(400, f"Invalid Service Meta: {why}")
    if of_mesh.problem:
        raise HttpError(400, f"Validation failed: {of_mesh.problem}")
    return ServiceDefinition(service, _checks_of(service, fields))


def _checks_of(service: Service, fields: Fields) -> tuple[CheckDefinition, ...]:
    single = fields.raw("Check")
    several = fields.raw("Checks") or []
    if not isinstance(several, list):
        raise HttpError(400, "Request decode failed: Checks must be a list")
    documents = [each for each in ([single] if single else []) + several if each]
    definitions = []
    for number, document in enumerate(documents, 1):
        suffix = f":{number}" if len(documents) > 1 else ""
        check_id, name = f"service:{service.id}{suffix}", f"Service '{service.service}' check"
        definitions.append(_check(Fields(loose(document), "Check"), check_id, name, service.id))
    return tuple(definitions)


def check_definition(document: Any) -> CheckDefinition:
    """The definition of a check of its own. Raises HttpError."""
    fields = Fields(loose(document))
    if not fields.text("Name"):
        raise HttpError(400, "Missing check name")
    return _check(fields, fields.text("Name"), "", fields.text("ServiceID"))


def _check(fields: Fields, check_id: str, name: str, service_id: str) -> CheckDefinition:
    status = fields.text("Status") or CRITICAL
    if status not in STATUSES:
        of_service = "Status for checks must 'passing', 'warning', 'critical'"
        raise HttpError(400, of_service if name else "Bad check status")
    for field, called in NOT_RUN.items():
        if fields.raw(field):
            raise HttpError(400, f"Invalid check: {called} checks are not supported by this agent")
    definition = CheckDefinition(
        check_id=fields.text("CheckID") or fields.text("ID") or check_id,
        name=fields.text("Name") or name,
        notes=fields.text("Notes"),
        status=status,
        service_id=service_id,
        ttl_ns=fields.duration("TTL"),
        http=fields.text("HTTP"),
        method=fields.text("Method") or "GET",
        header={name: tuple(values) for name, values in fields.lists("Header").items()},
        body=fields.text("Body"),
        disable_redirects=fields.truth("DisableRedirects"),
        tcp=fields.text("TCP"),
        tcp_use_tls=fields.truth("TCPUseTLS"),
        udp=fields.text("UDP"),
        grpc=fields.text("GRPC"),
        grpc_use_tls=fields.truth("GRPCUseTLS"),
        h2ping=fields.text("H2PING"),
        h2ping_use_tls=fields.raw("H2PingUseTLS") is None or fields.truth("H2PingUseTLS"),
        tls_skip_verify=fields.truth("TLSSkipVerify"),
        tls_server_name=fields.text("TLSServerName"),
        alias_node=fields.text("AliasNode"),
        alias_service=fields.text("AliasService"),
        args=fields.strings("ScriptArgs") or fields.strings("Args"),
        interval_ns=fields.duration("Interval"),
        timeout_ns=fields.duration("Timeout"),
        success_before_passing=fields.number("SuccessBeforePassing"),
        failures_before_warning=fields.number("FailuresBeforeWarning"),
        failures_before_critical=fields.number("FailuresBeforeCritical"),
        deregister_after_ns=fields.duration("DeregisterCriticalServiceAfter"),
        output_bytes_max=fields.number("OutputMaxSize") or OUTPUT_BYTES_MAX,
    )
    refuse_nul(definition.check_id, "check ID")
    if why := problem(definition):
        raise HttpError(400, f"Invalid check: {why}")
    return definition
