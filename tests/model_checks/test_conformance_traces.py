"""Conformance accepts what the spec does and rejects everything else, naming the rule that was broken.

A random run of the spec, written as traces, conforms; a run that was tampered with does not.
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
from model_checks.conformance.spec_runs import SpecCluster, written
from model_checks.verdicts import CheckResult, Verdict, merge
from spec.raft.actions import ACTIONS


def judged(lines: Lines, directory: Path) -> dict[str, CheckResult]:
    return {result.checker.partition("/")[2]: result for result in check_traces(written(lines, directory))}


def broken(results: dict[str, CheckResult]) -> list[tuple[str, str]]:
    return [(name, result.property) for name, result in results.items() if result.verdict == Verdict.INVALID]


# ---------------------------------------------------------------------------------------------- what conforms


@pytest.mark.parametrize(("seed", "servers"), [(1, 1), (2, 3), (3, 3), (4, 5)])
def test_a_run_of_the_spec_conforms(seed: int, servers: int, tmp_path: Path) -> None:
    results = judged(SpecCluster(seed, servers).run(3000).lines, tmp_path)
    assert broken(results) == []


def test_a_good_run_is_not_vacuous(good_run: Lines, tmp_path: Path) -> None:
    results = judged(good_run, tmp_path)
    assert merge(result.verdict for result in results.values()) == Verdict.VALID
    steps = results["raft"].figures["steps"]
    assert set(steps) == set(ACTIONS) - {"crash_restart"}
    assert results["raft"].figures["never"] == []
    assert {"membership_changes", "snapshots_taken", "snapshots_installed", "lease_reads", "transfers"} <= {
        name for name, number in results["raft"].figures["features"].items() if number
    }
    durability = results["durability"].figures
    assert durability["restarts"] > durability["issued_writes_lost"] > 0
    assert durability["unconfirmed_writes_survived"] > 0
    assert set(results["reads"].figures["by_mode"]) == {"write", "consistent", "default", "stale"}
    facts = results["invariants"].figures["facts"]
    assert facts["Elected"] > 2 and facts["Committed"] > 10 and facts["ReadAnswered"] > 10
    assert results["invariants"].figures["cuts"] > facts["Elected"]


# ---------------------------------------------------------------------------------------------- tampered traces


def every(lines: Lines, kind: str, action: str = "", **wanted: Any) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The lines of a kind (and action) in all files, with their file and place."""
    for name in sorted(lines):
        for place, line in enumerate(lines[name]):
            if line["kind"] == kind and line.get("action", "") == action:
                fields = line | line.get("message", {}) if isinstance(line.get("message"), dict) else line
                if all(fields.get(field) == value for field, value in wanted.items()):
                    yield name, place, line


def drop(lines: Lines, name: str, place: int) -> None:
    """Take a line out so that the sequence numbers do not show it."""
    del lines[name][place]
    for line in lines[name][place:]:
        line["seq"] -= 1


def received_sends(lines: Lines) -> set[str]:
    return {line["message"] for of_file in lines.values() for line in of_file if isinstance(line.get("message"), str)}


def drop_a_line(lines: Lines) -> None:
    del lines["s1-000001.ndjson"][5]


def drop_a_send_that_was_received(lines: Lines) -> None:
    received = received_sends(lines)
    name, place, _ = next(each for each in every(lines, "send", "append_entries") if each[2]["id"] in received)
    drop(lines, name, place)


def alter_a_digest(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "client_request"))
    line["state"][8] = "0123456789abcdef"


def alter_a_payload(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "client_request"))
    line["entries"][0][1] = base64.b64encode(msgspec.msgpack.encode(["kv-set", "k1", b"forged", 0])).decode()


def forge_a_vote(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "vote_response", vote_granted=False))
    line["message"]["vote_granted"] = True


def forge_an_acknowledgement(lines: Lines) -> None:
    """A follower acknowledges all that it holds of its leader's log while a write is under way."""
    for name, place, line in every(lines, "send", "append_entries_response", success=True):
        before = next(each for each in reversed(lines[name][:place]) if "state" in each)
        if line["message"]["match_index"] < before["state"][9]:
            line["message"]["match_index"] = before["state"][9]
            return
    raise AssertionError("every write was done when it was acknowledged")


def acknowledge_more_than_the_log(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "append_entries_response", success=True))
    line["message"]["match_index"] = 9_999


def alter_a_sent_slice(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "send", "append_entries") if each[2]["message"]["last_log_index"])
    line["message"]["digest"] = "0123456789abcdef"


def alter_a_round(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "append_entries"))
    line["message"]["round"] += 1


def alter_a_frame_on_arrival(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "handle_append_entries_request"))
    line["frame"] ^= 1


def deliver_to_another_server(lines: Lines) -> None:
    """Another server's message, which was on its way at that time."""
    name, _, line = list(every(lines, "step", "handle_append_entries_request"))[-1]
    others = [each for _, _, each in every(lines, "send", "append_entries") if not name.startswith(each["to"])]
    line["message"] = max((each["ns"], each["id"]) for each in others if each["ns"] < line["ns"])[1]


def two_servers_receive_what_nobody_sent(lines: Lines) -> None:
    name, _, first = next(every(lines, "step", "handle_append_entries_request"))
    second = next(x for n, _, x in every(lines, "step", "handle_append_entries_request") if n[:2] != name[:2])
    first["message"] = second["message"] = "s3/1/999999"


def receive_from_a_stranger(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "handle_append_entries_request"))
    line["message"] = "s9/1/1"


def handle_a_message_without_a_name(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "handle_append_entries_request"))
    line["message"] = ""


def go_back_in_time(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "handle_append_entries_request"))
    line["ns"] = 1


def send_twice_under_one_id(lines: Lines) -> None:
    name, _, first = next(every(lines, "send", "request_vote"))
    _, _, second = [each for each in every(lines, "send", "request_vote") if each[0] == name][1]
    second["id"] = first["id"]


def receive_before_sending(lines: Lines) -> None:
    """The leader's first append is answered by a message that is only sent after it arrived."""
    for name, place, line in every(lines, "send", "append_entries"):
        for other, at, handled in every(lines, "step", "handle_append_entries_request", message=line["id"]):
            reply = next(
                (
                    x
                    for x in lines[other][at:]
                    if x["kind"] == "send" and x["to"] == name[:2] and x["id"] in received_sends(lines)
                ),
                None,
            )
            if reply is None:
                continue
            arrival = next((p for p, x in enumerate(lines[name]) if x.get("message") == reply["id"]), None)
            if arrival is None:
                continue  # it arrived in a later incarnation
            moved = lines[name].pop(arrival)
            lines[name].insert(place, moved)
            for number, each in enumerate(lines[name][1:], 1):
                each["seq"] = number
            assert handled
            return
    raise AssertionError("no exchange in this run")


def lose_a_durable_write(lines: Lines) -> None:
    for name in sorted(lines):
        header = lines[name][0]
        if header["incarnation"] > 1 and header["state"][1] > 1:
            header["state"][1:9] = [0, None, None, 0, 0, 0, 0, "0" * 16]
            return


def recover_another_vote(lines: Lines) -> None:
    for name in sorted(lines):
        header = lines[name][0]
        if header["incarnation"] > 1 and header["state"][2]:
            header["state"][2] = None
            return


def confirm_a_write_that_was_not_issued(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "persist"))
    line["write"] = 999


def issue_another_point(lines: Lines) -> None:
    _, _, line = next(every(lines, "issue"))
    line["point"][0] += 1


def start_with_a_log(lines: Lines) -> None:
    lines["s1-000001.ndjson"][0]["state"][1:3] = [1, "s1"]


def elect_a_leader_without_votes(lines: Lines) -> None:
    name, place, _ = next(every(lines, "step", "become_leader"))
    while (before := lines[name][place - 1]).get("action") != "timeout":
        place -= 1
        if before.get("action") == "handle_request_vote_response":
            drop(lines, name, place)
        elif "state" in before:
            before["state"][11] = []


def commit_without_a_quorum(lines: Lines) -> None:
    """Remove the acknowledgements that let a leader commit, and what they changed in its recorded state."""
    name, place, line = next(every(lines, "step", "advance_commit_index"))
    while (before := lines[name][place - 1]).get("action") != "become_leader":
        place -= 1
        if before.get("action") == "handle_append_entries_response":
            drop(lines, name, place)
    for each in lines[name][place:]:
        if "state" in each:
            each["state"][12] = [[peer, 0] for peer, _ in each["state"][12]]
    assert line["action"] == "advance_commit_index"


def apply_beyond_the_commit_index(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "apply"))
    line["index"] += 5


def answer_a_read_that_was_not_confirmed(lines: Lines) -> None:
    name, place, _ = next(every(lines, "step", "confirm_read"))
    drop(lines, name, place)


def answer_from_the_wrong_index(lines: Lines) -> None:
    _, _, line = list(every(lines, "answer", mode="stale"))[-1]
    line["applied"] = 1


def answer_with_another_value(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="consistent") if each[2]["result"][1])
    line["result"][1] = line["result"][1][:-1]


def answer_with_another_index(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="stale") if each[2]["applied"] > 5)
    line["result"][0] += 1


def lie_about_a_write(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="write", result=False))
    line["result"] = True


def answer_a_write_for_another_key(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="write") if each[2]["query"][0] == "kv-set")
    line["query"][1] = "k9"


def acknowledge_a_write_before_it_is_applied(lines: Lines) -> None:
    """The answer to an entry in the middle of a batch names a later entry of that batch."""
    for name, place, line in every(lines, "answer", mode="write"):
        later = next((x for x in lines[name][place + 1 :] if x["kind"] != "answer" or x["mode"] == "write"), line)
        if later["kind"] == "answer":
            line["index"], line["request"], line["query"] = later["index"], later["request"], later["query"]
            return


def acknowledge_a_write_twice(lines: Lines) -> None:
    name, place, line = next(every(lines, "answer", mode="write"))
    lines[name].insert(place + 1, dict(line))
    for each in lines[name][place + 1 :]:
        each["seq"] += 1


def answer_without_a_round(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="stale"))
    line["mode"], line["read"] = "consistent", "r999"


def apply_a_write_twice(lines: Lines) -> None:
    """Two applied entries carry one client's write, as if it had been tried again after it was applied."""
    (_, _, first), (_, _, second) = list(every(lines, "answer", mode="write"))[:2]
    for _, _, line in every(lines, "propose", request=second["request"]):
        line["request"] = first["request"]
    second["request"] = first["request"]


def answer_another_clients_write(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="write"))
    line["request"] = "s9/1/r1"


def propose_what_was_not_appended(lines: Lines) -> None:
    _, _, line = next(every(lines, "propose"))
    line["index"] += 100


def answer_a_default_read_that_nothing_confirmed(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="stale"))
    line["mode"] = "default"


TAMPERED: dict[Callable[[Lines], None], tuple[str, str]] = {
    drop_a_line: ("raft", "the trace is complete"),
    drop_a_send_that_was_received: ("provenance", "what is received was sent"),
    alter_a_digest: ("raft", "client_request yields the spec's state"),
    alter_a_payload: ("raft", "client_request yields the spec's state"),
    forge_a_vote: ("raft", "vote_response is enabled"),
    forge_an_acknowledgement: ("durability", "append_entries_response: durable before it is relied upon"),
    acknowledge_more_than_the_log: ("raft", "append_entries_response is enabled"),
    alter_a_sent_slice: ("raft", "append_entries sends the spec's message"),
    alter_a_round: ("raft", "append_entries sends the spec's message"),
    alter_a_frame_on_arrival: ("provenance", "a message arrives as it was sent"),
    deliver_to_another_server: ("provenance", "a message reaches its destination only"),
    two_servers_receive_what_nobody_sent: ("provenance", "what is received was sent"),
    receive_from_a_stranger: ("provenance", "what is received was sent"),
    handle_a_message_without_a_name: ("provenance", "what is received was sent"),
    go_back_in_time: ("raft", "time does not go back"),
    send_twice_under_one_id: ("provenance", "message ids are unique"),
    receive_before_sending: ("provenance", "program order and send -> receive are acyclic"),
    lose_a_durable_write: ("durability", "the disk keeps what it confirmed, and nothing that was not written"),
    recover_another_vote: ("durability", "the disk keeps what it confirmed, and nothing that was not written"),
    confirm_a_write_that_was_not_issued: ("durability", "only issued writes are confirmed"),
    issue_another_point: ("raft", "a write covers all that is in memory"),
    start_with_a_log: ("durability", "a new server has an empty disk"),
    elect_a_leader_without_votes: ("raft", "become_leader is enabled"),
    commit_without_a_quorum: ("raft", "advance_commit_index is enabled"),
    apply_beyond_the_commit_index: ("raft", "apply is enabled"),
    answer_a_read_that_was_not_confirmed: ("raft", "answer_read is enabled"),
    answer_from_the_wrong_index: ("reads", "answers come from the applied state"),
    answer_with_another_value: ("reads", "a read is answered from the state at its index"),
    answer_with_another_index: ("reads", "a read is answered from the state at its index"),
    lie_about_a_write: ("reads", "a write is told its result"),
    answer_a_write_for_another_key: ("reads", "a write's answer is for its entry"),
    acknowledge_a_write_before_it_is_applied: ("reads", "an acknowledged write is committed and applied"),
    acknowledge_a_write_twice: ("reads", "a write is answered once, by the leader that appended it"),
    answer_without_a_round: ("reads", "a read is confirmed, and answered once"),
    apply_a_write_twice: ("forwarding", "a write is applied at most once"),
    answer_another_clients_write: ("forwarding", "a write is answered by its own entry"),
    propose_what_was_not_appended: ("forwarding", "a write's entry was appended by the process that names it"),
    answer_a_default_read_that_nothing_confirmed: ("reads", "a default read is confirmed by a quorum or a lease"),
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_a_trace_that_was_tampered_with_is_rejected(
    lines: Lines, tamper: Callable[[Lines], None], tmp_path: Path
) -> None:
    tamper(lines)
    results = judged(lines, tmp_path)
    assert TAMPERED[tamper] in broken(results)
    guilty = results[TAMPERED[tamper][0]]
    assert "line" in guilty.reason and "the last lines of" in guilty.details
