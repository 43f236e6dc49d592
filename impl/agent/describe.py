"""`/v1/agent/self`: what an agent says of itself. Source: Consul, "Agent HTTP API"; statistics are strings, as Go's.

Beyond Consul, `Stats.rpc.peers` says for each other server whether this one is connected to it.
"""

from __future__ import annotations

from typing import Any

from impl.agent.config import Config
from impl.agent.driver import Driver
from impl.raft.ready import Role

VERSION = "1.22.0"
"""The release of Consul whose interfaces are emulated."""
ALIVE = 1
"""Serf's status of a live member."""


def describe_config(config: Config, node_id: str, host: str, port: int) -> dict[str, Any]:
    """`Config` and `Member`: the same for servers and client agents."""
    tags = {"role": "consul" if config.server else "node", "dc": config.datacenter, "id": node_id, "build": VERSION}
    if config.server:
        tags |= {"port": str(port), "expect": str(config.bootstrap_expect)}
    return {
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.datacenter,
            "NodeName": config.node_name,
            "NodeID": node_id,
            "Server": config.server,
            "Revision": "comitia",
            "Version": VERSION,
        },
        "Member": {"Name": config.node_name, "Addr": host, "Port": port, "Tags": tags, "Status": ALIVE},
        "Meta": {},
    }


def describe_raft(driver: Driver | None, servers: int, last_contact_ms: int) -> dict[str, str]:
    """`Stats.raft`. Before the cluster has formed: a follower of nobody, in term 0."""
    if driver is None:
        return {"state": "Follower", "term": "0", "leader": "", "num_peers": "0", "last_contact": "never"}
    core = driver.core
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
        "num_peers": str(servers - 1),
        "last_contact": last_contact,
    }
