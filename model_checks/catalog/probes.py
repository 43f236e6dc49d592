"""How checks are probed that a client registers in the catalog: definitions, and the type of a check that names none.

Between them they have every field that a definition may have, so that none can be lost unseen. Source: Consul, "Catalog
HTTP API", `Check.Definition`; its `CheckType.Type`. Must not import impl.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PROBES: Final[Mapping[str, str]] = {
    '{"Interval":"10s","TCP":"h:1"}': "tcp",
    '{"TCP":"h:1","Timeout":"1s"}': "",  # nothing says how often
    '{"Body":"b","DeregisterCriticalServiceAfter":"1h0m0s","DisableRedirects":true,"HTTP":"http://h/","Header":'
    '{"X-A":["1","2"],"X-B":[]},"Interval":"1m30s","Method":"PUT","TLSServerName":"n","TLSSkipVerify":true,"TTL":1}': (
        "http"
    ),
    '{"GRPC":"h:1/s","GRPCUseTLS":true,"HTTP":"http://h/","Interval":"10s","OutputMaxSize":4096}': "grpc",
    '{"Interval":"10s","TCP":"h:1","TCPUseTLS":true,"TTL":15000000000,"UDP":"h:2"}': "ttl",
    '{"Interval":"10s","OSService":"o","UDP":"h:2"}': "udp",
    '{"AliasNode":"n","DockerContainerID":"d","Interval":"10s"}': "alias",
    '{"AliasService":"web"}': "alias",
    '{"DockerContainerID":"d","Interval":"10s","ScriptArgs":["a","b"],"Shell":"sh"}': "docker",
    '{"H2PING":"h:1","Interval":"10s","ScriptArgs":["a"]}': "script",
    '{"H2PING":"h:1","H2PingUseTLS":true,"Interval":"10s","OSService":"o"}': "h2ping",
    '{"Interval":"250ms","OSService":"o"}': "os_service",
}
"""Each as agents show it: names sorted, durations as Go writes them."""


def type_of(definition: str) -> str:
    """The type of a check that is registered with a definition and no type; "": it has none."""
    return PROBES.get(definition, "")
