"""Which links to cut: the shapes of partitions (Jepsen's grudges), as functions of names, the leader and random
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jepsen_like.generator.values import Draws
from jepsen_like.nemesis.book import Link

SHAPES = (
    "halves",
    "one node",
    "leader alone",
    "leader in minority",
    "ring",
    "deaf leader",
    "mute leader",
    "lost answers",
)
"""halves: a minority and a majority. one node: one agent away from all others. leader alone: the same with the
leader. leader in minority: the leader keeps too few servers. ring: every server sees a majority, no two the same
(five servers or more). deaf, mute
leader: one-way, it cannot hear, cannot be heard. lost answers: one-way, an agent's test clients get no answers."""
WEIGHTS = (4, 2, 2, 3, 1, 1, 1, 1)


class Cut(msgspec.Struct, frozen=True):
    """Directed links to cut, the nodes that are meant, and words for people."""

    links: tuple[Link, ...]
    nodes: tuple[str, ...]
    what: str


def shuffled(names: Sequence[str], draws: Draws) -> tuple[list[str], Draws]:
    """A random order (Fisher and Yates), and the draws that follow."""
    order = list(names)
    for last in range(len(order) - 1, 0, -1):
        place, draws = draws.below(last + 1)
        order[last], order[place] = order[place], order[last]
    return order, draws


def between(left: Sequence[str], right: Sequence[str]) -> tuple[Link, ...]:
    """Both directions of every pair."""
    return tuple(link for a in left for b in right for link in ((a, b), (b, a)))


def pick_shape(draws: Draws) -> tuple[str, Draws]:
    """A shape, by weight."""
    return draws.among(SHAPES, WEIGHTS)


def cut(
    shape: str, servers: Sequence[str], clients: Sequence[str], leader: str | None, draws: Draws, test_clients: int = 0
) -> Cut:
    """The links of `shape`. Without a known leader a random server stands for it; client agents take random sides."""
    order, draws = shuffled(servers, draws)
    agents = [*servers, *clients]
    central = leader if leader is not None else order[0]
    minority = (len(servers) - 1) // 2 or 1
    match shape:
        case "one node":
            place, draws = draws.below(len(agents))
            alone = agents[place]
            return Cut(between([alone], [a for a in agents if a != alone]), (alone,), f"{alone} | all others")
        case "leader alone":
            return Cut(between([central], [a for a in agents if a != central]), (central,), f"{central} | all others")
        case "deaf leader":
            return Cut(tuple((a, central) for a in agents if a != central), (central,), f"{central} hears nobody")
        case "mute leader":
            return Cut(tuple((central, a) for a in agents if a != central), (central,), f"nobody hears {central}")
        case "lost answers" if test_clients:
            place, draws = draws.below(min(test_clients, len(agents)))
            mute = agents[place]
            return Cut(((mute, f"t{place + 1}"),), (mute,), f"answers of {mute} to its test clients are lost")
        case "ring" if len(servers) >= 5:
            reach = len(servers) // 4 or 1
            apart = [
                (a, b)
                for i, a in enumerate(order)
                for j, b in enumerate(order)
                if i != j and min((i - j) % len(order), (j - i) % len(order)) > reach
            ]
            return Cut(tuple(apart), tuple(servers), "ring " + " ".join(order))
        case _:
            if shape == "leader in minority":
                order = [central, *(name for name in order if name != central)]
            left, right = order[:minority], order[minority:]
            for client in clients:
                side, draws = draws.below(2)
                (left, right)[side].append(client)
            return Cut(between(left, right), tuple(order[:minority]), f"{' '.join(left)} | {' '.join(right)}")
