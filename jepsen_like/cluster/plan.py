"""What the launcher tells the supervisor: everything it must build, with nothing left to decide. Written as
plan.json."""

from __future__ import annotations

import msgspec

from jepsen_like.cluster.processes import AgentPlan
from jepsen_like.net.namespaces import Identity


class NodePlan(msgspec.Struct, frozen=True):
    """A namespace with a link to the switch, and the agent that runs in it, if any."""

    name: str
    address: str
    agent: AgentPlan | None = None
    listener: int | None = None
    """A listening socket of the host's loopback, to be relayed to the agent's HTTP port."""
    published: str | None = None
    """The listener's address, as people write it."""
    started: bool = True
    """Whether the agent is started with the cluster."""


class WorldPlan(msgspec.Struct, frozen=True):
    """A cluster to build. Numbers called descriptors are inherited open files."""

    name: str
    directory: str
    nodes: tuple[NodePlan, ...]
    user: Identity | None
    """Agents become this user."""
    own_user_namespace: bool
    """Not privileged: be root of a new user namespace."""
    seed: int
    mtu: int
    http_port: int
    lock: int
    """Descriptor of the directory's lock: held for life."""
    report: int
    """Descriptor of a pipe to the launcher: Report objects, one a line."""
    lifeline: int | None
    """Descriptor of a pipe from the owner: its end of file ends the cluster. None: a daemon."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the launcher hears: first the supervisor's pid, then that all agents run, or why not."""

    supervisor_pid: int = 0
    ready: bool = False
    error: str | None = None
