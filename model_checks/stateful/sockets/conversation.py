"""A client's conversation with the running system: asks, observes the log, writes the history, has each event judged.

Requests one after the other, and beside them blocking queries, which are waited for as soon as the spec says that they
must return. It decides nothing: the judge does, from what the history says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from model_checks.catalog.http_answers import HttpReply, told
from model_checks.catalog.http_requests import Asked, Read, Write, http_request
from model_checks.catalog.payloads import Malformed
from model_checks.stateful.sockets import history
from model_checks.stateful.sockets.background import (
    as_read,
    readings_of_background,
    readings_of_start,
    readings_that_tell_apart,
)
from model_checks.stateful.sockets.history import (
    Baseline,
    CaughtUp,
    Event,
    Exchange,
    Lagging,
    Reading,
    RunBegan,
    WatchBegan,
    WatchClosed,
    WatchEnded,
    WatchOverdue,
)
from model_checks.stateful.sockets.judge import Judge
from model_checks.stateful.sockets.properties import Difference
from model_checks.stateful.sockets.system import Call, NoAnswer, Position, SystemUnderTest
from model_checks.stateful.sockets.worlds import Undecided
from model_checks.verdicts import SetupFailed
from spec.catalog.commands import Command, DeleteTree, Deregister, DestroySession, Request
from spec.catalog.state import node_key

ANSWER_TIMEOUT_S: Final = 20.0
"""An agent without a leader holds a request for 7 s."""
OVERDUE_S: Final = 15.0
"""A blocking query whose index was passed, and a server that is behind, have so long."""
QUIET_S: Final = 60.0
"""A new cluster writes of itself for a moment; it has so long to come to rest."""
PATIENCE_S: Final = 2.0
"""What an agent knows it shall say within this time, if it answers at all."""
WORLDS_MANY: Final = 4
"""So many possible states are told apart by reading them."""
POLL_S: Final = 0.01
STILL_S: Final = 1.2
"""A log that did not grow for so long, with all agents registered, is at rest: the leader looks once a second."""


class Conversation:
    """With one cluster, over many runs."""

    def __init__(self, system: SystemUnderTest, seed: int, write: Callable[[Event], None]) -> None:
        """`write` stores an event of the history."""
        self.system = system
        self.judge = Judge()
        self.run = 0
        self.seed = seed
        self._write = write
        self._number = 0
        self._calls: dict[int, Call] = {}
        self.ended: Exception | None = None
        """What ended the conversation, if anything did."""

    @property
    def watching(self) -> int:
        """How many blocking queries are under way."""
        return len(self._calls)

    # ------------------------------------------------------------------------------------------------------------- runs

    def open(self) -> None:
        """Wait until the cluster has come to rest, and read it. Raises SetupFailed, Difference."""
        deadline = time.monotonic() + QUIET_S
        while True:
            position = self._at_rest(deadline)
            requests = readings_of_start(self.system.agents)
            readings = tuple(self._reading(self.system.servers[0], request) for request in requests)
            if self.system.position() == position:
                break
        names = (self.system.servers, self.system.agents)
        self._take(Baseline(history.FORMAT, self.seed, *names, position.applied, position.leader, readings))

    def _at_rest(self, deadline: float) -> Position:
        """Where the log ends, once every agent is registered, every server has applied it, and it does not grow."""
        before, since = Position("", 0), time.monotonic()
        while time.monotonic() < deadline:
            try:
                now = self.system.position()
                ready = len(self._registered()) == len(self.system.agents)
                ready = ready and all(self.system.applied(server) == now.applied for server in self.system.servers)
            except NoAnswer:
                ready = False
            if not ready or now != before:
                before, since = now if ready else Position("", 0), time.monotonic()
            elif time.monotonic() - since > STILL_S:
                return now
            time.sleep(POLL_S)
        raise SetupFailed(f"the cluster did not come to rest within {QUIET_S:g} s: not all agents are registered")

    def _registered(self) -> frozenset[str]:
        """The agents whose nodes are in the catalog, with what they say of themselves."""
        request = readings_of_start(())[0]
        answer = self._reading(self.system.servers[0], request).answer
        return frozenset(agent for agent in self.system.agents if f'"{agent}"' in answer.body)

    def begin_run(self) -> None:
        """The next run: what it makes has names of its own. Raises what ended the conversation."""
        if self.ended is not None:
            raise self.ended
        self.run += 1
        self._take(RunBegan(self.run))

    def end_run(self) -> None:
        """Delete what the run made, hang up, and wait until every server has applied it."""
        for command in self._undoing():
            self.ask(self.system.servers[0], Write(command))
        for number in sorted(self._calls):
            self._calls.pop(number).close()
            self._take(WatchClosed(number))
        self._catch_up()

    def _undoing(self) -> list[Command]:
        state = self.judge.state
        mine = {node_key(agent) for agent in self.system.agents}
        ended: list[Command] = [DestroySession(session) for session, _ in state.sessions.items()]
        gone: list[Command] = [Deregister(node.node) for key, node in state.nodes.items() if key not in mine]
        return [*ended, *gone, *([DeleteTree("")] if len(state.rows) else [])]

    def _catch_up(self) -> None:
        deadline = time.monotonic() + OVERDUE_S
        leader_applied = self.judge.accounted
        while True:
            try:
                applied = {server: self.system.applied(server) for server in self.system.servers}
            except NoAnswer:
                applied = {}
            behind = [server for server, index in applied.items() if index < leader_applied]
            if applied and not behind:
                self._take(CaughtUp(applied))
                return
            if time.monotonic() > deadline:
                if applied:
                    self._take(Lagging(behind[0], applied[behind[0]], leader_applied, int(OVERDUE_S * 1000)))
                return
            time.sleep(POLL_S)

    # --------------------------------------------------------------------------------------------------------- requests

    def ask(self, agent: str, asked: Asked) -> None:
        """One request, its answer judged; then whichever blocking queries it wakes. Raises Difference, Undecided.

        If much is possible afterwards, what is visible is read, so that less is.
        """
        self._ask(agent, asked)
        if len(self.judge.worlds) >= WORLDS_MANY:
            for request in readings_that_tell_apart(self.judge.state):
                self._ask(agent, as_read(request))

    def _ask(self, agent: str, asked: Asked) -> None:
        number = self._next()
        request = http_request(asked)
        answer, error, sent = None, "", True
        sent_ns = time.monotonic_ns()
        try:
            answer = history.answered(self.system.send(agent, request, ANSWER_TIMEOUT_S))
        except NoAnswer as failure:
            error, sent = str(failure), failure.sent
        received_ns = time.monotonic_ns()
        position, background = self._observe(expected=isinstance(asked, Write))
        self._take(
            Exchange(
                number,
                agent,
                history.described(asked),
                history.shown(asked),
                sent_ns,
                received_ns,
                answer,
                position.applied,
                position.leader,
                error,
                sent,
                background,
            )
        )
        self.heed()

    def watch(self, agent: str, asked: Read) -> None:
        """Begin a blocking query, and go on. Raises Difference."""
        number = self._next()
        sent_ns = time.monotonic_ns()
        self._calls[number] = self.system.begin(agent, http_request(asked))
        self._take(WatchBegan(number, agent, history.described(asked), history.shown(asked), sent_ns))
        self.heed()

    def heed(self) -> None:
        """Take the answers of blocking queries: those that came, and those that must come. Raises Difference."""
        while [number for number in sorted(self._calls) if self._heed_one(number)]:
            pass  # an answer may show that the log grew by itself: look again at the others

    def _heed_one(self, number: int) -> bool:
        """Whether the blocking query is over."""
        must = self.judge.due(number)
        answer, error, began_ns = None, "", time.monotonic_ns()
        try:
            reply = self._awaited(number) if must else self._calls[number].wait(0.0)
            if reply is None and not must:
                return False
            answer = None if reply is None else history.answered(reply)
        except NoAnswer as failure:
            error = str(failure)
        received_ns = time.monotonic_ns()
        self._calls.pop(number).close()
        if answer is None and not error:
            self._take(WatchOverdue(number, (received_ns - began_ns) // 1_000_000))
        position, background = self._observe(expected=False)
        at = (position.applied, position.leader)
        self._take(WatchEnded(number, received_ns, answer, *at, error, background))
        return True

    def _awaited(self, number: int) -> HttpReply | None:
        """The answer of a blocking query that must return; None: it does not, though it had time enough.

        It had if the same agent, asked again without waiting, answers with an index that is passed, and some time
        after that. Raises NoAnswer.
        """
        call, watch = self._calls[number], self.judge.watches[number]
        request = http_request(replace(watch.read, index=0))
        deadline = time.monotonic() + OVERDUE_S
        while time.monotonic() < deadline:
            reply = call.wait(PATIENCE_S)
            if reply is not None:
                return reply
            with suppress(NoAnswer, Malformed):
                reply = self.system.send(watch.agent, request, ANSWER_TIMEOUT_S)
                if told(reply, watch.read.request, watch.read.as_list).index > watch.read.index:
                    break
        return call.wait(PATIENCE_S)

    def _observe(self, *, expected: bool) -> tuple[Position, tuple[Reading, ...]]:
        """Where the log ends now; if it grew by more than `expected`, with what the agents may have written."""
        position = self._position()
        deadline = time.monotonic() + QUIET_S
        while position.applied - self.judge.accounted > expected:
            requests = readings_of_background(self.system.agents)
            try:
                readings = tuple(self._reading(position.leader, request) for request in requests)
            except NoAnswer as failure:
                if time.monotonic() > deadline:
                    raise SetupFailed(f"{position.leader} does not answer: {failure}") from failure
                readings = ()
            before, position = position, self._position()
            if readings and before == position:
                return position, readings
        return position, ()

    def _position(self) -> Position:
        """Raises SetupFailed: there is no leader for too long."""
        deadline = time.monotonic() + QUIET_S
        while True:
            try:
                return self.system.position()
            except NoAnswer as failure:
                if time.monotonic() > deadline:
                    raise SetupFailed(f"no leader within {QUIET_S:g} s: {failure}") from failure
                time.sleep(POLL_S)

    def _reading(self, agent: str, request: Request) -> Reading:
        reply = self.system.send(agent, http_request(as_read(request)), ANSWER_TIMEOUT_S)
        read = as_read(request)
        return Reading(history.described(read)[1], history.answered(reply))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _take(self, event: Event) -> None:
        self._write(event)
        try:
            self.judge.take(event)
        except (Difference, Undecided) as ended:
            self.ended = ended
            raise
