"""`/v1/agent/self`: what an agent says of itself. Source: Consul, "Agent HTTP API"; statistics are strings, as Go's.
There are no coordinates and no mesh: `Coord` is null and `xDS` is not there, as where Consul has them disabled.

Beyond Consul, `Stats.rpc.peers` says for each other server whether this one is connected to it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from impl.agent.config.validated import Config
from impl.agent.driver import Driver
from impl.agent.local.definitions import go_duration
from impl.agent.local.registrations import Registrations
from impl.agent.membership.members import Members
from impl.agent.membership.operations import RaftServer
from impl.raft.reads import has_lease
from impl.raft.ready import Role
from impl.runtime.interfaces import NANOSECONDS, Runtime

VERSION = "1.22.0"
"""The release of Consul whose interfaces are emulated."""
BUILD_DATE = "1970-01-01T00:00:01Z"
"""What Consul shows of a build that knows no date."""
ALIVE = 1
"""Serf's status of a live member."""
FAILED = 4
"""Of one that is not reachable."""


def describe_config(config: Config, node_id: str, host: str, port: int) -> dict[str, Any]:
    """`Config` and `Member`: the same for servers and client agents."""
    member = describe_member(config.node_name, host, port if config.server else 0, config.datacenter, node_id, ALIVE)
    if config.server:
        member["Tags"] |= {"expect": str(config.bootstrap_expect)}
    return {
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.datacenter,
            "NodeName": config.node_name,
            "NodeID": node_id,
            "Revision": "comitia",
            "Server": config.server,
            "Version": VERSION,
            "BuildDate": BUILD_DATE,
        },
        "DebugConfig": _debug_config(config, node_id),
        "Coord": None,
        "Member": member,
        "Stats": {},
        "Meta": {},
    }


def _debug_config(config: Config, node_id: str) -> dict[str, Any]:
    """The configuration in force, by the names that Consul gives its parts; what it has beyond Comitia is not there."""
    return {
        "AdvertiseAddrLAN": config.advertise_addr,
        "BindAddr": config.bind_addr,
        "BootstrapExpect": config.bootstrap_expect,
        "ClientAddrs": [config.client_addr],
        "DNSARecordLimit": config.dns.a_record_limit,
        "DNSDomain": f"{config.dns.domain}.",
        "DNSNodeTTL": f"{config.dns.node_ttl}s",
        "DNSOnlyPassing": config.dns.only_passing,
        "DNSPort": config.dns_port,
        "DNSServiceTTL": {service: f"{ttl}s" for service, ttl in config.dns.service_ttl},
        "DNSUDPAnswerLimit": config.dns.udp_answer_limit,
        "DataDir": config.data_dir,
        "Datacenter": config.datacenter,
        "DevMode": config.dev,
        "EnableLocalScriptChecks": config.enable_local_script_checks,
        "EnableRemoteScriptChecks": config.enable_script_checks,
        "HTTPMaxConnsPerClient": config.http_max_conns_per_client,
        "HTTPPort": config.http_port,
        "KVMaxValueSize": config.kv_max_value_size,
        "LeaveOnTerm": "SIGTERM" in config.leaves_on,
        "Logging": {"LogJSON": config.log_json, "LogLevel": config.log_level},
        "NodeID": node_id,
        "NodeMeta": config.node_meta,
        "NodeName": config.node_name,
        "PidFile": config.pid_file,
        "RPCHoldTimeout": go_duration(int(config.rpc_hold_timeout * NANOSECONDS)),
        "RaftSnapshotInterval": go_duration(int(config.raft_snapshot_interval * NANOSECONDS)),
        "RaftSnapshotThreshold": config.raft_snapshot_threshold,
        "RaftTrailingLogs": config.raft_trailing_logs,
        "ReadReplica": config.read_replica,
        "RetryJoinLAN": [str(address) for address in config.join],
        "ServerMode": config.server,
        "ServerPort": config.server_port,
        "SkipLeaveOnInt": "SIGINT" not in config.leaves_on,
        "Telemetry": {
            "AllowedPrefixes": list(config.telemetry.allowed),
            "BlockedPrefixes": list(config.telemetry.blocked),
            "DisableHostname": config.telemetry.disable_hostname,
            "FilterDefault": config.telemetry.filter_default,
            "MetricsPrefix": config.telemetry.prefix,
            "PrometheusOpts": {"Expiration": go_duration(int(config.telemetry.retention_seconds * NANOSECONDS))},
        },
        "Version": VERSION,
    }


def describe_local(local: Registrations) -> dict[str, str]:
    """Of `Stats.agent`: how many services and checks an agent has."""
    kinds = [definition.kind for definition in local.definitions.values()]
    ttls, maintained = kinds.count("ttl"), kinds.count("maintenance")
    return {
        "check_monitors": str(len(kinds) - ttls - maintained),
        "check_ttls": str(ttls),
        "checks": str(len(local.state.checks)),
        "services": str(len(local.state.services)),
    }


def describe_build() -> dict[str, str]:
    """`Stats.build`."""
    return {"prerelease": "", "revision": "comitia", "version": VERSION, "version_metadata": ""}


def describe_member(name: str, host: str, port: int, datacenter: str, node_id: str, status: int) -> dict[str, Any]:
    """An element of `/v1/agent/members`. `port`: of a server's RPC; 0: a client agent.

    *Deviation:* without gossip there is no port of it; the server's is shown.
    """
    tags = {"role": "consul" if port else "node", "dc": datacenter, "segment": "", "id": node_id, "acls": "0"}
    tags |= {"build": VERSION, "vsn": "2", "vsn_min": "2", "vsn_max": "3"}
    if port:
        tags |= {"port": str(port), "raft_vsn": "3"}
    protocols = {"ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2}
    delegates = {"DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4}
    return {"Name": name, "Addr": host, "Port": port, "Tags": tags, "Status": status} | protocols | delegates


def describe_runtime(runtime: Runtime) -> dict[str, str]:
    """`Stats.runtime`: `goroutines` are this process's tasks."""
    return {"goroutines": str(runtime.tasks.count())}


def describe_raft(driver: Driver | None, members: Members, last_contact_ms: int) -> dict[str, str]:
    """`Stats.raft`. Before the cluster has formed: a follower of nobody, in term 0.

    Comitia's own: `leader`, `log_base` (entries up to here are in the snapshot only), `lease_held` and
    `latest_configuration_index`.
    """
    if driver is None:
        return {"state": "Follower", "term": "0", "leader": "", "num_peers": "0", "last_contact": "never"}
    core, configuration = driver.core, driver.core.configuration
    if core.role is Role.LEADER:
        last_contact = "0"
    else:
        last_contact = f"{last_contact_ms}ms" if driver.last_contact_ns else "never"
    return {
        "state": core.role.value.capitalize(),
        "term": str(core.term),
        "commit_index": str(core.commit_index),
        "applied_index": str(driver.applied),
        "last_log_index": str(core.last_index),
        "last_log_term": str(core.server.log.last_term),
        "leader": core.leader_id or "",
        "num_peers": str(len(set(configuration.voters) - {members.myself.name})),
        "last_contact": last_contact,
        "last_snapshot_index": str(core.server.snapshot),
        "last_snapshot_term": str(driver.snapshots.last_term if driver.snapshots is not None else 0),
        "log_base": str(core.server.log.base),
        "lease_held": str(core.role is Role.LEADER and has_lease(core.server)).lower(),
        "latest_configuration": _show(members),
        "latest_configuration_index": str(configuration.index),
        "protocol_version": "3",
    }


def describe_snapshots(driver: Driver | None) -> dict[str, Any]:
    """`Stats.snapshots`, Comitia's own: empty before the cluster has formed. `staged_chunks`: of a restore of the state
    that is under way.
    """
    if driver is None or driver.snapshots is None:
        return {}
    staging = driver.store.tables.staging
    counters: dict[str, Any] = msgspec.to_builtins(driver.snapshots.counters)
    return {**counters, "staged_chunks": staging.chunks if staging is not None else 0}


def _show(members: Members) -> str:
    """The configuration as Consul shows it, in Go's notation."""
    servers = members.describe().servers
    shown = [f"{{Suffrage:{_suffrage(server)} ID:{server.id} Address:{server.address}}}" for server in servers]
    return f"[{' '.join(shown)}]"


def _suffrage(server: RaftServer) -> str:
    return "Voter" if server.voter else "Nonvoter"
