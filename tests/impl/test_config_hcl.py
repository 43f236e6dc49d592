"""Configuration files in HCL say what the same ones in JSON say, and mistakes are named with file and line.

The examples are in the style of Consul's documentation: "Define services", "Agent configuration".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.agent.config import files as config_files
from impl.agent.config import hcl
from impl.agent.config.files import decode, format_of, read_document
from impl.agent.config.validated import ConfigError, build
from impl.cli.agent import _read_files
from impl.http.definitions import verified_check, verified_service

AGENT = """
# A server.
server           = true
bootstrap_expect = 1   // alone
data_dir         = "/opt/consul"
/* Ports are
   not all Consul's. */
ports {
  http = 8501
  dns  = -1,
}
node_meta { os = "linux" "x-y" = "z" }
raft_lease_ms = 0xC8
clock_drift = 5e-2
telemetry { prefix_filter = ["+consul.raft.apply", "-consul.rpc",] }

service {
  name = "web"
  port = 80
  tags = ["a", "b"]
  meta { version = "1" }
  check {
    http     = "http://127.0.0.1:80/health"
    interval = "10s"
    header { Accept = ["text/plain"] }
  }
}

services {
  id   = "db1"
  name = "db"
  checks { ttl = "1m" }
  checks { name = "port" tcp = "127.0.0.1:5432" interval = "5s" }
}
services {
  id   = "db2"
  name = "db"
  checks = [{ ttl = "1m" }]
}

check = { name = "disk" ttl = "1h" notes = <<EOT
Two
  lines
EOT
}
"""
AS_JSON: dict[str, Any] = {
    "server": True,
    "bootstrap_expect": 1,
    "data_dir": "/opt/consul",
    "ports": {"http": 8501, "dns": -1},
    "node_meta": {"os": "linux", "x-y": "z"},
    "raft_lease_ms": 200,
    "clock_drift": 0.05,
    "telemetry": {"prefix_filter": ["+consul.raft.apply", "-consul.rpc"]},
    "service": {
        "name": "web",
        "port": 80,
        "tags": ["a", "b"],
        "meta": {"version": "1"},
        "check": {"http": "http://127.0.0.1:80/health", "interval": "10s", "header": {"Accept": ["text/plain"]}},
    },
    "services": [
        {
            "id": "db1",
            "name": "db",
            "checks": [{"ttl": "1m"}, {"name": "port", "tcp": "127.0.0.1:5432", "interval": "5s"}],
        },
        {"id": "db2", "name": "db", "checks": [{"ttl": "1m"}]},
    ],
    "check": {"name": "disk", "ttl": "1h", "notes": "Two\n  lines\n"},
}


def verify(kind: str, definition: Any) -> None:
    (verified_service if kind == "service" else verified_check)(definition)


def hcl_says_what_json_says() -> None:
    ours = build([read_document(AGENT.encode(), "a.hcl", "hcl", verify)], "n")
    theirs = build([read_document(msgspec.json.encode(AS_JSON), "a.json", "json", verify)], "n")
    ids = [each["name"] for each in ours.services]
    assert sorted(ids) == ["db", "db", "web"] and len(ours.checks) == 1
    key = msgspec.json.encode
    assert sorted(ours.services, key=key) == sorted(theirs.services, key=key)
    assert msgspec.structs.replace(ours, services=()) == msgspec.structs.replace(theirs, services=())


def test_hcl_says_what_json_says() -> None:
    hcl_says_what_json_says()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 10", 10),
        ("a = -0x1f", -31),
        ("a = 010", 8),
        ("a = 1.5", 1.5),
        ("a = -2.5e3", -2500.0),
        ("a = true", True),
        ('a = "80"', "80"),
        (r'a = "tab\t quote\" back\\ \u00e9 \x41 \101"', 'tab\t quote" back\\ é A A'),
        ('a = "${upper("x")} {y}"', '${upper("x")} {y}'),
        ("a = <<X\n  one\ntwo\nX\n", "  one\ntwo\n"),
        ("a = <<-X\n    one\n      two\n    X\n", "one\n  two\n"),
        ("a = <<-X\n  one\n    X", "  one\n"),
        ("a = [1, [2, 3], {b = 4}]", [1, [2, 3], {"b": 4}]),
        ("a { b { c = 1 } }", {"b": {"c": 1}}),
        ('a "x" "y" { c = 1 }', {"x": {"y": {"c": 1}}}),
        ("a { b = 1 }\na { b = 2 }", [{"b": 1}, {"b": 2}]),
        ('"a" = 1', 1),
        ("a = 1,", 1),
        ('{"a": 1}', 1),
        ("\ufeffa = 1 # no end of line", 1),
    ],
)
def test_values_are_read_as_hashicorp_reads_them(text: str, value: object) -> None:
    assert decode(text.encode(), "f", "hcl")[0] == {"a": value}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server = true\nports {\n  http = 1\n", "line 2: this object has no end: '}' is missing"),
        ('a = 1\n\nb = "x', "line 3: this string has no end"),
        ("a = 1\nb = on", "line 2: a value is expected, not 'on'"),
        ("a = 1\na = 2", "line 2: 'a' is given twice, first on line 1"),
        ("a = [1,,2]", "line 1: a value is expected, not ','"),
        ("a = [1 2]", "line 1: ',' or ']' is expected, not '2'"),
        ("a = [1", "line 1: this list has no end"),
        ("a", "line 1: 'a' has no value"),
        ("a = ", "line 1: a value is expected, not the end of the file"),
        ("= 1", "line 1: a name is expected, not '='"),
        ('a "b" = 1', "line 1: 'a' and 'b' before '='"),
        ("\n/* no end", "line 2: this comment has no end"),
        ("a = <<X\nb", "line 1: this text has no end: X is missing"),
        ("a = <<\nb", "line 1: << must be followed by a name"),
        (r'a = "\q"', "line 1: unknown escape \\q"),
        (r'a = "\u12"', "line 1: \\u in a string must be followed by the digits of a character"),
        (r'a = "\ud800"', "line 1: \\u in a string must be followed"),
        ('a = "${x"', "line 1: ${ in a string has no end"),
        ("a = 1z", "line 1: a value is expected, not '1z'"),
        ("a = 09", "line 1: 09 is no number"),
        ("a = " + "[" * 100, "line 1: more than 64 lists and objects within each other"),
    ],
)
def test_what_is_no_hcl_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        decode(text.encode(), "a.hcl", "hcl")
    assert str(refused.value).startswith(f"failed to parse a.hcl: {why}")


def mistakes_are_named_with_their_line() -> None:
    for text, why in (
        ('service {\n name = "a"\n prt = 80 }', "line 3: invalid config key service.prt: did you mean port?"),
        (
            'service { name = "a"\n checks = [{ ttl = "1s" },\n { tlt = "1s" }] }',
            "line 3: invalid config key check.tlt: did you mean ttl?",
        ),
        (
            'check { name = "c"\n script = "true" }',
            "line 2: invalid config key check.script: did you mean script_args?",
        ),
        (
            'service { name = "a"\n connect { sidecar_servic {} } }',
            "line 2: invalid config key connect.sidecar_servic: did you mean sidecar_service?",
        ),
        (
            'service { name = "a" port = 1\n connect { sidecar_service {\n proxy { upstream = [] } } } }',
            "line 3: invalid config key proxy.upstream: did you mean upstreams?",
        ),
        ("server = true\nautopilot {\n  enabled = true\n}", "line 2: invalid config key autopilot: Comitia has no"),
        ("\nlog_levle = 1", "line 2: invalid config key log_levle: did you mean log_level?"),
        ("ports {\n  htttp = 1 }", "line 2: invalid config key ports.htttp: Comitia has no such setting: remove it"),
        ('ports {\n  dns = 1\n  http = "x"\n}', "line 3: Expected `int`, got `str` - at `$.ports.http`"),
        ("ports { dns = 1 }\nports { http = 2 }", "line 1: Expected `object`, got `array` - at `$.ports`"),
        ('service { name = "a" }\nservice {\n  port = 80 }', "line 2: a service: Missing service name"),
        ('services { name = "a" }\nservices { name = "b" port = "80" }', "line 2: a service: Port must be a number"),
        ('check {\n name = "c" }', "line 1: a check: Invalid check: TTL must be > 0"),
        (
            'service { name = "a" check { ttl = "1s" }\n check { ttl = "2s" } }',
            "line 1: a service: Check must be an object",
        ),
    ):
        with pytest.raises(ConfigError) as refused:
            read_document(text.encode(), "a.hcl", "hcl", verify)
        assert str(refused.value).startswith(f"failed to parse a.hcl: {why}"), refused.value


def test_mistakes_are_named_with_their_line() -> None:
    mistakes_are_named_with_their_line()


def test_mistakes_of_json_have_a_line_where_it_is_known() -> None:
    with pytest.raises(ConfigError, match=r"failed to parse a\.json: line 2: JSON is malformed"):
        read_document(b'{"server":\n tru}', "a.json")
    with pytest.raises(ConfigError, match=r"failed to parse a\.json: "):
        read_document(b'{"a":' * 100_000, "a.json")
    with pytest.raises(ConfigError, match=r"failed to parse a\.json: line 2: it is not UTF-8"):
        read_document(b'{"server":\n "\xff"}', "a.json")
    with pytest.raises(ConfigError, match=r"failed to parse a\.json: line 2: invalid config key ports\.x: "):
        read_document(b'{"ports":\n {"x": 1}}', "a.json")
    with pytest.raises(ConfigError, match=r"failed to parse a\.json: a service: Port must be a number"):
        read_document(b'{"service": {"name": "a", "port": "x"}}', "a.json", verify=verify)


def test_every_key_of_a_definition_may_be_written_as_in_json_or_in_files() -> None:
    text = """{"service": {"Name": "a", "EnableTagOverride": true, "TaggedAddresses": {}, "connect": {}, "Check": {
        "CheckID": "c", "HTTP": "http://a", "Interval": "1s", "DeregisterCriticalServiceAfter": "1m",
        "tls_skip_verify": true, "TLSServerName": "b", "h2ping_use_tls": false, "ScriptArgs": []}}}"""
    assert len(read_document(text.encode(), "a.json", verify=verify).services or ()) == 1


def files_of_a_directory_are_read_in_order_and_others_are_passed_over(directory: Path) -> None:
    for name, text in (
        ("b.hcl", 'log_level = "debug"'),
        ("a.json", '{"log_level": "warn", "server": true, "data_dir": "d", "bootstrap_expect": 1}'),
        ("c.hcl.bak", 'log_level = "error"'),
        ("README", "not a configuration"),
    ):
        (directory / name).write_text(text)
    (directory / "d.hcl").mkdir()
    assert build(_read_files([str(directory)], ""), "n").log_level == "DEBUG"


def test_files_of_a_directory_are_read_in_order_and_others_are_passed_over(tmp_path: Path) -> None:
    files_of_a_directory_are_read_in_order_and_others_are_passed_over(tmp_path)


def later_paths_win(directory: Path) -> None:
    for name, level in (("first.hcl", "debug"), ("last.hcl", "error")):
        (directory / name).write_text(f'log_level = "{level}"')
    within = directory / "conf.d"
    within.mkdir(exist_ok=True)
    (within / "a.json").write_text('{"log_level": "warn"}')
    first, last = (str(directory / name) for name in ("first.hcl", "last.hcl"))
    for paths, level in (([first, str(within)], "warn"), ([str(within), last], "error"), ([last, first], "debug")):
        assert [each.log_level for each in _read_files(paths, "")][-1] == level


def test_later_paths_win_files_or_directories(tmp_path: Path) -> None:
    later_paths_win(tmp_path)


def test_paths_that_are_read_in_another_order_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "impl.cli.agent.map", lambda kind, paths: sorted(map(kind, paths), key=Path.is_dir), raising=False
    )
    with pytest.raises(AssertionError):
        later_paths_win(tmp_path)


def a_link_to_nothing_is_no_file_that_may_be_missing(directory: Path) -> None:
    (directory / "a.json").symlink_to(directory / "nothing.json")
    with pytest.raises(FileNotFoundError):
        _read_files([str(directory)], "")


def test_a_link_to_nothing_is_no_file_that_may_be_missing(tmp_path: Path) -> None:
    a_link_to_nothing_is_no_file_that_may_be_missing(tmp_path)


def test_links_to_nothing_that_are_passed_over_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda path: path.stat().st_mode & 0o040000 if path.exists() else True)
    with pytest.raises(pytest.fail.Exception):
        a_link_to_nothing_is_no_file_that_may_be_missing(tmp_path)


def test_a_service_of_a_file_may_be_a_proxy_or_have_one() -> None:
    text = """
    service { name = "a" port = 1 connect { sidecar_service { proxy { upstreams = [{ destination_name = "b" }] } } } }
    service { kind = "connect-proxy" name = "p" port = 2 proxy { destination_service_name = "a" config { x = 1 } } }
    service { name = "n" socket_path = "/s" connect { native = true } }
    """
    services = read_document(text.encode(), "a.hcl", "hcl", verify).services or []
    beside, proxy, native = (verified_service(each) for each in services)
    assert beside.sidecar is not None and beside.sidecar.service.connect == proxy.service.connect == "a"
    assert (native.service.connect, '"SocketPath":"/s"' in native.service.mesh) == ("n", True)


def test_a_service_of_a_file_has_both_weights_if_it_has_one() -> None:
    for text, weights in (("Passing = 5", (5, 1)), ("warning = 0", (1, 0)), ("passing = 2 warning = 3", (2, 3))):
        document = f'service {{ name = "a" Weights {{ {text} }} }}'.encode()
        (service,) = read_document(document, "a.hcl", "hcl", verify).services or [{}]
        assert verified_service(service).service.weights == weights


def test_a_file_that_was_named_must_have_a_format(tmp_path: Path) -> None:
    path = tmp_path / "agent.conf"
    path.write_text('log_level = "debug"')
    with pytest.raises(ConfigError, match=r"its extension must be \.hcl or \.json, or -config-format must be given"):
        _read_files([str(path)], "")
    assert _read_files([str(path)], "hcl")[0].log_level == "debug"
    assert format_of("a.hcl") == "hcl" and format_of("a.json") == "json" and format_of("a.txt") == ""
    with pytest.raises(ConfigError, match="-config-format must be either 'hcl' or 'json', not 'yaml'"):
        format_of("a.hcl", "yaml")


_words = st.text(st.characters(codec="utf-8"), max_size=12)
_values = st.recursive(
    st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats(allow_nan=False, allow_infinity=False) | _words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=12,
)


def _written(value: Any) -> str:
    """HCL of a value."""
    match value:
        case dict():
            return "{" + "\n".join(f"{_quoted(key)} = {_written(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_written, value)) + "]"
        case str():
            return _quoted(value)
        case bool():
            return str(value).lower()
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("$", "\\x24")
    return f'"{escaped}"'


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{2,8}", fullmatch=True), _values, max_size=4))
def test_what_is_written_is_read(document: dict[str, Any]) -> None:
    renamed = {f"k{key}": value for key, value in document.items()}
    text = "\n".join(f"{key} = {_written(value)}" for key, value in renamed.items())
    found = hcl.parse(text)
    assert config_files._plain(found, "$.", {}) == renamed


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ab1."=[]{}<-\n \\$#/*,') | st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        decode(text.encode(), "f", "hcl")
    except ConfigError as error:
        assert str(error).startswith("failed to parse f: ")


def _merges_blocks(patch: pytest.MonkeyPatch) -> None:
    """As pyhcl does: what the second block says is lost."""
    put = hcl._Parser._put

    def mutant(self: hcl._Parser, into: hcl.Object, key: str, line: int, value: hcl.Node) -> None:
        if key not in into.items:
            put(self, into, key, line, value)

    patch.setattr(hcl._Parser, "_put", mutant)


def _takes_any_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(config_files, "strange_keys", lambda kind, definition: ())


def _counts_no_lines(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(config_files, "_line", lambda place, lines, text: 1)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_merges_blocks, hcl_says_what_json_says),
        (_counts_no_lines, mistakes_are_named_with_their_line),
        (_takes_any_key, mistakes_are_named_with_their_line),
    ],
)
def test_a_broken_reader_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        sentence()


def test_a_reader_of_every_file_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config_files, "format_of", lambda name, chosen="": "hcl")
    with pytest.raises((AssertionError, ConfigError)):
        files_of_a_directory_are_read_in_order_and_others_are_passed_over(tmp_path)
