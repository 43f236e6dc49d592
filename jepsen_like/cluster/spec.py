"""What a cluster is made of, as a value, and the command line that starts each of its agents.

Names: servers s1.., client agents c1.., test clients t1.. (a namespace and a link of its own, but no process: sockets
are made in it). Addresses: `net/addresses.py`. Nothing here starts anything.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import msgspec

from jepsen_like.net import addresses

RPC_PORT, HTTP_PORT = 8300, 8500
SOURCE_ROOT = Path(__file__).resolve().parents[2]


class InvalidSpec(ValueError):
    """A cluster that cannot be; the text says why."""


class ClusterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster to start. Paths that are None lie in the cluster's state directory and vanish with it."""

    servers: int = 3
    spares: int = 0
    """So many of the servers, the last ones, are not in the first configuration and not started: `restart` starts one,
    and it joins."""
    clients: int = 0
    """Client agents."""
    test_clients: int = 0
    """Namespaces without a process, for the sockets of a test's own clients."""
    name: str | None = None
    """None: a free name is chosen."""
    agent_command: str | None = None
    """Replaces `comitia agent` (split as by a shell); gets the same arguments."""
    agent_arguments: tuple[str, ...] = ()
    """Added to every agent's arguments."""
    snapshot_threshold: int | None = None
    """Entries since its last snapshot after which a server takes one. None, here and below: the agent's default."""
    snapshot_interval_ms: int | None = None
    """How often it looks."""
    trailing_logs: int | None = None
    """Entries that it keeps behind a snapshot."""
    data_dir: Path | None = None
    log_dir: Path | None = None
    """One file per node, NODE.log, appended to over restarts; and supervisor.log."""
    trace_dir: Path | None = None
    """If given, servers start with `-trace`; the directory is shared, the file names tell nodes and incarnations
    apart."""
    seed: int = 0
    """Of the switch's randomness (loss, jitter, ...)."""
    publish: bool = False
    """Publish each agent's HTTP port on the host's loopback."""
    mtu: int = 9000

    @property
    def server_names(self) -> tuple[str, ...]:
        """s1, s2, ..."""
        return addresses.names("s", self.servers)

    @property
    def spare_names(self) -> tuple[str, ...]:
        """The servers that join later."""
        return self.server_names[self.servers - self.spares :]

    @property
    def client_names(self) -> tuple[str, ...]:
        """c1, c2, ..."""
        return addresses.names("c", self.clients)

    @property
    def test_client_names(self) -> tuple[str, ...]:
        """t1, t2, ..."""
        return addresses.names("t", self.test_clients)


def agent_prefix(agent_command: str | None) -> tuple[str, ...]:
    """The words before the agent's own arguments; raises InvalidSpec if the command cannot be split or is empty."""
    if agent_command is None:
        return (sys.executable, "-m", "comitia", "agent")
    try:
        words = shlex.split(agent_command)
    except ValueError as error:
        raise InvalidSpec(f"--agent-command {agent_command!r}: {error}") from error
    if not words:
        raise InvalidSpec("--agent-command is empty: name a program that takes the arguments of `comitia agent`")
    return tuple(words)


def agent_argv(spec: ClusterSpec, node: str, data_dir: Path) -> tuple[str, ...]:
    """The command line of a server's or client agent's process, with Consul's flags."""
    others = [name for name in spec.server_names if name != node]
    arguments = ["-node", node, "-bind", addresses.address_of(node), "-client", "0.0.0.0", "-data-dir", str(data_dir)]
    for name in others:
        arguments += ["-retry-join", addresses.address_of(name)]
    if node in spec.server_names:
        arguments = ["-server", *_server_arguments(spec, node), *arguments]
    return (*agent_prefix(spec.agent_command), *arguments, *spec.agent_arguments)


def _server_arguments(spec: ClusterSpec, node: str) -> list[str]:
    arguments = [] if node in spec.spare_names else ["-bootstrap-expect", str(spec.servers - spec.spares)]
    if spec.trace_dir is not None:
        arguments += ["-trace", str(spec.trace_dir.resolve())]
    if spec.snapshot_threshold is not None:
        arguments += ["-raft-snapshot-threshold", str(spec.snapshot_threshold)]
    if spec.snapshot_interval_ms is not None:
        arguments += ["-raft-snapshot-interval", f"{spec.snapshot_interval_ms}ms"]
    if spec.trailing_logs is not None:
        arguments += ["-raft-trailing-logs", str(spec.trailing_logs)]
    return arguments
