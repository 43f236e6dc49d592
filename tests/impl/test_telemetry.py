"""Telemetry as Consul's documentation has it: intervals of ten seconds as JSON, and Prometheus's text format.

Prometheus's own parser reads what is exposed.
"""

from __future__ import annotations

import math
import re
import statistics
import timeit
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from impl.agent.config.document import Document, TelemetryConfig
from impl.agent.config.validated import ConfigError, build
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.telemetry import exposition, instruments
from impl.telemetry.exposition import expose
from impl.telemetry.instruments import FOLD_AT, RECENT_MAX, Sample, Summary, Telemetry
from impl.telemetry.settings import Settings
from impl.telemetry.summary import summarize


class Agent:
    """Telemetry in a world whose time only passes when it is told to."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = VirtualWorld(1)
        self.clock = self.world.process("n", VirtualDisk()).runtime.clock
        self.telemetry = Telemetry(self.clock, "host-1.lan", settings)
        self.applied = self.telemetry.counter("raft.apply", "Entries.")
        self.took = self.telemetry.sample("kvs.apply", "Writes, in ms.")
        self.telemetry.start()

    def until_the_next_interval(self) -> None:
        self.world.run_for(instruments.INTERVAL_NS - self.clock.wall_ns() % instruments.INTERVAL_NS + 1)

    def exposed(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Values by name and labels, as Prometheus reads them. Its parser gives counters the suffix that they lack."""
        return {
            (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(expose(self.telemetry))
            for sample in family.samples
        }


def an_interval_says_what_happened_in_it() -> None:
    agent = Agent()
    agent.applied.total += 7
    agent.until_the_next_interval()
    agent.applied.total += 30
    values = [1.0, 2.0, 6.0]
    for value in values:
        agent.took.observe(value)
    agent.until_the_next_interval()
    agent.applied.total += 5  # belongs to the next one
    document = summarize(agent.telemetry)
    assert document["Counters"] == [
        {
            "Name": "consul.raft.apply",
            "Count": 30,
            "Rate": 3.0,
            "Sum": 30,
            "Min": 1,
            "Max": 1,
            "Mean": 1.0,
            "Stddev": 0.0,
            "Labels": {},
        }
    ]
    (sample,) = document["Samples"]
    assert (sample["Count"], sample["Rate"], sample["Sum"], sample["Min"], sample["Max"]) == (3, 0.9, 9.0, 1.0, 6.0)
    assert (sample["Mean"], sample["Stddev"]) == (3.0, pytest.approx(statistics.stdev(values)))
    assert document["Points"] == []


def test_an_interval_says_what_happened_in_it() -> None:
    an_interval_says_what_happened_in_it()


def test_intervals_begin_at_whole_tens_of_seconds() -> None:
    agent = Agent()
    agent.world.run_for(25 * NANOSECONDS)
    stamp = summarize(agent.telemetry)["Timestamp"]
    assert stamp.endswith("0 +0000 UTC") and len(stamp) == len("2006-01-02 15:04:00 +0000 UTC")
    begin = agent.telemetry.interval().begin_seconds
    assert begin % 10 == 0 and 10 <= agent.clock.wall_ns() // NANOSECONDS - begin < 20


def test_what_did_not_happen_is_not_in_the_interval_but_counted_for_prometheus() -> None:
    agent = Agent()
    agent.applied.total += 1
    agent.took.observe(2.0)
    agent.until_the_next_interval()
    agent.until_the_next_interval()
    document = summarize(agent.telemetry)
    assert (document["Counters"], document["Samples"]) == ([], [])
    exposed = agent.exposed()
    assert exposed["consul_raft_apply", ()] == 1
    assert (exposed["consul_kvs_apply_count", ()], exposed["consul_kvs_apply_sum", ()]) == (1, 2.0)


def test_before_the_first_interval_has_ended_the_one_under_way_is_shown() -> None:
    agent = Agent()
    agent.applied.total += 2
    agent.took.observe(1.0)
    document = summarize(agent.telemetry)
    assert (document["Counters"][0]["Count"], document["Samples"][0]["Count"]) == (2, 1)
    assert summarize(agent.telemetry) == document  # looking changes nothing


def gauges_say_what_is_so_now_and_have_the_name_of_the_machine_in_theirs() -> None:
    agent = Agent()
    agent.telemetry.gauge("state.nodes", "Nodes.", lambda: 3, (("datacenter", "dc1"),))
    agent.telemetry.gauge("autopilot.healthy", "1.", lambda: None)
    assert summarize(agent.telemetry)["Gauges"] == [
        {"Name": "consul.host-1.lan.state.nodes", "Value": 3, "Labels": {"datacenter": "dc1"}}
    ]
    assert agent.exposed()["consul_host_1_lan_state_nodes", (("datacenter", "dc1"),)] == 3
    agent.telemetry.settings = Settings(disable_hostname=True)
    assert agent.exposed()["consul_state_nodes", (("datacenter", "dc1"),)] == 3


def test_gauges_say_what_is_so_now_and_have_the_name_of_the_machine_in_theirs() -> None:
    gauges_say_what_is_so_now_and_have_the_name_of_the_machine_in_theirs()


def quantiles_are_those_of_the_last_intervals() -> None:
    agent = Agent()
    for value in range(1, 101):
        agent.took.observe(float(value))
    exposed = agent.exposed()
    found = [exposed["consul_kvs_apply", (("quantile", rank),)] for rank in ("0.5", "0.9", "0.99")]
    assert found == [50.0, 90.0, 99.0]
    agent.until_the_next_interval()
    assert agent.exposed()["consul_kvs_apply", (("quantile", "0.5"),)] == 50.0
    agent.until_the_next_interval()
    assert math.isnan(agent.exposed()["consul_kvs_apply", (("quantile", "0.5"),)])


def test_quantiles_are_those_of_the_last_intervals() -> None:
    quantiles_are_those_of_the_last_intervals()


def test_a_sample_holds_only_so_many_values() -> None:
    sample = Sample()
    for value in range(5 * FOLD_AT + 1):
        sample.observe(value)
    assert len(sample._fresh) == 1 and len(sample._recent) == RECENT_MAX
    assert sample.fold() == Summary(5001, 12502500.0, sum(v * v for v in range(5001)), 0, 5000)


def labels_and_help_of_any_text_are_read_back() -> None:
    agent = Agent()
    ugly = 'a"b\\c\nd'
    agent.telemetry.counted("dns.x-y", "One\ntwo\\three", lambda: 1, (("node", ugly),))
    assert agent.exposed()["consul_dns_x_y", (("node", ugly),)] == 1


def test_labels_and_help_of_any_text_are_read_back() -> None:
    labels_and_help_of_any_text_are_read_back()


def test_every_name_has_one_type_and_one_help() -> None:
    agent = Agent()
    for method in ("GET", "PUT"):
        agent.telemetry.sample("api.http", "Requests.", (("method", method),)).observe(1.0)
    text = expose(agent.telemetry)
    assert text.count("# TYPE consul_api_http summary") == text.count("# HELP consul_api_http ") == 1
    assert agent.exposed()["consul_api_http_count", (("method", "PUT"),)] == 1


def the_longest_prefix_that_fits_decides_what_is_shown() -> None:
    blocked = Settings(blocked=("consul.raft",), allowed=("consul.raft.apply",))
    agent = Agent(blocked)
    agent.telemetry.counter("raft.state.leader", "")
    names = {name for name, _ in agent.exposed()}
    assert "consul_raft_apply" in names and "consul_raft_state_leader" not in names and "consul_kvs_apply" in names
    agent.telemetry.settings = Settings(filter_default=False, allowed=("consul.kvs",))
    assert {name.split("_")[1] for name, _ in agent.exposed()} == {"kvs"}


def test_the_longest_prefix_that_fits_decides_what_is_shown() -> None:
    the_longest_prefix_that_fits_decides_what_is_shown()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (TelemetryConfig(prefix_filter=[""]), "Cannot have empty filter rule in prefix_filter"),
        (TelemetryConfig(prefix_filter=["consul"]), "Filter rule must begin with either '+' or '-': \"consul\""),
        (TelemetryConfig(prometheus_retention_time="soon"), "invalid duration 'soon'"),
        (TelemetryConfig(metrics_prefix="1 x"), "invalid metrics_prefix '1 x'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(given: TelemetryConfig, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        build([Document(dev=True, data_dir="d", telemetry=given)], "n")


def test_settings_are_consuls() -> None:
    rules = TelemetryConfig(
        prefix_filter=["+consul.a", "-consul.b"], metrics_prefix="x", prometheus_retention_time="0s"
    )
    built = build([Document(dev=True, data_dir="d", telemetry=rules)], "n").telemetry
    assert (built.allowed, built.blocked, built.prefix, built.retention_seconds) == (
        ("consul.a",),
        ("consul.b",),
        "x",
        0,
    )
    assert Agent(built).telemetry.full_name("raft.apply") == "x.raft.apply"
    assert build([Document(dev=True, data_dir="d")], "n").telemetry == Settings()


def test_counting_costs_next_to_nothing() -> None:
    """The bound is a hundred times what it takes: a lock, a clock of its own or a sort for each value would not fit."""
    sample = Sample()
    best = min(timeit.repeat(lambda: sample.observe(1.5), number=5_000, repeat=10)) / 5_000
    assert best < 10e-6


def _counts_from_the_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Telemetry, "_sum_up", lambda self, summed: _sum_up_all(self, summed))


def _sum_up_all(telemetry: Telemetry, summed: Callable[[Sample], Summary]) -> instruments.Interval:
    samples = tuple((metric, summed(sample)) for metric, sample in telemetry.samples())
    return instruments.Interval(0, tuple(telemetry.gauges()), tuple(telemetry.counters()), samples)


MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (_counts_from_the_start, an_interval_says_what_happened_in_it),
    (
        lambda patch: patch.setattr(Summary, "stddev", property(lambda self: 0.0)),
        an_interval_says_what_happened_in_it,
    ),
    (
        lambda patch: patch.setattr(Sample, "close", Sample.fold),
        quantiles_are_those_of_the_last_intervals,
    ),
    (
        lambda patch: patch.setattr(Telemetry, "full_name", lambda self, name, *, of_gauge=False: f"consul.{name}"),
        gauges_say_what_is_so_now_and_have_the_name_of_the_machine_in_theirs,
    ),
    (lambda patch: patch.setattr(exposition, "_quoted", lambda text: text), labels_and_help_of_any_text_are_read_back),
    (
        lambda patch: patch.setattr(Settings, "shows", lambda self, name: not name.startswith(self.blocked or ("-",))),
        the_longest_prefix_that_fits_decides_what_is_shown,
    ),
]


@pytest.mark.parametrize(("mutant", "sentence"), MUTANTS)
def test_broken_telemetry_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, KeyError, ValueError)):
        sentence()
