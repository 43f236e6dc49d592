"""Counters, samples and gauges of one agent, and the intervals of ten seconds that they are summed up in.

Counting must cost next to nothing: a counter is an integer, a sample a list that is summed up by the thousand, and a
gauge is asked only when it is shown. Everything is declared when the agent is put together, and handed to whoever
counts: no module finds a registry by itself. Names are Consul's without the prefix; those that begin with `comitia.`
are Comitia's own and have none.

Source: Consul, "Telemetry"; hashicorp/go-metrics, `InmemSink`. *Deviations:* things are counted one at a time, so that
a counter's Min, Max and Mean are 1; a gauge says what is so at the end of the interval.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from operator import mul
from typing import Final, TypeVar

import msgspec

from impl.runtime.interfaces import NANOSECONDS, Clock, Timer
from impl.telemetry.settings import Settings

INTERVAL_NS: Final = 10 * NANOSECONDS
FOLD_AT: Final = 1_000
"""So many values of a sample are summed up together."""
RECENT_MAX: Final = 1_024
"""Values from which quantiles are computed: the newest ones of an interval."""
QUANTILES: Final = (0.5, 0.9, 0.99)

T = TypeVar("T")
Labels = tuple[tuple[str, str], ...]


class Metric(msgspec.Struct, frozen=True, order=True):
    """What something is called, and what it says."""

    name: str
    labels: Labels
    help: str


class Counter:
    """How often something happened. Add to `total`."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


class Summary(msgspec.Struct, frozen=True):
    """Values summed up."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )

    @property
    def mean(self) -> float:
        """0 if there are no values."""
        return self.total / self.count if self.count else 0.0

    @property
    def stddev(self) -> float:
        """Of a sample of the values (Bessel's correction); 0 for fewer than two."""
        if self.count < 2:
            return 0.0
        spread = self.count * self.squares - self.total**2
        return math.sqrt(max(spread, 0.0) / (self.count * (self.count - 1)))


class Sample:
    """How long something takes, or how much of it there is, each time. Durations are in milliseconds."""

    def __init__(self) -> None:
        self.ever = Summary()
        """Up to the last time that values were summed up: see `fold`."""
        self._interval = Summary()
        self._fresh: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT_MAX)
        self._before: deque[float] = deque(maxlen=RECENT_MAX)
        """`_recent` of the interval before."""

    def observe(self, value: float) -> None:
        """Once more."""
        self._fresh.append(value)
        if len(self._fresh) >= FOLD_AT:
            self.fold()

    def fold(self) -> Summary:
        """Sum up what was observed; the interval so far."""
        fresh = self._fresh
        if fresh:
            new = Summary(len(fresh), sum(fresh), sum(map(mul, fresh, fresh)), min(fresh), max(fresh))
            self.ever += new
            self._interval += new
            self._recent.extend(fresh)
            fresh.clear()
        return self._interval

    def close(self) -> Summary:
        """The interval has ended."""
        ended = self.fold()
        self._interval = Summary()
        self._before, self._recent = self._recent, deque(maxlen=RECENT_MAX)
        return ended

    def quantiles(self) -> list[tuple[float, float]]:
        """Of the values of this interval and the one before; NaN if there are none."""
        self.fold()
        values = sorted((*self._before, *self._recent))
        if not values:
            return [(each, math.nan) for each in QUANTILES]
        return [(each, values[math.ceil(each * len(values)) - 1]) for each in QUANTILES]


class Interval(msgspec.Struct, frozen=True):
    """What happened in ten seconds, by name: what did not happen is not there."""

    begin_seconds: int
    """Since 1970."""
    gauges: tuple[tuple[Metric, float], ...]
    counters: tuple[tuple[Metric, int], ...]
    samples: tuple[tuple[Metric, Summary], ...]


class Telemetry:
    """The instruments of one agent."""

    def __init__(self, clock: Clock, hostname: str = "", settings: Settings | None = None) -> None:
        """None yet. `hostname` stands in the names of gauges, unless the settings say otherwise."""
        self.settings = settings or Settings()
        self._clock = clock
        self._hostname = hostname
        self._counters: dict[Metric, Callable[[], int]] = {}
        self._samples: dict[Metric, Sample] = {}
        self._gauges: dict[Metric, Callable[[], float | None]] = {}
        self._totals: dict[Metric, int] = {}
        """Of each counter, at the end of the last interval."""
        self._begin_seconds = self._now_seconds()
        self._last: Interval | None = None
        self._timer: Timer | None = None

    # --- declaring ---------------------------------------------------------------------------------------------------

    def counter(self, name: str, help: str, labels: Labels = ()) -> Counter:
        """A counter."""
        counter = Counter()
        self.counted(name, help, lambda: counter.total, labels)
        return counter

    def counted(self, name: str, help: str, total: Callable[[], int], labels: Labels = ()) -> None:
        """Something that somebody counts anyway: `total` never falls."""
        self._counters[Metric(name, labels, help)] = total

    def sample(self, name: str, help: str, labels: Labels = ()) -> Sample:
        """A sample; the same one if there is one of this name and these labels."""
        return self._samples.setdefault(Metric(name, labels, help), Sample())

    def gauge(self, name: str, help: str, value: Callable[[], float | None], labels: Labels = ()) -> None:
        """Something that can be asked for at any time; None: there is nothing to say now."""
        self._gauges[Metric(name, labels, help)] = value

    # --- intervals ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to divide time into intervals, which begin at whole tens of seconds."""
        wall_ns = self._clock.wall_ns()
        self._timer = self._clock.call_later(INTERVAL_NS - wall_ns % INTERVAL_NS, self._next_interval)

    def stop(self) -> None:
        """Begin no more intervals."""
        if self._timer is not None:
            self._timer.cancel()

    def _next_interval(self) -> None:
        self._last = self._sum_up(Sample.close)
        self._totals = {metric: total() for metric, total in self._counters.items()}
        self._begin_seconds = self._now_seconds()
        self.start()

    def _now_seconds(self) -> int:
        return self._clock.wall_ns() // INTERVAL_NS * INTERVAL_NS // NANOSECONDS

    def interval(self) -> Interval:
        """The last one that has ended; before the first has, the one that is under way."""
        return self._last or self._sum_up(Sample.fold)

    def _sum_up(self, summed: Callable[[Sample], Summary]) -> Interval:
        return Interval(
            self._begin_seconds,
            tuple(self.gauges()),
            tuple((metric, total - self._totals.get(metric, 0)) for metric, total in self.counters()),
            tuple((metric, summed(sample)) for metric, sample in self._shown(self._samples)),
        )

    # --- what there is, by name --------------------------------------------------------------------------------------

    def gauges(self) -> Iterator[tuple[Metric, float]]:
        """Those that have something to say, as they are now."""
        for metric, value in self._shown(self._gauges):
            if (now := value()) is not None:
                yield metric, now

    def counters(self) -> Iterator[tuple[Metric, int]]:
        """All, since the agent started."""
        return ((metric, total()) for metric, total in self._shown(self._counters))

    def samples(self) -> Iterator[tuple[Metric, Sample]]:
        """All, with everything summed up."""
        for metric, sample in self._shown(self._samples):
            sample.fold()
            yield metric, sample

    def full_name(self, name: str, *, of_gauge: bool = False) -> str:
        """With the prefix, and for gauges with the machine's name."""
        if name.startswith("comitia."):
            return name
        host = f"{self._hostname}." if of_gauge and self._hostname and not self.settings.disable_hostname else ""
        return f"{self.settings.prefix}.{host}{name}"

    def _shown(self, found: dict[Metric, T]) -> list[tuple[Metric, T]]:
        return sorted(
            ((metric, what) for metric, what in found.items() if self.settings.shows(self.full_name(metric.name))),
            key=lambda each: each[0],
        )
