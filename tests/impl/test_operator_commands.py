"""`comitia operator raft` and `comitia leave` where no agent is needed: tables, mistakes, exit codes."""

from __future__ import annotations

from typing import Any

import pytest

import comitia
from impl.cli import commandline
from impl.cli import operator as operator_commands


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        comitia.main(list(words))
    assert isinstance(stop.value.code, int)
    return stop.value.code


def server(name: str, last_index: int, *, leader: bool = False, voter: bool = True) -> dict[str, Any]:
    return {
        "ID": f"id-{name}",
        "Node": name,
        "Address": f"127.0.0.1:830{name[-1]}",
        "Leader": leader,
        "ProtocolVersion": "3",
        "Voter": voter,
        "LastIndex": last_index,
    }


def columns_are_consuls() -> None:
    servers = [server("s1", 120, leader=True), server("longer2", 119), server("s3", 100, voter=False)]
    assert commandline.columns(operator_commands._rows(servers)).splitlines() == [
        "Node     ID          Address         State     Voter  RaftProtocol  Commit Index  Trails Leader By",
        "s1       id-s1       127.0.0.1:8301  leader    true   3             120           -",
        "longer2  id-longer2  127.0.0.1:8302  follower  true   3             119           1 commit",
        "s3       id-s3       127.0.0.1:8303  follower  false  3             100           20 commits",
    ]


def test_columns_are_consuls() -> None:
    columns_are_consuls()


def test_a_table_out_of_line_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commandline, "columns", lambda rows: "\n".join("  ".join(row) for row in rows))
    with pytest.raises(AssertionError):
        columns_are_consuls()


def test_without_a_leader_nobody_trails_it() -> None:
    rows = operator_commands._rows([server("s1", 0), server("s2", 7)])
    assert [row[-2:] for row in rows[1:]] == [("-", "-"), ("7", "-")]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("operator", "raft", "list-peers", "-http-addr=127.0.0.1:1"),
            'Error getting peers: Get "http://127.0.0.1:1/v1/operator/raft/configuration": dial tcp 127.0.0.1:1',
        ),
        (("operator", "raft", "list-peers", "-http-addr=ftp://x"), "'ftp://x' is not http://host:port"),
        (("operator", "raft", "list-peers", "-http-addr=host:99999"), "'host:99999' is not http://host:port"),
        (("operator", "raft", "list-peers", "-format=xml"), "Invalid format 'xml': use pretty or json"),
        (("operator", "raft", "remove-peer", "-ids=x"), "flag provided but not defined: -ids"),
        (("operator", "raft", "remove-peer"), "Error removing peer: an address or id is required"),
        (("operator", "raft", "remove-peer", "-id=a", "-address=b:1"), "cannot give both an address and id"),
        (("operator", "raft", "nonsense"), "No such command 'nonsense'"),
        (
            ("leave", "-http-addr=127.0.0.1:1"),
            'Error leaving: Put "http://127.0.0.1:1/v1/agent/leave": dial tcp 127.0.0.1:1',
        ),
    ],
)
def test_a_mistake_is_exit_code_1_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    assert run(*words) == 1
    assert text in capsys.readouterr().err


def test_the_address_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:2")
    assert run("operator", "raft", "transfer-leader") == 1
    assert "dial tcp 127.0.0.1:2: connect: connection refused" in capsys.readouterr().err
