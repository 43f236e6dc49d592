"""Majorities of the voters (Ongaro 2014, sections 3.4, 3.5 and 4.2.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def majority(voters: int) -> int:
    """How many of `voters` servers are a quorum: any two quorums share a server."""
    return voters // 2 + 1


def has_majority(voters: Sequence[str], servers: Collection[str]) -> bool:
    """Whether `servers` hold a majority of `voters`. Who does not vote does not count."""
    return sum(voter in servers for voter in voters) >= majority(len(voters))


def reached_by_quorum(values: Sequence[int]) -> int:
    """The greatest number that a majority of the voters has reached; `values` has one number for each voter."""
    return sorted(values, reverse=True)[majority(len(values)) - 1]
