"""What is said on a cluster's control socket: one JSON object a line, requests answered in the order of completion.

Each request has a fresh `id`, which its reply repeats. A reply may carry file descriptors (SCM_RIGHTS); it says how
many. The same structs are what the supervisor reads and what `api.py` returns: parse once, then trust.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from jepsen_like.net.rules import LinkCounters, LinkRule


class Interval(NamedTuple):
    """Nanoseconds of CLOCK_MONOTONIC: a fault was not in force before `start_ns`, and is fully in force after
    `end_ns`."""

    start_ns: int
    end_ns: int


class Partition(msgspec.Struct, frozen=True, tag="partition", tag_field="op"):
    """The named nodes reach exactly those of their own group."""

    groups: tuple[tuple[str, ...], ...]


class Cut(msgspec.Struct, frozen=True, tag="cut", tag_field="op"):
    """These directed links are black holes."""

    links: tuple[tuple[str, str], ...]


class Shape(msgspec.Struct, frozen=True, tag="shape", tag_field="op"):
    """These directed links follow the rule."""

    links: tuple[tuple[str, str], ...]
    rule: LinkRule


class Heal(msgspec.Struct, frozen=True, tag="heal", tag_field="op"):
    """These directed links, or all, are clear again."""

    links: tuple[tuple[str, str], ...] | None = None


class Kill(msgspec.Struct, frozen=True, tag="kill", tag_field="op"):
    """SIGKILL to the node's process group; done when it has been reaped."""

    node: str


class Pause(msgspec.Struct, frozen=True, tag="pause", tag_field="op"):
    """SIGSTOP; done when the kernel reports the process stopped."""

    node: str


class Resume(msgspec.Struct, frozen=True, tag="resume", tag_field="op"):
    """SIGCONT; done when the kernel reports it."""

    node: str


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="op"):
    """SIGTERM; done when the process has ended. After `timeout_s` it is killed, and the reply says so as an error."""

    node: str
    timeout_s: float = 10.0


class Start(msgspec.Struct, frozen=True, tag="start", tag_field="op"):
    """Start the agent of a node that has none running; done when it runs, which is not yet when it serves."""

    node: str


class Describe(msgspec.Struct, frozen=True, tag="describe", tag_field="op"):
    """Ask for a WorldState."""


class MakeSocket(msgspec.Struct, frozen=True, tag="make-socket", tag_field="op"):
    """A TCP (or UDP) socket born in the node's namespace, where it stays; the reply carries it."""

    node: str
    datagram: bool = False


class OpenNamespaces(msgspec.Struct, frozen=True, tag="open-namespaces", tag_field="op"):
    """Descriptors of the namespaces that a process of the node lives in: user (if it has its own), mount, pid, net."""

    node: str


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown", tag_field="op"):
    """Stop all agents, gracefully for `timeout_s`, then end the supervisor and with it everything."""

    timeout_s: float = 5.0


Operation = (
    Partition
    | Cut
    | Shape
    | Heal
    | Kill
    | Pause
    | Resume
    | Stop
    | Start
    | Describe
    | MakeSocket
    | OpenNamespaces
    | Shutdown
)


class Request(msgspec.Struct, frozen=True):
    """One line to the supervisor."""

    id: int
    do: Operation


class Exit(msgspec.Struct, frozen=True):
    """The end of an agent's process. `status` as in subprocess: negative is a signal. `expected`: this harness asked
    for it."""

    node: str
    start: int
    status: int
    expected: bool
    at_ns: int


class NodeState(msgspec.Struct, frozen=True):
    """A node as its supervisor sees it. `state`: running, paused, stopped (has no process), or none (never has one)."""

    name: str
    address: str
    state: str
    starts: int = 0
    pid: int | None = None
    """In the cluster's own pid namespace."""
    published: str | None = None
    """Where its HTTP port is found on the host's loopback: "127.0.0.1:PORT"."""


class LinkState(msgspec.Struct, frozen=True):
    """A directed link that carried a packet or has a rule."""

    source: str
    target: str
    rule: LinkRule
    counters: LinkCounters


class WorldState(msgspec.Struct, frozen=True):
    """All that the supervisor knows."""

    name: str
    nodes: tuple[NodeState, ...]
    links: tuple[LinkState, ...]
    exits: tuple[Exit, ...]


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from the supervisor. `error` is None when the operation was carried out."""

    id: int
    start_ns: int = 0
    end_ns: int = 0
    descriptors: int = 0
    error: str | None = None
    world: WorldState | None = None


class ClusterFailure(Exception):
    """The supervisor could not do what it was asked, or is gone; the text says why."""
