"""`/v1/agent/metrics` in JSON: the last interval in the shape of hashicorp/go-metrics' `DisplayMetrics`.

Source: Consul, "Agent HTTP API", view metrics.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from impl.runtime.interfaces import NANOSECONDS
from impl.telemetry.instruments import INTERVAL_NS, Labels, Summary, Telemetry

Document = dict[str, Any]


def summarize(telemetry: Telemetry) -> Document:
    """The document."""
    interval, name = telemetry.interval(), telemetry.full_name
    begin = datetime.fromtimestamp(interval.begin_seconds, UTC)
    gauges = [
        {"Name": name(metric.name, of_gauge=True), "Value": value, "Labels": dict(metric.labels)}
        for metric, value in interval.gauges
    ]
    counters = [
        _values(name(metric.name), metric.labels, Summary(count, count, count, 1, 1))
        for metric, count in interval.counters
        if count
    ]
    samples = [
        _values(name(metric.name), metric.labels, summary) for metric, summary in interval.samples if summary.count
    ]
    return {
        "Timestamp": begin.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
        "Gauges": gauges,
        "Points": [],
        "Counters": counters,
        "Samples": samples,
    }


def _values(name: str, labels: Labels, summary: Summary) -> Document:
    return {
        "Name": name,
        "Count": summary.count,
        "Rate": summary.total * NANOSECONDS / INTERVAL_NS,
        "Sum": summary.total,
        "Min": summary.least,
        "Max": summary.greatest,
        "Mean": summary.mean,
        "Stddev": summary.stddev,
        "Labels": dict(labels),
    }
