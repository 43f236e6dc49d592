"""What an agent's users type: flags with one dash or two, files with Consul's keys, and one line for each mistake."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from msgspec import UNSET, ValidationError, convert
from msgspec.structs import replace

from impl.agent.config import document as config_document
from impl.agent.config import validated as config
from impl.agent.config.absent import ABSENT, FLAGS, SWITCHES, Asked
from impl.agent.config.document import Addresses, Contents, DnsConfig, Document, Performance, Ports
from impl.agent.config.files import read_document
from impl.agent.config.validated import (
    Address,
    Config,
    ConfigError,
    build,
    parse_duration,
)
from impl.agent.describe import describe_config
from impl.cli.commandline import rewrite
from impl.dns.settings import Settings as DnsSettings

SERVER = Document(server=True, data_dir="/d", bootstrap_expect=1)
NAMES = {"server": False, "retry-join": True, "node": True, "log-json": False}


def asking(name: str, key: str, value: object) -> Document:
    return Document(absent={key: Asked(name, "", value)})


def built(*documents: Document) -> Config:
    return build(documents, "host")


@pytest.mark.parametrize(
    ("words", "rewritten"),
    [
        (["-server", "-node", "s1"], ["--server", "--node", "s1"]),
        (["--server", "--node=s1"], ["--server", "--node", "s1"]),
        (["-server=true", "-log-json=false"], ["--server"]),
        (["-node", "-dashed"], ["--node", "-dashed"]),
        (["-retry-join=[::1]:8300"], ["--retry-join", "[::1]:8300"]),
        (["key", "-server"], ["--", "key", "-server"]),
        (["-node", "n", "--", "-server"], ["--node", "n", "--", "-server"]),
        (["-"], ["--", "-"]),
    ],
)
def test_flags_are_read_as_go_reads_them(words: list[str], rewritten: list[str]) -> None:
    assert list(rewrite(words, NAMES)) == rewritten


@pytest.mark.parametrize(
    ("word", "reason"),
    [("-server=maybe", "invalid boolean value"), ("-sever", "flag provided but not defined: -sever")],
)
def test_a_mistyped_flag_is_named(word: str, reason: str) -> None:
    with pytest.raises(click.UsageError, match=reason):
        list(rewrite([word], NAMES))


def test_defaults_are_consuls_and_bind_to_loopback() -> None:
    config = built(SERVER)
    assert (config.server_port, config.http_port, config.datacenter) == (8300, 8500, "dc1")
    assert (config.bind_addr, config.client_addr, config.advertise_addr) == ("127.0.0.1",) * 3
    assert (config.node_name, config.rpc_hold_timeout, config.kv_max_value_size) == ("host", 7.0, 512 * 1024)
    assert config.http_max_conns_per_client == 200


def test_a_file_uses_consuls_keys_and_flags_win() -> None:
    text = b"""{"server": true, "bootstrap_expect": 3, "retry_join": ["a:1", "[::1]"], "node_name": "s1",
        "data_dir": "/d", "bind_addr": "127.0.0.2", "ports": {"http": 1, "server": 2},
        "performance": {"raft_multiplier": 5, "rpc_hold_timeout": "1s500ms"},
        "limits": {"kv_max_value_size": 1024, "http_max_conns_per_client": 0}, "log_level": "debug"}"""
    flags = Document(retry_join=["b"], ports=Ports(http=9), node_name="s2")
    config = built(read_document(text, "file"), flags)
    assert config.join == (Address("a", 1), Address("::1", 8300), Address("b", 8300))
    assert (config.http_port, config.server_port, config.node_name) == (9, 2, "s2")
    assert (config.advertise_addr, config.raft_multiplier, config.rpc_hold_timeout) == ("127.0.0.2", 5, 1.5)
    assert (config.kv_max_value_size, config.http_max_conns_per_client, config.log_level) == (1024, 0, "DEBUG")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"sever": true}', "sever"),
        (b'{"bootstrap_expect": "3"}', "bootstrap_expect"),
        (b'{"ports": {"http": 70000}}', "ports.http"),
        (b'{"performance": {"raft_multiplier": 0}}', "raft_multiplier"),
        (b"{", "failed to parse"),
    ],
)
def test_a_mistake_in_a_file_names_file_and_key(text: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        read_document(text, "agent.json")
    assert "agent.json" in str(error.value)


def http_and_dns_listen_where_each_is_told_to() -> None:
    text = b'{"client_addr": "127.0.0.2", "addresses": {"dns": "127.0.0.3"}}'
    config = built(SERVER, read_document(text, "file"))
    assert (config.client_addr, config.http_addr, config.dns_addr) == ("127.0.0.2", "127.0.0.2", "127.0.0.3")
    config = built(SERVER, read_document(text, "file"), Document(addresses=Addresses(http="::1")))
    assert (config.http_addr, config.dns_addr) == ("::1", "127.0.0.3")
    assert built(SERVER).dns_addr == "127.0.0.1"


def test_http_and_dns_listen_where_each_is_told_to() -> None:
    http_and_dns_listen_where_each_is_told_to()


def test_addresses_that_are_forgotten_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = config_document.merge
    monkeypatch.setattr(config, "merge", lambda merged, newer: merge(merged, replace(newer, addresses=UNSET)))
    with pytest.raises(AssertionError):
        http_and_dns_listen_where_each_is_told_to()


def test_err_is_another_word_for_error() -> None:
    assert [built(SERVER, Document(log_level=name)).log_level for name in ("err", "error")] == ["ERROR", "ERROR"]


def test_dns_is_set_as_in_consul() -> None:
    assert (built(SERVER).dns_port, built(SERVER).dns) == (8600, DnsSettings())
    text = b"""{"ports": {"dns": -1}, "domain": "Example.COM.", "datacenter": "dc2",
        "dns_config": {"only_passing": true,
        "node_ttl": "30s", "service_ttl": {"web": "1m30s", "*": "5s"}, "udp_answer_limit": 9, "a_record_limit": 2,
        "enable_truncate": false, "enable_additional_node_meta_txt": false, "soa": {"refresh": 1, "min_ttl": 60}}}"""
    config = built(SERVER, read_document(text, "file"))
    assert (config.dns_port, config.dns.domain, config.dns.datacenter) == (-1, "example.com", "dc2")
    assert (config.dns.only_passing, config.dns.node_ttl, config.dns.udp_answer_limit) == (True, 30, 9)
    assert config.dns.a_record_limit == 2
    assert (config.dns.enable_truncate, config.dns.node_meta_txt) == (False, False)
    assert config.dns.service_ttl == (("*", 5), ("web", 90))
    assert (config.dns.soa_refresh, config.dns.soa_retry, config.dns.soa_min_ttl) == (1, 600, 60)
    assert built(SERVER, read_document(text, "file"), Document(ports=Ports(dns=53))).dns_port == 53


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([Document(server=True)], "data_dir cannot be empty"),
        ([Document(bootstrap_expect=3, retry_join=["a"])], "requires '-server'"),
        ([Document()], "add -retry-join"),
        ([SERVER, Document(node_name="a/b")], "invalid node name"),
        ([SERVER, Document(node_id="nonsense")], "must be a UUID"),
        ([SERVER, Document(datacenter="a b")], "invalid datacenter"),
        ([SERVER, Document(bind_addr="here")], "invalid -bind address"),
        ([SERVER, Document(bind_addr="0.0.0.0")], "add -advertise"),
        (
            [SERVER, Document(addresses=Addresses(dns="unix:///d"))],
            "invalid addresses.dns 'unix:///d': give an IP address",
        ),
        ([SERVER, Document(log_level="loud")], "invalid log level"),
        ([SERVER, Document(retry_join=["a:0"])], "ports are 1 to 65535"),
        ([SERVER, Document(retry_join=["a b"])], "give host:port"),
        ([SERVER, Document(domain="a..b")], "invalid domain 'a..b'"),
        ([SERVER, Document(domain="arpa")], "invalid domain 'arpa'"),
        ([SERVER, Document(dns_config=DnsConfig(node_ttl="1500ms"))], "DNS counts whole seconds"),
        ([SERVER, Document(dns_config=DnsConfig(service_ttl={"web": "x"}))], "invalid duration 'x'"),
        ([Document(dev=True, bootstrap_expect=3, data_dir="/d")], "-dev runs one server alone"),
        ([Document(retry_join=["a"], trace_dir="/t")], "-trace records what a server does"),
        ([Document(retry_join=["a"], read_replica=True)], "'read_replica' requires '-server'"),
        ([SERVER, Document(read_replica=True)], "a read replica forms no cluster"),
        ([SERVER, Document(raft_snapshot_interval="0")], "raft_snapshot_interval must be longer than 0"),
        ([SERVER, Document(bootstrap=True)], "mutually exclusive"),
        ([Document(bootstrap=True, retry_join=["a"])], "'bootstrap' requires '-server'"),
        ([SERVER, Document(primary_datacenter="dc2")], "there is one datacenter in Comitia, 'dc1' here"),
        ([SERVER, asking("-log-file", "log_file", "/l")], "redirect that: 2>> FILE"),
        ([SERVER, asking("-recursor", "recursors", "1.1.1.1")], "let the resolver of this machine forward"),
        ([SERVER, asking("-encrypt", "encrypt", "a2V5")], "^-encrypt: there is no gossip that could be encrypted"),
        ([SERVER, Document(node_meta={"a b": ""})], "pair \\('a b', ''\\): Key contains invalid characters"),
        ([SERVER, Document(node_meta={"": "x"})], "Key cannot be blank"),
        ([SERVER, Document(node_meta={"k" * 129: "x"})], "limit: 128 characters"),
        ([SERVER, Document(node_meta={"k": "x" * 513})], "limit: 512 characters"),
        ([SERVER, Document(node_meta={"consul-x": "y"})], "reserved for internal use"),
        ([SERVER, Document(node_meta={f"k{n}": "" for n in range(65)})], "more than 64 key/value pairs"),
        ([SERVER, Document(clock_drift=1.5)], "invalid clock drift"),
        ([SERVER, Document(raft_lease_ms=290)], "use -raft-lease-ms below 273, or 0"),
        ([SERVER, Document(clock_drift=0.1)], "could outlast the shortest election timeout of 300 ms"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(documents: list[Document], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        built(*documents)
    assert "\n" not in str(error.value)


def test_what_almost_every_real_file_says_is_taken() -> None:
    text = b"""{"server": true, "bootstrap": true, "data_dir": "/d", "disable_update_check": true,
        "node_meta": {"a": "1"}, "rejoin_after_leave": true, "ui_config": {"enabled": false},
        "connect": {"enabled": false}, "enable_local_script_checks": true,
        "datacenter": "dc2", "primary_datacenter": "dc2",
        "acl": {"enabled": false, "default_policy": "allow", "enable_token_persistence": true},
        "disable_host_node_id": true, "ports": {"grpc": -1, "grpc_tls": 0, "https": -1, "serf_wan": -1}}"""
    config = built(read_document(text, "agent.json"), Document(node_meta={"b": "2"}))
    assert (config.bootstrap_expect, config.enable_local_script_checks, config.datacenter) == (1, True, "dc2")
    assert (config.node_meta, config.warnings) == ({"a": "1", "b": "2"}, ())


def test_signals_let_client_agents_leave_and_servers_stay_unless_told_otherwise() -> None:
    client = Document(retry_join=["a"])
    assert built(client).leaves_on == {"SIGTERM", "SIGINT"}
    assert built(SERVER).leaves_on == set()
    said = Document(leave_on_terminate=False, skip_leave_on_interrupt=True)
    assert built(client, said).leaves_on == set()
    said = Document(leave_on_terminate=True, skip_leave_on_interrupt=False)
    assert built(SERVER, said).leaves_on == {"SIGTERM", "SIGINT"}


def test_an_agent_tells_by_which_signals_it_leaves() -> None:
    for documents, told in (
        ([SERVER], (False, True)),
        ([Document(retry_join=["a"])], (True, False)),
        ([SERVER, Document(leave_on_terminate=True)], (True, True)),
        ([SERVER, Document(skip_leave_on_interrupt=False)], (False, False)),
    ):
        shown = describe_config(built(*documents), "id", "127.0.0.1", 8300)["DebugConfig"]
        assert (shown["LeaveOnTerm"], shown["SkipLeaveOnInt"]) == told


def test_what_does_no_harm_is_ignored_with_a_word() -> None:
    text = b"""{"ports": {"serf_lan": 8301, "serf_wan": 8302},
        "ui_config": {"enabled": true, "metrics_provider": "prometheus"}, "retry_interval": "30s",
        "disable_host_node_id": false, "limits": {"rpc_rate": 100, "kv_max_value_size": 5}}"""
    config = built(SERVER, read_document(text, "a.json"), asking("-advertise-wan", "advertise_addr_wan", "1.2.3.4"))
    assert [warning.partition(" is ignored: ")[0] for warning in config.warnings] == [
        "-advertise-wan",
        "a.json: line 3: disable_host_node_id",
        "a.json: line 3: limits.rpc_rate",
        "a.json: line 1: ports.serf_lan",
        "a.json: line 1: ports.serf_wan",
        "a.json: line 2: retry_interval",
        "a.json: line 2: ui_config",
    ]
    assert config.kv_max_value_size == 5


def what_somebody_relies_on_is_refused_where_it_stands() -> None:
    for text, why in (
        ("connect {\n  enabled = true\n}", "line 2: connect.enabled: there is no service mesh in Comitia: remove it"),
        ("\nacl { enabled = true }", "line 2: acl.enabled: there are no ACLs in Comitia"),
        ("ports { grpc = 8502 }", "line 1: ports.grpc: there is no gRPC in Comitia: remove it, or set it to -1"),
        ("ports { grpc_tls = 8503 }", "line 1: ports.grpc_tls: there is no gRPC"),
        ("ports { https = 8501 }", "line 1: ports.https: there is no TLS"),
        ("tls { defaults { verify_incoming = true } }", "line 1: tls: there is no TLS"),
        ('encrypt = "a2V5"', "line 1: encrypt: there is no gossip"),
        ('watches { type = "nodes" args = ["true"] }', "line 1: watches: agents run no handlers: remove it, and run"),
        ('addresses { https = "10.0.0.1" }', "line 1: addresses.https: there is no TLS"),
    ):
        with pytest.raises(ConfigError) as error:
            built(SERVER, read_document(text.encode(), "a.hcl", "hcl"))
        assert str(error.value).startswith(f"a.hcl: {why}"), error.value


def test_what_somebody_relies_on_is_refused_where_it_stands() -> None:
    what_somebody_relies_on_is_refused_where_it_stands()


def test_what_would_be_ignored_though_somebody_relies_on_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impl.agent.config.validated.refusal", lambda asked: "")
    with pytest.raises(pytest.fail.Exception):
        what_somebody_relies_on_is_refused_where_it_stands()


def a_mistake_of_a_file_is_shown_where_it_is() -> None:
    first = b'datacenter = "a b"\nlog_level = "info"\nretry_join = ["a:0"]\naddresses {\n  dns = "here"\n}'
    second = b'{"performance":\n {"rpc_hold_timeout": "soon"},\n "retry_join": ["b"], "node_name": "a/b"}'
    for said, why in (
        ([], "a.hcl: line 3: cannot join 'a:0'"),
        ([Document(retry_join=["c"])], "cannot join 'a:0'"),
        ([b"retry_join = []"], "cannot join 'a:0'"),
    ):
        documents = [each if isinstance(each, Document) else read_document(each, "c.hcl", "hcl") for each in said]
        with pytest.raises(ConfigError) as error:
            built(SERVER, read_document(first, "a.hcl", "hcl"), *documents)
        assert str(error.value).startswith(why), error.value
    first = first.replace(b"a:0", b"a:1")
    for flags, why in (
        (Document(), "b.json: line 2: performance.rpc_hold_timeout: invalid duration 'soon'"),
        (Document(performance=Performance(rpc_hold_timeout="1s")), "b.json: line 3: invalid node name 'a/b'"),
        (Document(performance=Performance(rpc_hold_timeout="1s"), node_name="n"), "a.hcl: line 1: invalid datacenter"),
        (
            Document(performance=Performance(rpc_hold_timeout="1s"), node_name="n", datacenter="dc1"),
            "a.hcl: line 5: invalid addresses.dns 'here'",
        ),
        (
            Document(performance=Performance(rpc_hold_timeout="1s"), node_name="n", datacenter="x y"),
            "invalid datacenter",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            built(SERVER, read_document(first, "a.hcl", "hcl"), read_document(second, "b.json"), flags)
        assert str(error.value).startswith(why), error.value


def test_a_mistake_of_a_file_is_shown_where_it_is() -> None:
    a_mistake_of_a_file_is_shown_where_it_is()


def _says_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(config_document, "_keys", lambda document: set())


def _forgets_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("impl.agent.config.files._keys", lambda raw: ())


@pytest.mark.parametrize("mutant", [_says_nothing, _forgets_places])
def test_a_wrong_place_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        a_mistake_of_a_file_is_shown_where_it_is()


def test_a_later_source_takes_back_what_an_earlier_one_asks_for() -> None:
    file = read_document(b'{"ports": {"grpc": 8502}, "encrypt": "a2V5"}', "a.json")
    config = built(SERVER, file, asking("-grpc-port", "ports.grpc", "-1"), asking("-encrypt", "encrypt", ""))
    assert config.warnings == ()


def test_every_flag_for_what_is_absent_has_a_key_and_every_setting_a_form() -> None:
    assert set(FLAGS.values()) <= set(ABSENT) and set(FLAGS) >= SWITCHES
    assert all(key.count(".") <= 1 for key in ABSENT if key != "telemetry.disable_compat_1.9")
    for key in ABSENT:
        outer, _, name = key.rpartition(".") if key != "telemetry.disable_compat_1.9" else ("telemetry", "", "x")
        with pytest.raises(ValidationError, match=f"unknown field `{outer or name}`|unknown field `{name}`"):
            convert({outer: {name: None}} if outer else {name: None}, Contents)
    # What is within an object is taken out before the object is.
    keys = list(ABSENT)
    within = [(key, key.partition(".")[0]) for key in keys if "." in key and key.partition(".")[0] in ABSENT]
    assert {outer for _, outer in within} == {"acl", "connect"}
    assert all(keys.index(key) < keys.index(outer) for key, outer in within)


def a_lease_must_end_before_the_promise_on_any_two_clocks() -> None:
    for lease in range(240, 320):
        # The leader's clock runs slow by the drift, the voter's fast: what each of them measures, in true time.
        outlasts = lease * 1.05 >= 300 / 1.05
        try:
            built(SERVER, Document(raft_lease_ms=lease))
        except ConfigError:
            assert outlasts, lease
        else:
            assert not outlasts, lease


def test_a_lease_must_end_before_the_promise_on_any_two_clocks() -> None:
    a_lease_must_end_before_the_promise_on_any_two_clocks()


def test_a_lease_that_is_not_checked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impl.agent.config.validated._validate_lease", lambda config: None)
    with pytest.raises(AssertionError):
        a_lease_must_end_before_the_promise_on_any_two_clocks()


def test_the_multiplier_scales_the_lease_too_unless_it_is_given() -> None:
    slow = Document(performance=Performance(raft_multiplier=4))
    assert built(SERVER, slow).raft_lease_ms == 1000
    assert built(SERVER, slow, Document(raft_lease_ms=0)).raft_lease_ms == 0


def test_snapshots_are_taken_as_often_as_consul_takes_them() -> None:
    config = built(SERVER)
    assert (config.raft_snapshot_threshold, config.raft_snapshot_interval) == (16384, 30.0)
    assert config.raft_trailing_logs == 10240
    text = b'{"raft_snapshot_threshold": 200, "raft_snapshot_interval": "1s", "raft_trailing_logs": 50}'
    config = built(SERVER, read_document(text, "file"))
    assert (config.raft_snapshot_threshold, config.raft_snapshot_interval) == (200, 1.0)
    assert config.raft_trailing_logs == 50


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("7s", 7.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0), ("0", 0.0), ("10us", 1e-5)),
        *(("10µs", 1e-5), ("10μs", 1e-5), (".5s", 0.5), ("+5s", 5.0), ("1.s", 1.0)),
    ],
)
def test_durations_are_written_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "7", "s", "-1s", "1s ", "1d", ".s", "٣s", "2562048h", "9" * 400 + "h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid duration"):
        parse_duration(text)
