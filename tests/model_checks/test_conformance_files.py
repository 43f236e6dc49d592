"""What conformance does with traces that are cut off, missing, foreign or malformed, and what `check trace` prints."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from model_checks.catalog.payloads import Malformed
from model_checks.catalog.payloads import decoded as decoded_command
from model_checks.catalog.records import decoded_request, described_command
from model_checks.conformance import UnreadableTrace, check_traces
from model_checks.conformance.check import prepare_judged
from model_checks.conformance.command import command
from model_checks.conformance.entries import GENESIS_DIGEST, chained_digest
from model_checks.conformance.replay import replay
from model_checks.conformance.spec_nodes import Lines
from model_checks.conformance.spec_runs import SpecCluster, written
from model_checks.verdicts import Verdict, merge
from spec.catalog.commands import CheckAndSet, Delete, DeleteCheckAndSet, DeleteTree, Get, Keys, List, Noop, Set


@pytest.fixture(scope="module")
def run() -> Lines:
    """A good run of three servers, with crashes."""
    return SpecCluster(seed=5).run(3000).lines


@pytest.fixture
def traces(run: Lines, tmp_path: Path) -> Path:
    """Its files."""
    return written(run, tmp_path)


def last_file(traces: Path, node: str) -> Path:
    return sorted(traces.glob(f"{node}-*.ndjson"))[-1]


def verdict_of(traces: Path) -> Verdict:
    return merge(result.verdict for result in check_traces(traces))


# ------------------------------------------------------------------------------------------------- cut off


def test_a_last_line_that_a_kill_cut_off_is_reported_and_the_rest_is_judged(traces: Path) -> None:
    file = last_file(traces, "s2")
    whole = file.read_bytes()
    lines = len(whole.splitlines())
    file.write_bytes(whole + b'{"kind":"step","seq":99')
    raft = check_traces(traces)[0]
    assert raft.verdict == Verdict.VALID
    assert raft.figures["cut"] == [f"{file.name}:{lines + 1}: 23 bytes without a line end"]


def test_a_file_cut_at_any_byte_of_its_last_line_is_still_a_trace(tmp_path: Path) -> None:
    file = last_file(written(SpecCluster(seed=1, servers=1).run(300).lines, tmp_path), "s1")
    whole = file.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    for length in range(last, len(whole), 7):
        file.write_bytes(whole[:length])
        assert check_traces(tmp_path)[0].verdict == Verdict.VALID


def test_an_empty_file_is_a_process_that_died_before_its_first_line(traces: Path) -> None:
    (traces / "s1-000999.ndjson").touch()
    assert verdict_of(traces) == Verdict.VALID


# ------------------------------------------------------------------------------------------------- missing


def test_a_missing_incarnation_is_unknown(run: Lines, tmp_path: Path) -> None:
    incarnations = sorted(name for name in run if name.startswith("s1-"))
    kept = {name: of_file for name, of_file in run.items() if name not in incarnations[1:3]}
    assert len(incarnations) > 3
    assert verdict_of(written(kept, tmp_path)) == Verdict.UNKNOWN


def test_a_missing_first_incarnation_is_unknown(traces: Path) -> None:
    (traces / "s1-000001.ndjson").unlink()
    results = check_traces(traces)
    assert {result.verdict for result in results} == {Verdict.UNKNOWN}
    assert "the first trace is of incarnation 2" in results[0].reason


def test_an_outage_recovery_with_peers_json_is_unknown(run: Lines, tmp_path: Path) -> None:
    lines: Lines = msgspec.json.decode(msgspec.json.encode(run))
    lines["s1-000002.ndjson"][0]["recovered"] = True
    results = check_traces(written(lines, tmp_path))
    assert {result.verdict for result in results} == {Verdict.UNKNOWN}
    assert "s1, incarnation 2, was recovered with peers.json" in results[0].reason


def test_a_server_without_traces_is_unknown(traces: Path) -> None:
    for file in traces.glob("s3-*"):
        file.unlink()
    results = check_traces(traces)
    assert {result.verdict for result in results} == {Verdict.UNKNOWN}
    assert "no trace of s3, incarnation 1" in results[0].reason


def test_traces_that_are_still_being_written_accuse_nobody(tmp_path: Path) -> None:
    """A server was read to its end, wrote on, and then another that had received what it wrote was read."""
    lines = SpecCluster(seed=4, spares=0).run(600).lines
    assert all(name.endswith("-000001.ndjson") for name in lines)
    traces = written(lines, tmp_path)
    replayed, _ = prepare_judged(traces)
    last = replayed.readers[-1].file.path
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:40]))
    replay(replayed)
    assert replayed.divergences == []
    assert "still being written" in replayed.incomplete[0]


def test_traces_in_which_nothing_happened_are_unknown(run: Lines, tmp_path: Path) -> None:
    headers = {name: of_file[:1] for name, of_file in run.items() if name.endswith("-000001.ndjson")}
    results = check_traces(written(headers, tmp_path))
    assert results[0].verdict == Verdict.UNKNOWN
    assert "vacuous" in results[0].reason


def test_lines_after_the_end_are_rejected(run: Lines, tmp_path: Path) -> None:
    lines: Lines = msgspec.json.decode(msgspec.json.encode(run))
    of_file = lines["s1-000001.ndjson"]
    end = {"kind": "end", "seq": of_file[-1]["seq"], "ns": of_file[-1]["ns"], "reason": "stopped"}
    of_file.insert(len(of_file) - 1, end)
    of_file[-1]["seq"] += 1
    assert check_traces(written(lines, tmp_path))[0].property == "a process that has ended does nothing"


# ------------------------------------------------------------------------------------------------- not traces


def test_a_directory_that_is_missing_or_empty_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrace, match="is not a directory"):
        check_traces(tmp_path / "nowhere")
    with pytest.raises(UnreadableTrace, match="holds no traces: start the servers with -trace"):
        check_traces(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json\n", "1: not a line of a trace"),
        ('{"kind":"end","seq":1,"ns":1,"reason":""}\n', "the first line is not a header"),
        ('{"kind":"mystery"}\n', "1: not a line of a trace"),
        ('{"kind":"end","reason":"\udcff"}\n', "1: not a line of a trace"),
    ],
)
def test_a_file_that_is_no_trace_is_named(traces: Path, text: str, message: str) -> None:
    (traces / "s1-000999.ndjson").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UnreadableTrace, match=f"s1-000999.ndjson:{message}|{message}"):
        check_traces(traces)


def test_a_malformed_line_in_the_middle_is_named(traces: Path) -> None:
    file = traces / "s1-000001.ndjson"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], b"{}\n", *lines[3:]]))
    with pytest.raises(UnreadableTrace, match=r"s1-000001.ndjson:4: not a line of a trace"):
        check_traces(traces)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 1, "format 1, this program reads 2"),
        ("incarnation", 7, "the file was renamed"),
        ("cluster_id", "c2", "holds traces of 2 clusters"),
        ("voters", ["s1", "s2"], "holds traces of 2 clusters"),
        ("lease_ns", 1, "the servers ran with different timings"),
    ],
)
def test_a_header_that_does_not_belong_is_refused(
    run: Lines, tmp_path: Path, field: str, value: object, message: str
) -> None:
    lines: Lines = msgspec.json.decode(msgspec.json.encode(run))
    lines["s1-000001.ndjson"][0][field] = value
    with pytest.raises(UnreadableTrace, match=message):
        check_traces(written(lines, tmp_path))


def test_a_second_header_is_refused(traces: Path) -> None:
    file = traces / "s1-000001.ndjson"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines, lines[0]]))
    with pytest.raises(UnreadableTrace, match="two processes wrote this file"):
        check_traces(traces)


def test_a_file_with_another_name_is_refused(traces: Path) -> None:
    (traces / "history.ndjson").write_text("{}\n")
    with pytest.raises(UnreadableTrace, match=r"not named NODE-INCARNATION\.ndjson"):
        check_traces(traces)


def test_a_server_that_nobody_has_added_yet_may_leave_a_trace(run: Lines, tmp_path: Path) -> None:
    lines: Lines = msgspec.json.decode(msgspec.json.encode(run))
    stranger = lines["s9-000001.ndjson"] = lines["s1-000001.ndjson"][:1]
    stranger[0] = {**stranger[0], "node": "s9"}
    assert verdict_of(written(lines, tmp_path)) == Verdict.VALID


# ------------------------------------------------------------------------------------------------- payloads


@pytest.mark.parametrize(
    ("fields", "value", "described"),
    [
        (["noop"], Noop(), ("noop",)),
        (["kv-set", "k", b"v", 3], Set("k", b"v", 3), ("kv-set", "k")),
        (["kv-cas", "k", b"v", 3, 7], CheckAndSet("k", b"v", 3, 7), ("kv-cas", "k", 7)),
        (["kv-delete", "k"], Delete("k"), ("kv-delete", "k")),
        (["kv-delete-cas", "k", 7], DeleteCheckAndSet("k", 7), ("kv-delete-cas", "k", 7)),
        (["kv-delete-tree", "k/"], DeleteTree("k/"), ("kv-delete-tree", "k/")),
    ],
)
def test_payloads_are_the_commands_of_the_format(
    fields: list[object], value: object, described: tuple[object, ...]
) -> None:
    decoded = decoded_command(msgspec.msgpack.encode(fields))
    assert decoded == value
    assert described_command(decoded) == list(described)


@pytest.mark.parametrize(
    "fields", [["kv-set", "k", "text", 0], ["kv-set", "k"], ["drop-table"], [], ["kv-delete", b"k"]]
)
def test_other_payloads_are_malformed(fields: list[object]) -> None:
    with pytest.raises(Malformed):
        decoded_command(msgspec.msgpack.encode(fields))
    with pytest.raises(Malformed, match="not a msgpack array"):
        decoded_command(b"\xc1")
    with pytest.raises(Malformed, match="not a msgpack array"):
        decoded_command(b"\x92\xa1\xff\xa1k")


def test_queries_are_the_requests_of_the_format() -> None:
    assert decoded_request(["kv-get", "k"]) == Get("k")
    assert decoded_request(["kv-list", "k/"]) == List("k/")
    assert decoded_request(["kv-keys", "k/", "/"]) == Keys("k/", "/")
    with pytest.raises(Malformed):
        decoded_request(["kv-get"])


def test_the_digest_chains_index_term_and_payload() -> None:
    first = chained_digest(GENESIS_DIGEST, 1, 1, b"a")
    others = {
        chained_digest(GENESIS_DIGEST, 1, 1, b"b"),
        chained_digest(GENESIS_DIGEST, 1, 2, b"a"),
        chained_digest(GENESIS_DIGEST, 2, 1, b"a"),
        chained_digest(first, 1, 1, b"a"),
    }
    assert len({first, *others}) == 5
    by_hand = blake2b(bytes(8) + bytes([0] * 7 + [1]) * 2 + b"a", digest_size=8)
    assert first == by_hand.hexdigest() == "ef4603b06fad102c"


# ------------------------------------------------------------------------------------------------- command


def test_check_trace_prints_a_verdict_for_each_checker_and_exits_with_it(traces: Path) -> None:
    done = CliRunner().invoke(command, [str(traces)], standalone_mode=False)
    assert done.return_value == 0
    assert "conformance/raft          VALID" in done.output
    assert done.output.splitlines()[-1] == "VALID"


def test_check_trace_json_ends_with_one_object(traces: Path) -> None:
    file = traces / "s1-000001.ndjson"
    file.write_text(file.read_text().replace('"seq": 3,', '"seq": 4,', 1))
    done = CliRunner().invoke(command, [str(traces), "--json"], standalone_mode=False)
    report = json.loads(done.output.splitlines()[-1])
    assert done.return_value == 1
    assert report["verdict"] == "INVALID"
    assert report["reason"] == "conformance/raft: the trace is complete"
    assert "line 4" in report["details"]
    assert len(report["summary"]) <= 110
    assert report["results"][0]["checker"] == "conformance/raft"


def test_a_run_that_did_not_do_what_it_was_to_show_is_unknown(traces: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    written(SpecCluster(seed=4, spares=0).run(600).lines, quiet)
    arguments = ["--expect", "snapshots_installed", "--expect", "transfers"]
    done = CliRunner().invoke(command, [str(quiet), *arguments], standalone_mode=False)
    assert done.return_value == 2
    assert "vacuous: this run was to show snapshots installed, transfers, and did not" in done.output
    assert (
        CliRunner().invoke(command, [str(traces), "--expect", "lease_reads"], standalone_mode=False).return_value == 0
    )


def test_check_trace_of_something_else_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {tmp_path} holds no traces")
