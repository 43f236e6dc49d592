"""Reading the configuration again while the agent runs: on SIGHUP, or when its operator asks for it.

What cannot be used leaves everything as it was. Services and checks of files are compared with what runs: what is the
same goes on, what has changed is registered again with the status that it had, what stands there no more is
deregistered; what users registered by HTTP stays. Everything that needs a restart is named in the log and otherwise
ignored. Source: Consul, "Agent configuration", reloadable configuration.

*Deviations:* `raft_trailing_logs` needs a restart; what needs one is named, not passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from impl.agent.config.validated import Config, ConfigError
from impl.agent.local.definitions import CheckDefinition, ServiceDefinition
from impl.agent.local.registrations import Registrations
from impl.agent.logs import Log
from impl.dns.settings import Settings as DnsSettings
from impl.runtime.http_connections import Connections
from impl.runtime.interfaces import Runtime
from impl.runtime.off_loop import off_loop
from impl.telemetry.instruments import Telemetry

RELOADED: Final = (
    "log_level",
    "node_meta",
    "services",
    "checks",
    "dns",
    "http_max_conns_per_client",
    "telemetry",
    "raft_snapshot_threshold",
    "raft_snapshot_interval",
    "warnings",
)
"""Names in `Config`."""
_DNS_STAYS: Final = ("domain", "datacenter")
_TELEMETRY_CHANGES: Final = ("allowed", "blocked", "filter_default")

Definitions = tuple[list[ServiceDefinition], list[CheckDefinition]]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a running agent that can change."""

    log: Log
    telemetry: Telemetry
    local: Registrations
    node_meta: Callable[[dict[str, str]], dict[str, str]]
    """The metadata of the node with those that the agent adds."""
    dns: Callable[[DnsSettings], None]
    http: Connections
    server: Callable[[Config], None]


class Reloading:
    """The configuration of one agent, as it is now."""

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        read: Callable[[], Config],
        definitions: Callable[[Config], Definitions],
        parts: Parts,
    ) -> None:
        """`read` reads files, and blocks; `definitions` makes sense of those in them. Both raise ConfigError."""
        self._runtime = runtime
        self._config = config
        self._read = read
        self._definitions = definitions
        self._parts = parts

    async def reload(self) -> None:
        """Read it again, and change what can change. Raises ConfigError: nothing was changed."""
        log = self._parts.log
        log.info("reloading configuration")
        try:
            # Several reloads are read, and applied, one after the other: the executor keeps their order.
            config = await off_loop(self._runtime, self._read)
            definitions = self._definitions(config)
        except ConfigError as error:
            log.error("failed to reload config: the old one stays in force", error=str(error))
            raise
        for text in config.warnings:
            log.warn(text)
        config, ignored = merge(self._config, config)
        if ignored:
            log.warn("changes that need a restart are ignored", settings=ignored)
        self._apply(config, definitions)
        log.info("configuration reloaded")

    def _apply(self, config: Config, definitions: Definitions) -> None:
        parts, before = self._parts, self._config
        self._config = config
        parts.log.set_level(config.log_level)
        parts.telemetry.settings = config.telemetry
        if config.node_meta != before.node_meta:
            parts.local.state.set_node_meta(parts.node_meta(config.node_meta))
        parts.dns(config.dns)
        parts.http.most_per_client = config.http_max_conns_per_client
        parts.server(config)
        parts.local.redefine(*definitions)


def merge(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The configuration in force after a reload, and the names of what else has changed."""
    ignored = [
        name for name in Config.__struct_fields__ if name not in RELOADED and getattr(old, name) != getattr(new, name)
    ]
    dns = msgspec.structs.replace(new.dns, **{name: getattr(old.dns, name) for name in _DNS_STAYS})
    filters = {name: getattr(new.telemetry, name) for name in _TELEMETRY_CHANGES}
    telemetry = msgspec.structs.replace(old.telemetry, **filters)
    ignored += ["domain"] * (dns != new.dns) + ["telemetry"] * (telemetry != new.telemetry)
    reloaded = {name: getattr(new, name) for name in RELOADED} | {"dns": dns, "telemetry": telemetry}
    return msgspec.structs.replace(old, **reloaded), ignored
