"""What users of an agent may ask of its own services and checks; it keeps state, checks, disk and catalog in step.

Source: Consul, "Agent HTTP API": services, checks, maintenance mode. What is asked for is done when the agent knows;
the catalog follows (`sync`), and whoever must not be ahead of it waits for `synced`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from impl.agent.local.alias import Others
from impl.agent.local.checks import Checks
from impl.agent.local.definitions import (
    DEREGISTER_NS_MIN,
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    CheckDefinition,
    ServiceDefinition,
)
from impl.agent.local.persistence import CHECKS, SERVICES, KeptCheck, Shelf
from impl.agent.local.sidecars import sidecar_of, with_sidecars
from impl.agent.local.state import LocalState
from impl.agent.local.sync import AntiEntropy
from impl.agent.logs import Log
from impl.agent.requests.api import Agent
from impl.agent.requests.changes import Changes
from impl.catalog.rows import CRITICAL, Check, Node
from impl.runtime.interfaces import NANOSECONDS, Prober, Runtime, Task

REAP_NS: Final = 30 * NANOSECONDS
"""How often services are looked for that have been critical for too long."""
HOLD_NS: Final = 7 * NANOSECONDS
"""How long `synced` waits at most (Consul: `rpc_hold_timeout`), unless the agent says otherwise."""
_NO_REASON = "Maintenance mode is enabled for this {}, but no reason was provided. This is a default message."


class Unknown(Exception):
    """There is no such service or check here. The text is Consul's."""


class UnknownServiceId(Unknown):
    """This agent has no such instance."""

    def __init__(self, service_id: str) -> None:
        super().__init__(
            f'Unknown service ID "{service_id}". Ensure that the service ID is passed, not the service name.'
        )


class UnknownCheckId(Unknown):
    """This agent has no such check."""

    def __init__(self, check_id: str) -> None:
        super().__init__(f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.')


class NoSuchService(Exception):
    """A check of an instance that this agent does not have."""


@dataclass(frozen=True, slots=True)
class Scripts:
    """Who may have commands run: configuration files (`local`), users of the HTTP API (`remote`)."""

    local: bool = False
    remote: bool = False


class Registrations:
    """The services and checks of one agent."""

    def __init__(
        self,
        runtime: Runtime,
        agent: Agent,
        node: Node,
        kept: Iterable[str],
        prober: Prober,
        scripts: Scripts,
        log: Log,
        directory: str = "",
        hold_ns: int = HOLD_NS,
    ) -> None:
        """An agent's own, none yet.

        Args:
            node: the row of this agent's node.
            kept: ids of instances that the leader registers for it.
            directory: where registrations are kept; "": nowhere.
            hold_ns: how long `synced` waits at most.
        """
        self.scripts = scripts
        self.changes = Changes(runtime)
        """Notified whenever services or checks change."""
        clock, chance = runtime.clock.monotonic_ns, runtime.random.random
        self.state = LocalState(node, kept, clock, self.changes.notify, chance)
        self.definitions: dict[str, CheckDefinition] = {}
        self.runtime = runtime
        self._log = log
        self._checks = Checks(runtime, prober, self.state, Others(agent, self.changes), self._keep)
        self._sync = AntiEntropy(runtime, agent, self.state, self.changes, log)
        self._hold_ns = hold_ns
        self._tasks: list[Task] = []
        self.shelf = Shelf(runtime, directory, log)
        self._configured: set[tuple[str, str]] = set()
        """(kind, id) of what stands in configuration files: it is not kept."""

    def restore(self) -> None:
        """Register again what was kept. Raises OSError."""
        services, checks = self.shelf.load()
        for service in services:
            self.state.put_service(service)
        for check in checks:
            definition = check.definition
            if not definition.service_id or definition.service_id in self.state.services:
                # The others say nothing until they have run.
                keeps = definition.kind in ("ttl", "maintenance")
                self._run_check(replace(definition, status=check.status) if keeps else definition, None)

    def define(self, services: Iterable[ServiceDefinition], checks: Iterable[CheckDefinition]) -> None:
        """Register what configuration files say; they win over what was kept, and say it again at the next start.

        Raises NoSuchService, NoPortLeft.
        """
        for service in with_sidecars(services, self.state.services):
            self._define(SERVICES, service.service.id)
            for check in service.checks:
                self._define(CHECKS, check.check_id)
            self._register(service)
        for check in checks:
            self._define(CHECKS, check.check_id)
            self._register_check(check)

    def redefine(self, services: Iterable[ServiceDefinition], checks: Iterable[CheckDefinition]) -> None:
        """Configuration files say this now: what is as before goes on, checks that changed keep their status, and what
        they do not say any more is deregistered, unless a user registered it meanwhile."""
        services, checks = with_sidecars(services, self.state.services), list(checks)
        before, self._configured = self._configured, set()
        for service in services:
            self._define(SERVICES, service.service.id)
            for check in service.checks:
                self._define(CHECKS, check.check_id)
        for check in checks:
            self._define(CHECKS, check.check_id)
        for kind, identity in sorted(before - self._configured, reverse=True):  # services first: checks go with them
            if kind == SERVICES and identity in self.state.services:
                self.deregister_service(identity)
            elif kind == CHECKS and identity in self.state.checks:
                self._drop_check(identity)
        for service in services:
            changed = tuple(check for check in service.checks if self.definitions.get(check.check_id) != check)
            wanted, stands = (
                replace(service.service, node=self.state.node.node),
                self.state.services.get(service.service.id),
            )
            if stands is not None and wanted.enable_tag_override:
                wanted = replace(wanted, tags=stands.tags)  # the catalog's, which others may have changed
            if changed or stands != wanted:
                self._register(replace(service, service=wanted, checks=changed))
        for check in checks:
            if self.definitions.get(check.check_id) != check:
                self._put_check(check, self.state.checks.get(check.check_id))

    def _define(self, kind: str, identity: str) -> None:
        """It stands in a file: it need not be kept."""
        self._configured.add((kind, identity))
        if kind == SERVICES:
            self.shelf.remove_service(identity)
        else:
            self.shelf.remove_check(identity)

    def start(self) -> None:
        """Begin to keep the catalog in step."""
        self._tasks.append(self.runtime.tasks.spawn(self._sync.run(), "anti-entropy"))
        self._tasks.append(self.runtime.tasks.spawn(self._reap(), "critical services"))

    def stop(self) -> None:
        """The agent ends: nothing is checked or written any more. The catalog keeps what it has."""
        self._checks.stop_all()
        for task in self._tasks:
            task.cancel()

    async def synced(self) -> None:
        """Return when the catalog shows what the agent has, or an attempt to make it so failed (the log says why, and
        it is tried again), or the hold timeout has passed. At once while the catalog is not kept in step."""
        if self._tasks:
            await self._sync.synced(self._hold_ns)

    # --- services ----------------------------------------------------------------------------------------------------

    def register_service(self, definition: ServiceDefinition, replace_existing_checks: bool = False) -> None:
        """A user registers or replaces an instance, and its sidecar. Checks that it had already go on as they stand.

        Raises NoPortLeft.
        """
        for each in with_sidecars([definition], self.state.services):
            self._configured.discard((SERVICES, each.service.id))
            self._configured.difference_update((CHECKS, check.check_id) for check in each.checks)
            self._register(each, replace_existing_checks)

    def _register(self, definition: ServiceDefinition, replace_existing_checks: bool = False) -> None:
        service_id = definition.service.id
        before = {check.check_id: check for check in self.state.checks_of(service_id)}
        self.state.put_service(definition.service)
        if (SERVICES, service_id) not in self._configured:
            self.shelf.save_service(definition.service)
        named = {check.check_id for check in definition.checks}
        for check in definition.checks:
            self._put_check(check, before.get(check.check_id))
        for check_id, check_row in before.items():
            if check_id in named:
                continue
            if replace_existing_checks and check_id != SERVICE_MAINTENANCE + service_id:
                self._drop_check(check_id)
            else:
                self.state.put_check(check_row)  # it shows the tags of its instance

    def deregister_service(self, service_id: str) -> None:
        """Deregister an instance with its checks, and its sidecar. Raises UnknownServiceId."""
        service = self.state.services.get(service_id)
        if service is None:
            raise UnknownServiceId(service_id)
        sidecar = sidecar_of(service, self.state.services)
        if sidecar is not None:
            self.deregister_service(sidecar)
        self.shelf.remove_service(service_id)
        for check_id in self.state.drop_service(service_id):
            self._forget_check(check_id)

    # --- checks ------------------------------------------------------------------------------------------------------

    def register_check(self, definition: CheckDefinition) -> None:
        """A user registers or replaces a check. Raises NoSuchService."""
        self._configured.discard((CHECKS, definition.check_id))
        self._register_check(definition)

    def _register_check(self, definition: CheckDefinition) -> None:
        if definition.service_id and definition.service_id not in self.state.services:
            raise NoSuchService(f'ServiceID "{definition.service_id}" does not exist')
        self._put_check(definition, None)

    def deregister_check(self, check_id: str) -> None:
        """Deregister a check. Raises UnknownCheckId."""
        if check_id not in self.state.checks:
            raise UnknownCheckId(check_id)
        self._drop_check(check_id)

    def set_ttl(self, check_id: str, status: str, output: str) -> None:
        """Somebody says how a TTL check stands. Raises UnknownCheckId, or NoTtl."""
        if check_id not in self.state.checks:
            raise UnknownCheckId(check_id)
        before = self.state.checks[check_id].status
        self._checks.set_status(check_id, status, output)
        if status != before:
            self._keep(check_id)

    def _put_check(self, definition: CheckDefinition, before: Check | None) -> None:
        self._run_check(definition, before)
        self._keep(definition.check_id)

    def _keep(self, check_id: str) -> None:
        if (CHECKS, check_id) in self._configured:
            return
        self.shelf.save_check(KeptCheck(self.definitions[check_id], self.state.checks[check_id].status))

    def _run_check(self, definition: CheckDefinition, before: Check | None) -> None:
        row = definition.row()
        if before is not None:
            row = replace(row, status=before.status, output=before.output)
        self.definitions[definition.check_id] = definition
        self.state.put_check(row)
        if definition.kind != "maintenance":
            self._checks.start(definition)

    def _drop_check(self, check_id: str) -> None:
        self._forget_check(check_id)
        self.state.drop_check(check_id)

    def _forget_check(self, check_id: str) -> None:
        self._checks.stop(check_id)
        self.definitions.pop(check_id, None)
        self.shelf.remove_check(check_id)

    # --- maintenance -------------------------------------------------------------------------------------------------

    def maintain_service(self, service_id: str, enable: bool, reason: str) -> None:
        """Put an instance under maintenance, or end that: it is critical meanwhile. Raises UnknownServiceId."""
        if service_id not in self.state.services:
            raise UnknownServiceId(service_id)
        self._maintain(SERVICE_MAINTENANCE + service_id, enable, "service", reason, service_id)

    def maintain_node(self, enable: bool, reason: str) -> None:
        """Put the node under maintenance, or end that: everything on it is critical meanwhile."""
        self._maintain(NODE_MAINTENANCE, enable, "node", reason, "")

    def _maintain(self, check_id: str, enable: bool, what: str, reason: str, service_id: str) -> None:
        if enable == (check_id in self.state.checks):
            return
        if not enable:
            self._drop_check(check_id)
            return
        notes = reason or _NO_REASON.format(what)
        name = f"{what.capitalize()} Maintenance Mode"
        definition = CheckDefinition(check_id=check_id, name=name, notes=notes, status=CRITICAL, service_id=service_id)
        self._put_check(definition, None)

    # --- critical for too long ---------------------------------------------------------------------------------------

    async def _reap(self) -> None:
        while True:
            await self.runtime.clock.sleep(REAP_NS)
            for service_id in self.overdue(self.runtime.clock.monotonic_ns()):
                self._log.info("deregistering a service that has been critical for too long", service=service_id)
                self.deregister_service(service_id)

    def overdue(self, now_ns: int) -> list[str]:
        """The instances one of whose checks has been critical for longer than it may."""
        found = set()
        for check_id, since in self.state.critical_since.items():
            definition = self.definitions.get(check_id)
            if definition is None or not definition.deregister_after_ns:
                continue
            limit_ns = max(definition.deregister_after_ns, DEREGISTER_NS_MIN)
            if definition.service_id in self.state.services and now_ns - since > limit_ns:
                found.add(definition.service_id)
        return sorted(found)

    # --- for whoever waits -------------------------------------------------------------------------------------------

    async def until_changed(self, service_id: str, digest: str, wait_seconds: float) -> None:
        """Return when an instance is defined in another way than `digest` says, is gone, or the time is up."""
        clock = self.runtime.clock
        deadline = clock.monotonic_ns() + int(wait_seconds * NANOSECONDS)
        while service_id in self.state.services and self.content_hash(service_id) == digest:
            remaining = deadline - clock.monotonic_ns()
            if remaining <= 0:
                return
            await self.changes.wait(remaining)

    def content_hash(self, service_id: str) -> str:
        """Of an instance as it is defined: it changes when the definition does."""
        return blake2b(msgspec.json.encode(self.state.services[service_id]), digest_size=8).hexdigest()
