"""Nothing reads what compaction has forgotten, in any state that exploration meets; who does is caught."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from model_checks.explore import ghosts
from model_checks.explore.profiles import SMALL
from model_checks.explore.search import explore
from model_checks.explore.starts import STARTS
from spec.raft import actions
from spec.raft.actions import ACTIONS
from spec.raft.log import log_of
from spec.raft.messages import AppendEntriesRequest
from spec.raft.network import Protocol, Transition
from spec.raft.types import Configuration, Constants, Entry, Index, Outcome, Role, Server, ServerId, Time

LEGS = [leg for leg in SMALL if leg.bounds.snapshots]
MET: dict[str, list[Transition]] = {}


def met(number: int) -> list[Transition]:
    leg = LEGS[number]
    if leg.start not in MET:
        MET[leg.start] = list(explore(leg.bounds, start=STARTS[leg.start](leg.bounds)).local_transitions)
    return MET[leg.start]


def readers(protocol: Protocol, number: int) -> tuple[int, dict[str, int]]:
    bounds = LEGS[number].bounds
    return ghosts.ghost_readers(protocol, bounds.constants(), bounds, met(number))


@pytest.mark.parametrize("number", range(len(LEGS)))
def test_no_action_reads_below_the_base(number: int) -> None:
    attempts, caught = readers(ACTIONS, number)
    assert caught == {}
    assert attempts > 500


def send_from_anywhere(c: Constants, i: ServerId, s: Server, to: ServerId, prev: Index, last: Index) -> Outcome | None:
    """Sends entries that it has discarded."""
    if s.role is not Role.LEADER or to == i or not 0 <= prev <= last <= s.log.length:
        return None
    fields = (prev, s.log.term_at(prev), s.log.slice(prev, last), min(s.commit_index, last), s.round)
    return Outcome(s, sent=(AppendEntriesRequest(s.current_term, i, to, *fields),))


def take_if_all_agrees(c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest, now: Time) -> Outcome | None:
    """Compares entries that it has discarded with those of a message."""
    last = min(m.prev_log_index + len(m.entries), s.log.length)
    held = s.log.slice(m.prev_log_index, last) if m.prev_log_index <= last else ()
    if m.entries[: len(held)] != held:
        return None
    return actions.handle_append_entries_request(c, i, s, m, now)


def snapshot_if_first_is_known(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Takes snapshots depending on the first entry of its log, however long ago it was discarded."""
    if s.log.length and s.log.entry(1).value == ghosts.FORGOTTEN:
        return None
    return actions.take_snapshot(c, i, s, index)


@pytest.mark.parametrize(
    ("action", "mutant"),
    [
        ("append_entries", send_from_anywhere),
        ("handle_append_entries_request", take_if_all_agrees),
        ("take_snapshot", snapshot_if_first_is_known),
    ],
)
def test_an_action_that_reads_below_the_base_is_caught(action: str, mutant: actions.Action) -> None:
    caught: set[str] = set()
    for number in range(len(LEGS)):
        caught |= set(readers({**ACTIONS, action: mutant}, number)[1])
    assert caught == {action}


def test_another_history_keeps_terms_and_the_configuration_in_force() -> None:
    configuration, older = Configuration(("a", "b")), Configuration(("a",))
    log = log_of([Entry(1, "", older), Entry(1, "", configuration), Entry(2, "x")])
    other = ghosts.other_history(log)
    assert [entry.term for entry in other.slice(0, 3)] == [1, 1, 2]
    assert (other.configuration, other.configuration_index) == (configuration, 2)
    assert other.entry(1).configuration is None
    assert {entry.value for entry in other.slice(0, 3)} == {ghosts.FORGOTTEN}


def test_what_is_visible_changes_with_every_field_above_the_base_and_with_none_below() -> None:
    log = log_of([Entry(1, "x"), Entry(1, "y"), Entry(1, "z")])
    server = actions.restarted(replace(actions.initial_server().durable, term=1, log=log, snapshot=2, base=2))
    rewriting = ghosts.Rewriting(server)
    assert rewriting.server(server) != server
    assert ghosts.seen_server(rewriting.server(server)) == ghosts.seen_server(server)
    above = replace(server, durable=replace(server.durable, log=log.truncate(2).append(Entry(1, "w"))))
    assert ghosts.seen_server(above) != ghosts.seen_server(server)
    assert ghosts.seen_server(replace(server, heard_at=1)) != ghosts.seen_server(server)
