"""What an operator may set of telemetry: Consul's `telemetry`, as far as it is served.

Source: Consul, "Agent configuration", `telemetry`. What is sent elsewhere (statsd, Circonus, ...) is not here.
"""

from __future__ import annotations

import msgspec

RETENTION_SECONDS = 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Which metrics there are, and what they are called."""

    prefix: str = "consul"
    disable_hostname: bool = False
    """Gauges do not have the name of the machine in theirs."""
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    """Beginnings of names with the prefix; the longest one that fits decides."""
    filter_default: bool = True
    """Whether what none of them fits is shown."""
    retention_seconds: float = RETENTION_SECONDS
    """0: nothing is shown in Prometheus's format. *Deviation:* Consul's documentation has 0 as its default; here
    scraping costs nothing until somebody scrapes, so it is on. No metric expires: any other number means the same."""

    def shows(self, name: str) -> bool:
        """Whether a metric of this name, with the prefix, is shown."""
        good = max((len(each) for each in self.allowed if name.startswith(each)), default=-1)
        bad = max((len(each) for each in self.blocked if name.startswith(each)), default=-1)
        return self.filter_default if good == bad == -1 else good > bad
