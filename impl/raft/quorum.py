"""Majorities of a fixed set of voters (Ongaro 2014, sections 3.4 and 3.5)."""

from __future__ import annotations

from collections.abc import Sequence


def majority(voters: int) -> int:
    """How many of `voters` servers are a quorum: any two quorums share a server."""
    return voters // 2 + 1


def reached_by_quorum(values: Sequence[int]) -> int:
    """The greatest number that a majority of the voters has reached; `values` has one number for each voter."""
    return sorted(values, reverse=True)[majority(len(values)) - 1]
