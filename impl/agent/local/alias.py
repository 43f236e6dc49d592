"""Alias checks: a check that has the health of another instance, or of a node.

It is critical if one of the checks that it follows is, else warning if one is, else passing. Followed are those of the
node and of the instance; of this agent's own by its local state, of another node's by blocking queries on the catalog.
Source: Consul, "Define health checks"; its `agent/checks/alias.go`. *Deviations:* an alias does not follow itself (in
Consul one that belongs to the node it follows stays critical once it was), and passes if the node has no checks. Two
that follow each other say so up to the bound of an output, not for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from impl.agent.local.definitions import CheckDefinition
from impl.agent.local.state import LocalState
from impl.agent.requests.api import Agent, AgentError, Consistency, ReadOptions
from impl.agent.requests.changes import Changes
from impl.catalog.registry_queries import ChecksAnswer, NodeAnswer, NodeChecks, NodeServices
from impl.catalog.rows import CRITICAL, PASSING, WARNING, Check, node_key, row_key
from impl.runtime.interfaces import NANOSECONDS, Runtime, Task

WAIT_SECONDS: Final = 60
"""Of each blocking query, and between two looks at the local state."""
PAUSE_NS: Final = NANOSECONDS
"""After each answer: the checks of a large cluster change all the time."""
RETRY_SECONDS_MAX: Final = 60
TOLERATED: Final = 1
"""Failures to ask the catalog in a row that say nothing of the health."""


@dataclass(frozen=True, slots=True)
class Others:
    """Where those are seen whose health an alias has: the catalog, and what is notified of the agent's own changes."""

    agent: Agent
    changes: Changes


def judged(own: str, node: str, service_id: str, checks: Iterable[Check], exists: bool) -> tuple[str, str]:
    """Status and output of the alias check `own` of an instance ("": of the node alone).

    Args:
        node: as it was asked for; "" if it is the agent's own.
        checks: those of the node.
        exists: whether there is such an instance, or node.
    """
    if not exists:
        what = f"Service {service_id} could not be found on node {node}" if service_id else f"Node {node} is not there"
        return CRITICAL, what
    wanted = ("", service_id.lower())
    followed = [check for check in checks if check.service_id.lower() in wanted and check.check_id != own]
    for status in (CRITICAL, WARNING):
        for check in followed:
            if check.status == status:
                return status, f'Aliased check "{check.name}" failing: {check.output}'
    return PASSING, "All checks passing." if followed else "No checks found."


class Alias:
    """One alias check that runs."""

    def __init__(self, runtime: Runtime, state: LocalState, definition: CheckDefinition, others: Others) -> None:
        self._runtime = runtime
        self._state = state
        self._definition = definition
        self._others = others
        work = self._follow_catalog() if definition.alias_node else self._follow_state()
        self._task: Task = runtime.tasks.spawn(work, f"check {definition.check_id}")

    def stop(self) -> None:
        """It follows nobody any more."""
        self._task.cancel()

    def _set(self, checks: Iterable[Check], exists: bool) -> None:
        definition = self._definition
        # Its own row in the catalog stands under its agent's node, which may be the one that it follows.
        here = ("", node_key(self._state.node.node))
        own = definition.check_id if node_key(definition.alias_node) in here else ""
        status, output = judged(own, definition.alias_node, definition.alias_service, checks, exists)
        self._state.update_check(definition.check_id, status, output[: definition.output_bytes_max])

    async def _follow_state(self) -> None:
        state = self._state
        while True:
            checks = [check for _, check in sorted(state.checks.items())]
            self._set(checks, self._definition.alias_service in state.services)
            await self._others.changes.wait(WAIT_SECONDS * NANOSECONDS)

    async def _follow_catalog(self) -> None:
        index = failures = 0
        while True:
            try:
                checks = await self._checks(index)
                exists = await self._exists()
            except AgentError as error:
                index, failures = 0, failures + 1  # what it says then is to be said again at once
                if failures > TOLERATED:
                    text = f"Failure checking aliased node or service: {error}"
                    self._state.update_check(self._definition.check_id, CRITICAL, text)
                await self._runtime.clock.sleep(min(2**failures, RETRY_SECONDS_MAX) * NANOSECONDS)
                continue
            failures = 0
            index = checks.index if checks.index >= index else 0
            self._set(checks.checks, exists)
            await self._runtime.clock.sleep(PAUSE_NS)

    async def _checks(self, index: int) -> ChecksAnswer:
        """Those of the node, once they are newer than `index` or the time is up. Raises AgentError."""
        options = ReadOptions(Consistency.STALE, index, WAIT_SECONDS if index else 0.0)
        answer = (await self._others.agent.read(NodeChecks(self._definition.alias_node), options)).answer
        assert isinstance(answer, ChecksAnswer)
        return answer

    async def _exists(self) -> bool:
        """Whether there is such an instance, or node. Raises AgentError."""
        node, service_id = self._definition.alias_node, self._definition.alias_service
        answer = (await self._others.agent.read(NodeServices(node), ReadOptions(Consistency.STALE))).answer
        assert isinstance(answer, NodeAnswer)
        if not service_id:
            return answer.node is not None
        return any(row_key(node, service.id) == row_key(node, service_id) for service in answer.services)
