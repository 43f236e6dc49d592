"""Which processes to kill or pause, as functions of names, the leader and random numbers."""

from __future__ import annotations

from collections.abc import Sequence

from jepsen_like.generator.values import Draws
from jepsen_like.nemesis.partition import shuffled

TARGETS = ("leader", "one", "minority", "client agent", "all servers")
WEIGHTS = {"kill": (4, 4, 2, 1, 1), "pause": (4, 4, 2, 1, 0)}


def pick_target(package: str, draws: Draws) -> tuple[str, Draws]:
    """A kind of target, by the weights of `package`."""
    return draws.among(TARGETS, WEIGHTS[package])


def nodes_of(
    target: str, servers: Sequence[str], clients: Sequence[str], leader: str | None, draws: Draws
) -> tuple[str, ...]:
    """The nodes of `target`. Without a known leader, or without client agents, a random server stands for it."""
    order, draws = shuffled(servers, draws)
    match target:
        case "leader" if leader is not None:
            return (leader,)
        case "minority":
            return tuple(order[: (len(servers) - 1) // 2 or 1])
        case "client agent" if clients:
            return (shuffled(clients, draws)[0][0],)
        case "all servers":
            return tuple(servers)
        case _:
            return (order[0],)
