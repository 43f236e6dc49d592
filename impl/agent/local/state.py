"""The services and checks of one agent, and which of them the catalog does not show yet.

The agent is the authority for its node: what it has must be in the catalog, what it has not must not. This module
keeps the books; `sync` writes. Ids have case here and none in the catalog: of two that differ in case only it shows
one. Source: Consul, "Anti-entropy", and its `agent/local/state.go`.

It must not do I/O. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from impl.agent.local.definitions import NODE_MAINTENANCE, SERVICE_MAINTENANCE
from impl.catalog.registry_queries import ChecksAnswer, NodeAnswer
from impl.catalog.rows import CRITICAL, SERF_HEALTH, Check, Node, Service
from impl.runtime.interfaces import NANOSECONDS

OUTPUT_DEFERRED_NS: Final = 300 * NANOSECONDS
"""A change of a check's output alone waits so long, or up to a half less or more (Consul: `check_update_interval`)."""


class LocalState:
    """What one agent says of its node."""

    def __init__(
        self,
        node: Node,
        kept: Iterable[str],
        now_ns: Callable[[], int],
        changed: Callable[[], None],
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """An agent without services.

        Args:
            node: the row of this agent's node.
            kept: ids of instances that the leader registers for it, and that it has no say in.
            changed: called when there is something to write.
            chance: a random number of [0, 1).
        """
        self.node = node
        self.services: dict[str, Service] = {}
        self.checks: dict[str, Check] = {}
        self.critical_since: dict[str, int] = {}
        """When each critical check was first found so; what it is registered with says nothing of that."""
        self.node_in_sync = False
        self.pending_services: set[str] = set()
        """Ids of instances to be written, or deregistered if there is none (any more)."""
        self.pending_checks: set[str] = set()
        self._deferred: dict[str, int] = {}
        """Checks of which only the output is to be written, each with the time when it must be."""
        self._kept = frozenset(kept)
        self._now_ns = now_ns
        self._chance = chance
        self._changed = changed

    # --- what the agent has ------------------------------------------------------------------------------------------

    def put_service(self, service: Service) -> None:
        """Register or replace an instance."""
        self.services[service.id] = replace(service, node=self.node.node)
        self.pending_services.add(service.id)
        self._changed()

    def drop_service(self, service_id: str) -> list[str]:
        """Deregister an instance; the ids of the checks that went with it. The catalog drops them by itself."""
        self.services.pop(service_id)
        alike = _alike(service_id, self.services)
        self.pending_services |= {service_id, *alike}
        self.pending_checks |= {check_id for check_id, check in self.checks.items() if check.service_id in alike}
        gone = [check_id for check_id, check in self.checks.items() if check.service_id == service_id]
        for check_id in gone:
            self._forget_check(check_id)
            self.pending_checks.discard(check_id)
            self.pending_checks |= _alike(check_id, self.checks)
        self._changed()
        return gone

    def put_check(self, check: Check) -> None:
        """Register or replace a check; one of an instance that this agent has shows its name and tags."""
        service = self.services.get(check.service_id)
        if service is not None:
            check = replace(check, service_name=service.service, service_tags=service.tags)
        self.checks[check.check_id] = replace(check, node=self.node.node)
        if check.status != CRITICAL:
            self.critical_since.pop(check.check_id, None)
        self._deferred.pop(check.check_id, None)
        self.pending_checks.add(check.check_id)
        self._changed()

    def drop_check(self, check_id: str) -> None:
        """Deregister a check."""
        self._forget_check(check_id)
        self.pending_checks |= {check_id, *_alike(check_id, self.checks)}
        self._changed()

    def update_check(self, check_id: str, status: str, output: str) -> None:
        """A result of a check, if it is still there. Output alone is not worth a write of its own at once."""
        old = self.checks.get(check_id)
        if old is None:
            return
        if status == CRITICAL:
            self.critical_since.setdefault(check_id, self._now_ns())
        else:
            self.critical_since.pop(check_id, None)
        if (old.status, old.output) == (status, output):
            return
        self.checks[check_id] = replace(old, status=status, output=output)
        if status == old.status and check_id not in self.pending_checks:
            # By chance, so that agents that saw one thing fail do not all write at once.
            deferred_ns = int(OUTPUT_DEFERRED_NS * (0.5 + self._chance()))
            self._deferred.setdefault(check_id, self._now_ns() + deferred_ns)
        else:
            self._deferred.pop(check_id, None)
            self.pending_checks.add(check_id)
        self._changed()

    def _forget_check(self, check_id: str) -> None:
        self.checks.pop(check_id)
        self.critical_since.pop(check_id, None)
        self._deferred.pop(check_id, None)

    def checks_of(self, service_id: str) -> list[Check]:
        """The checks of an instance, or with "" of the node, by id."""
        return [check for _, check in sorted(self.checks.items()) if check.service_id == service_id]

    def maintained(self, service_id: str) -> bool:
        """Whether the instance, or with "" the node, is under maintenance."""
        return (SERVICE_MAINTENANCE + service_id if service_id else NODE_MAINTENANCE) in self.checks

    def set_node_meta(self, meta: dict[str, str]) -> None:
        """The metadata of the node are these."""
        self.node = replace(self.node, meta=meta)
        self.node_in_sync = False
        self._changed()

    # --- what the catalog has ----------------------------------------------------------------------------------------

    @property
    def in_sync(self) -> bool:
        """Whether there is nothing to write now."""
        return self.node_in_sync and not self.pending_services and not self.pending_checks

    def due_ns(self) -> int | None:
        """When the next output that was deferred must be written."""
        return min(self._deferred.values(), default=None)

    def ripen(self) -> None:
        """What was deferred until now is to be written."""
        now = self._now_ns()
        for check_id in [check_id for check_id, due in self._deferred.items() if due <= now]:
            del self._deferred[check_id]
            self.pending_checks.add(check_id)

    def compare(self, found: NodeAnswer, checks: ChecksAnswer) -> None:
        """What the catalog shows of this node: note all that differs from what the agent has."""
        self.node_in_sync = found.node is not None and self.node == replace(
            found.node, create_index=0, modify_index=0, node=self.node.node
        )
        stored = {service.id: service for service in found.services if service.id not in self._kept}
        self.pending_services = {*(stored.keys() ^ self.services.keys())}
        for service_id in stored.keys() & self.services.keys():
            if not self._agrees(self.services[service_id], stored[service_id]):
                self.pending_services.add(service_id)
        shown = {check.check_id: check for check in checks.checks if check.check_id != SERF_HEALTH}
        self.pending_checks = {*(shown.keys() ^ self.checks.keys())}
        for check_id in shown.keys() & self.checks.keys():
            if not self._is_shown(self.checks[check_id], shown[check_id]):
                self.pending_checks.add(check_id)
        # A check goes with its instance.
        self.pending_checks -= {
            check.check_id
            for check in shown.values()
            if check.check_id not in self.checks and check.service_id in self.pending_services - self.services.keys()
        }

    def _agrees(self, mine: Service, stored: Service) -> bool:
        if mine.enable_tag_override:
            self.services[mine.id] = mine = replace(mine, tags=stored.tags)
        return mine == replace(stored, node=mine.node, create_index=0, modify_index=0)

    def _is_shown(self, mine: Check, stored: Check) -> bool:
        same = replace(
            stored,
            node=mine.node,
            service_name=mine.service_name,
            service_tags=mine.service_tags,
            create_index=0,
            modify_index=0,
        )
        if mine.check_id in self._deferred:
            same = replace(same, output=mine.output)
        return mine == same


def _alike(identity: str, others: Iterable[str]) -> set[str]:
    """Ids that are the same one to the catalog: what is deregistered under one must be registered under the other."""
    return {other for other in others if other.lower() == identity.lower()}
