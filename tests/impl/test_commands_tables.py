"""Consul's commands where no agent is needed: tables, mistakes, exit codes, and what a watch takes for a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import comitia
from impl.cli import registry as registry_commands
from impl.cli.http_client import Answer
from impl.cli.watch import TYPES, Watch

NODE = {
    "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
    "Node": "web-1",
    "Address": "10.0.0.1",
    "Datacenter": "dc1",
    "TaggedAddresses": {"wan": "192.0.2.1", "lan": "10.0.0.1"},
    "Meta": None,
}
TAGS = {"role": "consul", "dc": "dc1", "build": "1.22.0:abc", "vsn": "2"}
MEMBERS = [
    {"Name": "s1", "Addr": "10.0.0.1", "Port": 8300, "Status": 1, "Tags": TAGS},
    {"Name": "c1", "Addr": "::1", "Port": 0, "Status": 4, "Tags": {"role": "node", "dc": "dc1", "build": "1.22.0"}},
]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        comitia.main(list(words))
    assert isinstance(stop.value.code, int)
    return stop.value.code


def nodes_are_shown_as_consul_shows_them() -> None:
    assert registry_commands.node_rows([NODE], detailed=False) == [
        ("Node", "ID", "Address", "DC"),
        ("web-1", "40e4a748", "10.0.0.1", "dc1"),
    ]
    detailed = registry_commands.node_rows([NODE], detailed=True)[1]
    assert detailed == ("web-1", NODE["ID"], "10.0.0.1", "dc1", "lan=10.0.0.1, wan=192.0.2.1", "")


def members_are_shown_as_consul_shows_them() -> None:
    assert registry_commands.member_rows(MEMBERS, detailed=False)[1:] == [
        ("s1", "10.0.0.1:8300", "alive", "server", "1.22.0", "2", "dc1", "default", "<all>"),
        ("c1", "[::1]:0", "failed", "client", "1.22.0", "", "dc1", "default", "<default>"),
    ]
    tags = "build=1.22.0:abc,dc=dc1,partition=default,role=consul,segment=<all>,vsn=2"
    assert registry_commands.member_rows(MEMBERS, detailed=True)[1] == ("s1", "10.0.0.1:8300", "alive", tags)


SENTENCES = [nodes_are_shown_as_consul_shows_them, members_are_shown_as_consul_shows_them]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_tables(sentence: Callable[[], None]) -> None:
    sentence()


@pytest.mark.parametrize(
    ("name", "broken", "sentence"),
    [
        ("_pairs", lambda values: str(values), nodes_are_shown_as_consul_shows_them),
        ("_status", lambda member: "alive", members_are_shown_as_consul_shows_them),
    ],
)
def test_a_wrong_table_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Any, sentence: Callable[[], None]
) -> None:
    monkeypatch.setattr(registry_commands, name, broken)
    with pytest.raises(AssertionError):
        sentence()


NOBODY = "-http-addr=127.0.0.1:1"
UNREACHABLE = "dial tcp 127.0.0.1:1: connect: connection refused"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("catalog", "nodes", NOBODY), UNREACHABLE),
        (("catalog", "nodes", "-format=xml"), "'xml' is not one of 'pretty', 'json'"),
        (("catalog", "nodes", "extra"), "Too many arguments (expected 0, got 1)"),
        (("kv", "get", "a", "b"), "Too many arguments (expected 1, got 2)"),
        (("kv", "put", "a", "b", "c"), "Too many arguments (expected 1 or 2, got 3)"),
        (("kv", "put"), "Error! Missing KEY argument"),
        (("kv", "put", "-flags=-1", "a", "b"), "'-1' is not a whole number from 0 to 2^64 - 1"),
        (("kv", "put", NOBODY, "a", "b"), 'Error! Failed writing data: Put "http://127.0.0.1:1/v1/kv/a": dial tcp'),
        (("kv", "put", "-cas", NOBODY, "a", "b"), 'Error! Did not write to a: Put "http://127.0.0.1:1/v1/kv/a?cas=0"'),
        (("kv", "get", NOBODY, "a"), 'Error querying Consul agent: Get "http://127.0.0.1:1/v1/kv/a": dial tcp'),
        (("kv", "delete", NOBODY, "a"), 'Error! Did not delete key a: Delete "http'),
        (("kv", "delete", "-recurse", NOBODY, "a"), 'Error! Did not delete prefix a: Delete "http'),
        (("kv", "delete", "-cas", "a"), "Provide a -modify-index greater than"),
        (("kv", "delete", "-modify-index=3", "a"), "Cannot specify -modify-index without -cas!"),
        (("kv", "delete", "-cas", "-recurse", "-modify-index=3", "a"), "Cannot specify both -cas and -recurse!"),
        (("catalog", "nodes", "-filter=@no-such-file"), "Failed to read file"),
        (("members", "-segment=a"), "Network segments are not supported"),
        (("monitor", NOBODY), UNREACHABLE),
        (("maint", NOBODY), UNREACHABLE),
        (("maint", "-enable", "-disable"), "Only one of -enable or -disable may be provided"),
        (("maint", "-disable", "-reason=x"), "Reason may only be provided with -enable"),
        (("maint", "-service=x"), "Service requires either -enable or -disable"),
        (("acl", "token", "list", "-format=json"), "Comitia has no command `acl`: there are no ACLs"),
        (("exec", "-h"), "Comitia has no command `exec`: remote execution travels by gossip"),
        (("operator", "usage", "instances"), "Comitia has no command `operator usage`: count what"),
        (("snapshot", "decode", "a"), "Comitia has no command `snapshot decode`: look at `comitia snapshot inspect"),
        (("services", "export", "-name=a"), "Comitia has no command `services export`: there is no service mesh"),
        (("members", "-status=["), "Failed to compile status regexp"),
        (("services", "register"), "requires at least one argument or flags"),
        (("services", "register", "-name=a", "b.json"), "requires arguments or -id, not both"),
        (("services", "register", "-name=a", "-meta=b"), 'Missing "=" value in argument: b'),
        (
            ("services", "register", "-name=a", "-tagged-address=lan=h:p"),
            "Invalid Tagged Address: 'h:p' is not HOST:PORT",
        ),
        (("catalog", "nodes", "-node-meta=b"), 'Missing "=" value in argument: b'),
        (("services", "register", "no-such-file.json"), "no-such-file.json: No such file"),
        (("services", "deregister"), "requires at least one argument or -id"),
        (("session", "create", NOBODY), UNREACHABLE),
        (("lock", "prefix"), "Key prefix and child command must be specified"),
        (("lock", "-timeout=soon", "prefix", "true"), "invalid duration 'soon'"),
        (("lock", "-monitor-retry=-1", "prefix", "true"), "must be >= 0"),
        (("lock", "-timeout=-1s", "prefix", "true"), "Timeout must be positive"),
        (("lock", NOBODY, "prefix", "true"), f'Error querying Consul agent: Get "http://{NOBODY[11:]}/v1/agent/self"'),
        (("watch", NOBODY, "-type=nodes", "true"), UNREACHABLE),
        (("watch",), "Watch type must be specified"),
        (("lock", "-n=0", "prefix", "true"), "Lock holder limit must be positive"),
        (("watch", "-type=event", "-name=deploy"), "Unsupported watch type: event: events travel by gossip"),
        (("watch", "-type=keys"), "Unsupported watch type: keys"),
        (("watch", "-type=key"), "Must specify a single key to watch"),
        (("watch", "-type=service", "-service=a", "-passingonly=perhaps"), "Failed to parse passingonly flag"),
        (("watch", "-type=checks", "-service=a", "-state=any"), "Cannot specify service and state"),
        (("watch", NOBODY, "-type=nodes"), UNREACHABLE),
        (("kv", "put", "-acquire", "a", "b"), "Missing -session"),
        (("kv", "put", "-acquire", "-cas", "-session=x", "a"), "Cannot specify more than one of"),
        (("kv", "import"), "Missing DATA argument"),
        (("kv", "import", '{"key": 1}'), "Cannot unmarshal data"),
        (("kv", "import", '[{"key": "a", "value": "?"}]'), "Error base 64 decoding value for key a"),
        (("info", NOBODY), UNREACHABLE),
        (("validate",), "Must specify at least one config file or directory"),
        (("validate", "no-such-file.json"), "Config validation failed: no-such-file.json: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_exit_code_1_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    assert run(*words) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("document", "text"),
    [("{", "failed to parse"), ("{}", "defines no service"), ("[]", "Expected `object`")],
)
def test_a_file_without_services_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, document: str, text: str
) -> None:
    path = tmp_path / "web.json"
    path.write_text(document)
    assert run("services", "register", str(path)) == 1
    assert text in capsys.readouterr().err


def test_a_configuration_is_validated_as_the_agent_would(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good, bad = tmp_path / "a.json", tmp_path / "b.json"
    good.write_text('{"server": true, "data_dir": "/d", "bootstrap_expect": 1}')
    assert (run("validate", str(good)), capsys.readouterr().out) == (0, "Configuration is valid!\n")
    assert (run("validate", "-quiet", str(tmp_path)), capsys.readouterr().out) == (0, "")
    bad.write_text('{"datacenter": "a b"}')
    assert run("validate", str(tmp_path)) == 1
    assert f"Config validation failed: {bad}: line 1: invalid datacenter 'a b'" in capsys.readouterr().err
    bad.rename(tmp_path / "b.txt")
    (tmp_path / "c.hcl").write_text('datacenter = "dc1"\nautopilot { enabled = true }')
    assert run("validate", str(tmp_path)) == 1
    why = "line 2: invalid config key autopilot: Comitia has no such setting: remove it"
    assert f"failed to parse {tmp_path / 'c.hcl'}: {why}" in capsys.readouterr().err
    assert run("validate", "-config-format=json", str(tmp_path / "c.hcl")) == 1
    assert "JSON is malformed" in capsys.readouterr().err


def flags_win_over_files_and_fragments_over_flags(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    path.write_text('datacenter = "of file"')
    for words, text in (
        ((), "invalid datacenter 'of file'"),
        (("-datacenter=of flag",), "invalid datacenter 'of flag'"),
        (("-datacenter=of flag", "-hcl", 'datacenter = "of text"'), "invalid datacenter 'of text'"),
        (("-encrypt=a2V5",), "-encrypt: there is no gossip that could be encrypted"),
        (("-encrypt=a2V5", "-hcl=encrypt = ''"), "-hcl: line 1: a value is expected"),
        (("-encrypt=a2V5", '-hcl=encrypt = "" datacenter = "of text"'), "invalid datacenter 'of text'"),
        (("-syslog", "-ui", "-retry-max=3"), "-syslog: the log is written to standard error only"),
    ):
        assert run("agent", "-dev", "-config-file", str(path), *words) == 1
        assert text in capsys.readouterr().err


def test_flags_win_over_files_and_fragments_over_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags_win_over_files_and_fragments_over_flags(capsys, tmp_path / "a.hcl")


def test_a_flag_that_is_forgotten_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("impl.cli.agent.FLAGS", {"ui": "ui_config"})
    with pytest.raises(AssertionError):
        flags_win_over_files_and_fragments_over_flags(capsys, tmp_path / "a.hcl")


def test_the_version_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("version") == 0
    assert "Comitia v" in capsys.readouterr().out
    assert run("version", "-format=json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"Version", "ConsulVersion"}


class Answers:
    """A client that answers what it was told to, and keeps what it was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = [Answer(200, json.dumps(document).encode(), index) for index, document in answers]
        self.asked: list[dict[str, str]] = []

    def query(self, method: str, path: str, parameters: Any, failure: str, **how: Any) -> Answer:
        self.asked.append(dict(parameters))
        return self.answers[len(self.asked) - 1]


def changes_are_told_apart_from_what_only_woke() -> None:
    client: Any = Answers((5, {"a": []}), (6, {"a": []}), (7, {"b": []}), (3, {"b": []}), (3, {"b": []}))
    watch = Watch(client, "services", *TYPES["services"]({}))
    assert [watch.next()[0] for _ in range(5)] == [True, False, True, False, True]
    # An index that fell is another history: the next question does not wait.
    assert [each.get("index") for each in client.asked] == [None, "5", "6", "7", None]


def test_a_watch_tells_changes_apart_from_what_only_woke() -> None:
    changes_are_told_apart_from_what_only_woke()


def test_a_watch_that_takes_all_for_changes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Watch.next
    monkeypatch.setattr(Watch, "next", lambda self: (True, plain(self)[1]))
    with pytest.raises(AssertionError):
        changes_are_told_apart_from_what_only_woke()


def test_a_watched_key_is_shown_alone() -> None:
    client: Any = Answers((5, [{"Key": "a"}]))
    assert Watch(client, "key", *TYPES["key"]({"key": "a"})).next() == (True, {"Key": "a"})
