"""Consul's commands that Comitia has not, so that who types one learns why, and what to do instead.

Nothing else is here: `comitia` and the groups of commands (`commandline.GoGroup`) ask for what they do not know.
Source: Consul, "Commands"; its `command/registry.go`.
"""

from __future__ import annotations

from typing import Final

import click

_ACL: Final = (
    "there are no ACLs, whoever reaches the HTTP port may do anything: let client_addr be an address that only they "
    "reach"
)
_MESH: Final = "there is no service mesh"
_GOSSIP: Final = "there is no gossip that could be encrypted: let nobody whom you do not trust reach the agents' ports"
_ENTERPRISE: Final = "it is of Consul Enterprise"

ABSENT: Final = {
    "acl": _ACL,
    "audit": _ENTERPRISE,
    "config": f"{_MESH}, and there are no configuration entries",
    "connect": _MESH,
    "debug": "look at `comitia info`, `comitia monitor -log-level=debug` and /v1/agent/metrics",
    "event": "events travel by gossip, which is not there: write a key, and wait for it with `comitia watch -type=key`",
    "exec": "remote execution travels by gossip, which is not there: run it by ssh on what `comitia members` lists",
    "intention": _MESH,
    "keygen": _GOSSIP,
    "keyring": _GOSSIP,
    "license": _ENTERPRISE,
    "login": _ACL,
    "logout": _ACL,
    "namespace": _ENTERPRISE,
    "operator area": _ENTERPRISE,
    "operator usage": "count what `comitia catalog services` and `comitia catalog nodes` list",
    "operator utilization": _ENTERPRISE,
    "partition": _ENTERPRISE,
    "peering": "there is one cluster, which has no peers",
    "resource": _MESH,
    "rtt": "there are no network coordinates: ask `ping`",
    "services export": f"{_MESH}, and services are not exported",
    "services exported-services": f"{_MESH}, and services are not exported",
    "snapshot agent": f"{_ENTERPRISE}: run `comitia snapshot save` from time to time",
    "snapshot decode": "look at `comitia snapshot inspect -kvdetails`",
    "tls": "there is no TLS yet: let nobody whom you do not trust reach the agents' ports",
    "troubleshoot": _MESH,
}


def absent_command(name: str) -> click.Command | None:
    """A command that says that Comitia has no `name` of Consul's, whatever it is given; None: nor has Consul."""
    if name not in ABSENT:
        return None

    def refuse(words: tuple[str, ...]) -> int:
        click.echo(f"Comitia has no command `{name}`: {ABSENT[name]}", err=True)
        return 1

    anything = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    return click.Command(name, settings, refuse, [anything], add_help_option=False)
