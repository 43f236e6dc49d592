"""Conformance rejects traces in which clocks, leases, pre-votes, membership, snapshots or evidence were tampered with.

The run and its fixtures are those of `test_conformance_traces`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from model_checks.conformance import check_traces
from model_checks.conformance.spec_nodes import Lines
from model_checks.conformance.spec_runs import LEASE_NS, written
from model_checks.verdicts import CheckResult, Verdict

Tamper = Callable[[Lines], None]


def judged(lines: Lines, directory: Path) -> dict[str, CheckResult]:
    return {result.checker.partition("/")[2]: result for result in check_traces(written(lines, directory))}


def broken(results: dict[str, CheckResult]) -> list[tuple[str, str]]:
    return [(name, result.property) for name, result in results.items() if result.verdict == Verdict.INVALID]


# ---------------------------------------------------------------------------------------------- tampering


def steps(lines: Lines, action: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for name in sorted(lines):
        for place, line in enumerate(lines[name]):
            if line["kind"] in ("step", "send") and line["action"] == action:
                yield name, place, line


def first(lines: Lines, action: str) -> dict[str, Any]:
    return next(steps(lines, action))[2]


def last(lines: Lines, action: str) -> dict[str, Any]:
    return list(steps(lines, action))[-1][2]


def drop(lines: Lines, name: str, place: int) -> None:
    del lines[name][place]
    for line in lines[name][place:]:
        line["seq"] -= 1


def turn_the_clock_back(lines: Lines) -> None:
    last(lines, "begin_round")["now"] = 1


def turn_the_clock_ahead(lines: Lines) -> None:
    line = last(lines, "begin_round")
    line["now"] = line["ns"] + 1


def receive_before_the_sender_sent(lines: Lines) -> None:
    """The receiver's clock is behind that of the sender, though it does not go back."""
    sent = {line["id"]: (name, place) for name in lines for place, line in enumerate(lines[name]) if "id" in line}
    for name, place, line in steps(lines, "handle_append_entries_request"):
        sender, at = sent[line["message"]]
        sender_clock = max((each.get("now", 0) for each in lines[sender][:at]), default=0)
        own_clock = max([lines[name][0]["state"][15], *(each.get("now", 0) for each in lines[name][1:place])])
        if own_clock < sender_clock:
            line["now"] = own_clock
            return
    raise AssertionError("every receiver has read its clock after the sender's")


def hold_leases_that_are_over(lines: Lines) -> None:
    for of_file in lines.values():
        of_file[0]["lease_ns"] = 1


def hold_leases_longer_than_the_election_timeout(lines: Lines) -> None:
    for of_file in lines.values():
        of_file[0]["election_ns"] = LEASE_NS


def confirm_a_consistent_read_by_a_lease(lines: Lines) -> None:
    name, place, line = next(steps(lines, "lease_read"))
    answer = next(x for x in lines[name][place:] if x["kind"] == "answer" and x.get("read") == line["read"])
    answer["mode"] = "consistent"


def campaign_without_pre_votes(lines: Lines) -> None:
    for name, place, line in steps(lines, "timeout"):
        before = next(x for x in reversed(lines[name][:place]) if "state" in x)
        if before["state"][16] and not before["state"][17] and line:
            while (earlier := lines[name][place - 1]).get("action") != "update_term" and "election_ns" not in earlier:
                place -= 1
                if earlier.get("action") == "handle_pre_vote_response":
                    drop(lines, name, place)
                elif "state" in earlier:
                    earlier["state"][16] = []
            return
    raise AssertionError("nobody campaigned with pre-votes")


def grant_a_pre_vote_that_was_refused(lines: Lines) -> None:
    """One that is like no other: to say again what was granted once is no harm."""
    for name in lines:
        answers = [x for x in lines[name] if x["kind"] == "send" and x["action"] == "handle_pre_vote_request"]
        granted = [(x["to"], x["message"]["term"]) for x in answers if x["message"]["vote_granted"]]
        for answer in answers:
            if not answer["message"]["vote_granted"] and (answer["to"], answer["message"]["term"]) not in granted:
                answer["message"]["vote_granted"] = True
                return
    raise AssertionError("no pre-vote was refused")


def believe_that_a_server_ended_which_never_led(lines: Lines) -> None:
    line = first(lines, "handle_lease_ended")
    line["peer"] = next(f"s{number}" for number in range(1, 5) if f"s{number}" != line["peer"])


def believe_in_ones_own_end(lines: Lines) -> None:
    name, _, line = next(steps(lines, "handle_lease_ended"))
    line["peer"] = name[:2]


def believe_that_an_earlier_process_led(lines: Lines) -> None:
    line = next(x for _, _, x in steps(lines, "handle_lease_ended") if x["incarnation"] > 1)
    line["incarnation"] -= 1


def believe_the_end_before_it_came(lines: Lines) -> None:
    """The process that is said to have ended wrote one more line, later."""
    line = first(lines, "handle_lease_ended")
    of_file = lines[f"{line['peer']}-{line['incarnation']:06d}.ndjson"]
    of_file[-1]["ns"] = line["ns"] + 1


def ask_to_campaign_without_a_transfer(lines: Lines) -> None:
    name, place, _ = next(steps(lines, "transfer_leadership"))
    drop(lines, name, place)
    for line in lines[name][place:]:
        if "state" in line:
            line["state"][19] = False


def forged(line: dict[str, Any], change: Callable[[Any], None]) -> None:
    """Change the configuration that a line proposes."""
    fields = msgspec.msgpack.decode(base64.b64decode(line["entries"][0][1]))
    change(fields)
    line["entries"][0][1] = base64.b64encode(msgspec.msgpack.encode(fields)).decode()


def change_two_servers_at_once(lines: Lines) -> None:
    def change(fields: Any) -> None:
        fields[1] = [*fields[1], ["s8", "", "", "", True], ["s9", "", "", "", False]]

    forged(first(lines, "change_configuration"), change)


def change_by_another_commit(lines: Lines) -> None:
    def change(fields: Any) -> None:
        fields[2] += 1

    forged(first(lines, "change_configuration"), change)


def name_a_member_twice(lines: Lines) -> None:
    def change(fields: Any) -> None:
        fields[1] = [fields[1][0], *fields[1]]

    forged(first(lines, "change_configuration"), change)


def propose_no_configuration(lines: Lines) -> None:
    def change(fields: Any) -> None:
        fields[0] = "kv-set"

    forged(first(lines, "change_configuration"), change)


def append_two_configurations(lines: Lines) -> None:
    line = first(lines, "change_configuration")
    line["entries"] *= 2


def change_while_another_change_is_under_way(lines: Lines) -> None:
    name, place, line = next(steps(lines, "change_configuration"))
    second = msgspec.json.decode(msgspec.json.encode(line))
    second["entries"][0][0] += 1

    def change(fields: Any) -> None:
        fields[1] = [*fields[1], ["s9", "", "", "", False]]

    forged(second, change)
    lines[name].insert(place + 1, second)
    for each in lines[name][place + 1 :]:
        each["seq"] += 1


def take_a_snapshot_of_what_is_not_applied(lines: Lines) -> None:
    first(lines, "take_snapshot")["index"] += 100


def take_a_snapshot_of_another_state(lines: Lines) -> None:
    first(lines, "take_snapshot")["state_digest"] = "0" * 32


def take_a_snapshot_without_its_digest(lines: Lines) -> None:
    del first(lines, "take_snapshot")["state_digest"]


def forget_what_no_snapshot_covers(lines: Lines) -> None:
    first(lines, "compact")["index"] += 100


def restore_another_snapshot(lines: Lines) -> None:
    first(lines, "restore_snapshot")["index"] += 1


def restore_another_state(lines: Lines) -> None:
    first(lines, "restore_snapshot")["state_digest"] = "0" * 32


def send_another_snapshot(lines: Lines) -> None:
    first(lines, "install_snapshot")["message"]["digest"] = "0" * 16


def recover_without_the_snapshot(lines: Lines) -> None:
    headers = [lines[name][0] for name in sorted(lines)]
    next(header for header in headers if header["state"][13])["state"][13:15] = [0, 0]


CLOCKS = "clocks do not go back, nor ahead"
ENDED = "a process is believed to have ended only when it has"
FORMAT = "configurations are those of the format"
CHANGE = "change_configuration is enabled"
DIGEST = "a snapshot is the state at its index"
TAMPERED: dict[Tamper, tuple[str, str]] = {
    turn_the_clock_back: ("raft", CLOCKS),
    turn_the_clock_ahead: ("raft", CLOCKS),
    receive_before_the_sender_sent: ("provenance", "a message is not received before it was sent"),
    hold_leases_that_are_over: ("raft", "lease_read is enabled"),
    hold_leases_longer_than_the_election_timeout: ("raft", "a lease ends before anybody votes"),
    confirm_a_consistent_read_by_a_lease: ("reads", "a consistent read is confirmed by a quorum"),
    campaign_without_pre_votes: ("raft", "timeout is enabled"),
    grant_a_pre_vote_that_was_refused: ("raft", "handle_pre_vote_request sends the spec's message"),
    believe_that_a_server_ended_which_never_led: ("provenance", ENDED),
    believe_in_ones_own_end: ("provenance", ENDED),
    believe_that_an_earlier_process_led: ("provenance", ENDED),
    believe_the_end_before_it_came: ("provenance", ENDED),
    ask_to_campaign_without_a_transfer: ("raft", "timeout_now is enabled"),
    change_two_servers_at_once: ("raft", CHANGE),
    change_by_another_commit: ("raft", CHANGE),
    change_while_another_change_is_under_way: ("raft", CHANGE),
    name_a_member_twice: ("raft", FORMAT),
    propose_no_configuration: ("raft", FORMAT),
    append_two_configurations: ("raft", "a configuration is one entry, at the end of the log"),
    take_a_snapshot_of_what_is_not_applied: ("raft", "take_snapshot is enabled"),
    take_a_snapshot_of_another_state: ("reads", DIGEST),
    take_a_snapshot_without_its_digest: ("reads", DIGEST),
    forget_what_no_snapshot_covers: ("raft", "compact is enabled"),
    restore_another_snapshot: ("raft", "the newest snapshot is restored"),
    restore_another_state: ("reads", DIGEST),
    send_another_snapshot: ("raft", "install_snapshot sends the spec's message"),
    recover_without_the_snapshot: ("durability", "the disk keeps what it confirmed, and nothing that was not written"),
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_a_trace_that_was_tampered_with_is_rejected(lines: Lines, tamper: Tamper, tmp_path: Path) -> None:
    tamper(lines)
    results = judged(lines, tmp_path)
    assert TAMPERED[tamper] in broken(results)
    guilty = results[TAMPERED[tamper][0]]
    assert "line" in guilty.reason and "the last lines of" in guilty.details


FIELDS = {13: "snapshot", 14: "base", 15: "heard_at", 18: "urged_by", 20: "configuration_index"}


@pytest.mark.parametrize("place", FIELDS, ids=FIELDS.get)
def test_every_field_of_the_state_is_compared(lines: Lines, place: int, tmp_path: Path) -> None:
    last(lines, "apply")["state"][place] += 1
    results = judged(lines, tmp_path)
    assert ("raft", "apply yields the spec's state") in broken(results)
    assert FIELDS[place] in results["raft"].details


@pytest.mark.parametrize(("place", "value"), [(16, ["s9"]), (17, None), (19, None)])
def test_every_flag_of_the_state_is_compared(lines: Lines, place: int, value: object, tmp_path: Path) -> None:
    state = last(lines, "apply")["state"]
    state[place] = value if value is not None else not state[place]
    assert ("raft", "apply yields the spec's state") in broken(judged(lines, tmp_path))


MESSAGES = {
    "request_pre_vote": ("term", "last_log_index", "last_log_term"),
    "handle_pre_vote_request": ("term", "vote_granted"),
    "request_vote": ("term", "last_log_index", "last_log_term", "urged_by"),
    "vote_response": ("term",),
    "append_entries": ("term", "prev_log_term", "commit_index", "round"),
    "append_entries_response": ("term", "round"),
    "install_snapshot": ("term", "last_index", "last_term", "round"),
    "timeout_now": ("term",),
}


@pytest.mark.parametrize(("action", "field"), [(action, field) for action in MESSAGES for field in MESSAGES[action]])
def test_every_field_of_every_message_is_compared(lines: Lines, action: str, field: str, tmp_path: Path) -> None:
    sent = [line for _, _, line in steps(lines, action) if line["kind"] == "send"]
    sent[-1]["message"][field] += 1
    assert ("raft", f"{action} sends the spec's message") in broken(judged(lines, tmp_path))


@pytest.mark.parametrize("action", MESSAGES)
def test_a_message_that_lacks_a_field_is_not_the_specs(lines: Lines, action: str, tmp_path: Path) -> None:
    sent = [line for _, _, line in steps(lines, action) if line["kind"] == "send"]
    del sent[0]["message"]["term"]
    assert ("raft", f"{action} sends the spec's message") in broken(judged(lines, tmp_path))
