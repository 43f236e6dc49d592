"""Anti-entropy: what the agent has comes into the catalog, at once when it changes and wholly every minute or so.

The more nodes there are, the rarer the whole comparison, so that the servers' load stays bounded; and agents that
started together do not compare together. Whoever changed something may wait until the catalog has it (`synced`); that
asks for an attempt now, even shortly after one that failed. Source: Consul, "Anti-entropy", its `agent/ae/ae.go`, and
`syncChanges` in its `agent/agent_endpoint.go`. *Deviation:* after a failure it tries again after 3 to 6 s, not 15 to
30 s.
"""

from __future__ import annotations

import math
from typing import Final

from impl.agent.local.state import LocalState
from impl.agent.logs import Log
from impl.agent.requests.api import Agent, AgentError, Consistency, ReadOptions
from impl.agent.requests.changes import Changes
from impl.catalog.commands import Deregister, Register, Write
from impl.catalog.registry_queries import ChecksAnswer, NodeAnswer, NodeChecks, NodeServices
from impl.catalog.transitions import Failed
from impl.runtime.interfaces import NANOSECONDS, Runtime

FULL_NS: Final = 60 * NANOSECONDS
"""Between two whole comparisons in a small cluster, plus up to as much again by chance."""
RETRY_NS: Final = 3 * NANOSECONDS
SCALE_NODES: Final = 128
"""From here on, each doubling of the cluster makes the comparisons rarer by one `FULL_NS`."""
_OPTIONS = ReadOptions(Consistency.DEFAULT)


def scale(nodes: int) -> int:
    """By what the interval is multiplied in a cluster of so many nodes."""
    return 1 if nodes <= SCALE_NODES else math.ceil(math.log2(nodes) - math.log2(SCALE_NODES)) + 1


class AntiEntropy:
    """Writes what one agent's state lacks in the catalog."""

    def __init__(self, runtime: Runtime, agent: Agent, state: LocalState, changes: Changes, log: Log) -> None:
        """`changes` is notified when the state has something to write."""
        self._runtime = runtime
        self._agent = agent
        self._state = state
        self._changes = changes
        self._log = log
        self._told: set[str] = set()
        self._begun = 0
        """The attempts so far; this is also the number of the last one."""
        self._ended = 0
        """The number of the last attempt that ended, well or not."""
        self._asked = 0
        """The number of the last attempt that somebody waits for."""
        self._over = False
        self._ends = Changes(runtime)
        """Notified when an attempt ends, and when there will be no more."""

    async def synced(self, limit_ns: int) -> None:
        """Return when the catalog has all that the state has now, or one attempt to write all of that has failed, or
        after `limit_ns`. What waits on purpose (outputs of checks) is not waited for."""
        number, deadline = self._next_attempt(), self._now_ns() + limit_ns
        if not self._state.in_sync:
            self._asked = number
            self._changes.notify()
        while self._ended < number and not self._state.in_sync and not self._over:
            remaining = deadline - self._now_ns()
            if remaining <= 0:
                return
            await self._ends.wait(remaining)

    def _next_attempt(self) -> int:
        """One under way may have passed by what was just changed: only the next is sure to write it."""
        return self._begun + 1

    async def run(self) -> None:
        """Go on for ever; end it by cancelling the task."""
        try:
            await self._go_on()
        finally:
            self._over = True
            self._ends.notify()

    async def _go_on(self) -> None:
        while True:
            if not await self._attempt(whole=True):
                await self._pause(self._staggered(RETRY_NS))
                continue
            next_ns = self._now_ns() + self._staggered(FULL_NS)
            while self._now_ns() < next_ns:
                await self._something(next_ns)
                if not self._state.in_sync and not await self._attempt(whole=False):
                    next_ns = min(next_ns, self._now_ns() + self._staggered(RETRY_NS))
                    await self._pause(next_ns - self._now_ns())

    async def _pause(self, duration_ns: int) -> None:
        """Return when the time is up, or when somebody waits for an attempt."""
        until_ns = self._now_ns() + duration_ns
        while self._asked <= self._begun and (remaining := until_ns - self._now_ns()) > 0:
            await self._changes.wait(remaining)

    async def _something(self, limit_ns: int) -> None:
        """Return when there is something to write, or when the time is up."""
        while True:
            self._state.ripen()
            now = self._now_ns()
            if not self._state.in_sync or now >= limit_ns:
                return
            due = self._state.due_ns()
            await self._changes.wait(max(min(limit_ns, due or limit_ns) - now, 0))

    def _staggered(self, interval_ns: int) -> int:
        interval_ns *= scale(self._agent.cluster_size())
        return interval_ns + int(interval_ns * self._runtime.random.random())

    def _now_ns(self) -> int:
        return self._runtime.clock.monotonic_ns()

    async def _attempt(self, whole: bool) -> bool:
        """Write what is to be written, after comparing everything if `whole`; whether all of it was."""
        self._begun += 1
        try:
            if whole:
                await self._compare()
            return await self._push()
        except AgentError as error:
            self._tell("cannot sync with the catalog", str(error))
            return False
        finally:
            self._ended = self._begun
            self._ends.notify()

    async def _compare(self) -> None:
        node = self._state.node.node
        services = (await self._agent.read(NodeServices(node), _OPTIONS)).answer
        checks = (await self._agent.read(NodeChecks(node), _OPTIONS)).answer
        assert isinstance(services, NodeAnswer) and isinstance(checks, ChecksAnswer)
        self._state.compare(services, checks)

    async def _push(self) -> bool:
        """Raises AgentError."""
        state, succeeded = self._state, True
        # What is gone comes first: what is new may differ from it in case only.
        for service_id in sorted(state.pending_services, key=lambda each: (each in state.services, each)):
            succeeded &= await self._push_service(service_id)
        for check_id in sorted(state.pending_checks, key=lambda each: (each in state.checks, each)):
            if check_id in state.pending_checks:  # it did not go with its instance meanwhile
                succeeded &= await self._push_check(check_id)
        if not state.node_in_sync:
            succeeded &= await self._write(Register(state.node))
        return succeeded

    async def _push_service(self, service_id: str) -> bool:
        state, service = self._state, self._state.services.get(service_id)
        if service is None:
            written = await self._write(Deregister(state.node.node, service_id=service_id))
            checks = []
        else:
            checks = [check for check in state.checks_of(service_id) if check.check_id in state.pending_checks]
            written = await self._write(Register(state.node, service, tuple(checks), state.node_in_sync))
        # What changed while it was being written is to be written again.
        if written and state.services.get(service_id) is service:
            state.pending_services.discard(service_id)
        for check in checks:
            if written and state.checks.get(check.check_id) is check:
                state.pending_checks.discard(check.check_id)
        return written

    async def _push_check(self, check_id: str) -> bool:
        state, check = self._state, self._state.checks.get(check_id)
        if check is None:
            written = await self._write(Deregister(state.node.node, check_id=check_id))
        else:
            written = await self._write(Register(state.node, None, (check,), state.node_in_sync))
        if written and state.checks.get(check_id) is check:
            state.pending_checks.discard(check_id)
        return written

    async def _write(self, command: Write) -> bool:
        result = await self._agent.write(command)
        if isinstance(result, Failed):
            # Somebody deregistered the node, perhaps: the next registration brings it along.
            self._state.node_in_sync = False
            self._tell("the catalog refuses what this agent says of its node", result.why)
            return False
        if isinstance(command, Register):
            self._state.node_in_sync = True
        return True

    def _tell(self, what: str, why: str) -> None:
        """Once for each reason."""
        if why not in self._told:
            self._told.add(why)
            self._log.warn(what, error=why)
