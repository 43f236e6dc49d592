"""Partitions, cuts and rules as values: what a plan computes, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.net import addresses, rules
from jepsen_like.net.rules import CUT, InvalidRule, LinkRule

FIVE = ("s1", "s2", "s3", "s4", "s5")
SLOW = LinkRule(delay_ms=50.0)


def reaches(current: rules.Rules, a: str, b: str) -> bool:
    return not current.get((a, b), rules.CLEAR).cut


def check_partition_is_exact(partitioned: Callable[..., dict[rules.Link, LinkRule]]) -> None:
    """Nodes reach each other if and only if they are in one group, or one of them is in none; whatever was before."""
    before = {("s1", "s3"): CUT, ("s4", "s5"): SLOW, ("t1", "s1"): CUT}
    after = partitioned(before, [["s1", "s3"], ["s2", "s4"]])
    group = {"s1": 1, "s3": 1, "s2": 2, "s4": 2}
    for a, b in itertools.permutations(FIVE, 2):
        together = a not in group or b not in group or group[a] == group[b]
        assert reaches(after, a, b) == together, (a, b)
    assert after["s4", "s5"] == SLOW
    assert not reaches(after, "t1", "s1"), "a partition of servers must not mend a client's link"


def test_a_partition_separates_exactly_its_groups() -> None:
    check_partition_is_exact(rules.partitioned)


def test_a_partition_that_forgets_one_direction_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rules.grudge
    monkeypatch.setattr(rules, "grudge", lambda groups: frozenset(link for link in whole(groups) if link[0] < link[1]))
    with pytest.raises(AssertionError):
        check_partition_is_exact(rules.partitioned)


def test_a_partition_that_does_not_mend_its_groups_is_noticed() -> None:
    def mutant(before: rules.Rules, groups: list[list[str]]) -> dict[rules.Link, LinkRule]:
        return rules.severed(before, rules.grudge(groups))

    with pytest.raises(AssertionError):
        check_partition_is_exact(mutant)


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=5, max_size=5))
def test_a_second_partition_replaces_the_first(assignment: list[int]) -> None:
    groups = [[node for node, each in zip(FIVE, assignment, strict=True) if each == g] for g in (1, 2, 3)]
    groups = [group for group in groups if group]
    if len(groups) < 2:
        return
    first = rules.partitioned({}, [["s1"], ["s2", "s3", "s4", "s5"]])
    assert rules.partitioned(first, groups) == rules.partitioned({}, groups)


def test_a_cut_is_one_way_and_keeps_what_else_the_link_does() -> None:
    after = rules.severed({("s1", "s2"): SLOW}, [("s1", "s2")])
    assert after == {("s1", "s2"): LinkRule(cut=True, delay_ms=50.0)}
    assert reaches(after, "s2", "s1")


def test_healing_some_links_leaves_the_others() -> None:
    before = {("s1", "s2"): CUT, ("s2", "s1"): CUT, ("s1", "s3"): SLOW}
    assert rules.healed(before, [("s1", "s2"), ("s2", "s1")]) == {("s1", "s3"): SLOW}
    assert rules.healed(before) == {}


def test_a_rule_that_changes_nothing_is_no_rule() -> None:
    assert rules.shaped({("s1", "s2"): CUT}, [("s1", "s2")], LinkRule()) == {}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("s1,s2/s3,s4,s5", [["s1", "s2"], ["s3", "s4", "s5"]]),
        ("s1 / s2, c1 / s3", [["s1"], ["s2", "c1"], ["s3"]]),
    ],
)
def test_a_partition_is_written_with_commas_and_slashes(text: str, groups: list[list[str]]) -> None:
    assert rules.parse_partition(text) == groups


@pytest.mark.parametrize("text", ["s1,s2", "s1,s2/", "/", "s1,,s2/s3", "s1,s2/s2,s3", ""])
def test_a_partition_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidRule, match=r"group|overlap"):
        rules.parse_partition(text)


@pytest.mark.parametrize(
    "rule",
    [
        LinkRule(loss=1.5),
        LinkRule(loss=-0.1),
        LinkRule(delay_ms=-1),
        LinkRule(rate_bytes_per_s=float("inf")),
        LinkRule(duplicate=float("nan")),
    ],
)
def test_impossible_values_are_refused(rule: LinkRule) -> None:
    with pytest.raises(InvalidRule):
        rules.shaped({}, [("s1", "s2")], rule)


def test_addresses_name_their_nodes() -> None:
    everyone = [*addresses.names("s", 99), *addresses.names("c", 99), *addresses.names("t", 54)]
    assert len({addresses.address_of(node) for node in everyone}) == len(everyone)
    for node in everyone:
        assert addresses.node_at(addresses.address_of(node) + ":8300") == node
    for foreign in ("10.77.0.100", "10.77.0.0", "10.77.0.255", "10.77.1.1", "127.0.0.1:8300", "", "s1"):
        assert addresses.node_at(foreign) is None, foreign


@pytest.mark.parametrize("name", ["s0", "s100", "t55", "x1", "s", "s1 ", "S1", "s01"])
def test_a_name_that_no_cluster_has_is_refused(name: str) -> None:
    with pytest.raises(addresses.UnknownNode):
        addresses.address_of(name)
