"""Judges a history, event by event: every answer and every index must be what spec/catalog says.

The same judge goes along with a run and reads a stored history. What each kind of answer may be:

- a write's: the result of its command, whose entry is the one by which the log grew;
- a `default` or `consistent` read's: the state of the moment, with its index;
- a `stale` read's: any state since the newest one that this server has shown or reported before (a client agent's:
  since the oldest of those of the servers, since it may ask any of them);
- a blocking query's: a state of its wait. It must return once the index passes the one given; it may return earlier
  (Consul, "Blocking Queries"), which is counted. A read of keys waits for these keys: if there are none its index is
  that of the whole table, whose other changes need not wake it (Consul watches the keys, not the table).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import assert_never

import msgspec
from msgspec.structs import replace

from model_checks.catalog.http_answers import (
    Told,
    freshness,
    outcome,
    sessions,
    shown,
    shown_outcome,
    told,
)
from model_checks.catalog.http_requests import Asked, Mode, Read, ReadTransaction, Renew, Write
from model_checks.catalog.payloads import Malformed
from model_checks.stateful.sockets import history
from model_checks.stateful.sockets.background import NotFresh, learned, state_at_start
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
from model_checks.stateful.sockets.properties import Difference, Property
from model_checks.stateful.sockets.results import (
    as_shown,
    is_delay,
    is_refused,
    is_unknown,
    is_unserved,
    locked_keys,
    result_of,
    text,
)
from model_checks.stateful.sockets.worlds import Extension, Moment, Pending, Undecided, World, distinct, extensions
from spec.catalog import transactions
from spec.catalog.commands import (
    Command,
    CreateSession,
    Get,
    GetSession,
    Keys,
    List,
    Transaction,
)
from spec.catalog.queries import Answer, query
from spec.catalog.state import Index, State
from spec.catalog.transactions import Outcome
from spec.catalog.transitions import Failed, Result

WORLDS_MAX = 256
EFFECTIVE = {Mode.DEFAULT: "leader", Mode.CONSISTENT: "consistent", Mode.STALE: "stale"}
CHANGED_LEADER_NS = 60_000_000_000
"""After a change of leader a lock-delay ends at an unknown time: another server counts it from when it applied the
entry."""


class Watch(msgspec.Struct, frozen=True):
    """A blocking query that is under way."""

    agent: str
    read: Read
    sent_ns: int
    since: Index
    """The state at this index is the oldest that it may return."""
    rows: Answer
    passed: bool
    """What it found when it began, if it did not wait: the rows, and whether the index was passed."""


class Judge:
    """The worlds that are possible after the events so far."""

    def __init__(self) -> None:
        self.worlds: tuple[World, ...] = ()
        self.accounted: Index = 0
        """Every entry of the log up to here is accounted for."""
        self.agents: tuple[str, ...] = ()
        self.servers: tuple[str, ...] = ()
        self.watches: dict[int, Watch] = {}
        self.counts: Counter[str] = Counter()
        self._leader = ""
        self._now_ns = 0

    @property
    def state(self) -> State:
        """The state, or one of the possible ones."""
        return self.worlds[0].state

    def due(self, number: int) -> bool:
        """Whether a blocking query must return: in every world its index is passed, and of keys, they changed."""
        watch = self.watches[number]
        read = watch.read
        for world in self.worlds:
            index, rows = query(world.state, read.request)
            changed = rows != watch.rows or not isinstance(read.request, Get | List | Keys)
            if index <= read.index or not (changed or watch.passed):
                return False
        return True

    def take(self, event: Event) -> None:
        """Go on by one event. Raises Difference, Undecided, BadHistory."""
        try:
            self._take(event)
        except Malformed as malformed:
            raise Difference(Property.FORM, str(malformed)) from malformed

    def _take(self, event: Event) -> None:
        match event:
            case Baseline():
                self._begin(event)
            case RunBegan():
                self.counts["runs"] += 1
            case Exchange():
                self._none_is_due()
                self._exchange(event, history.parsed(event.asked))
            case WatchBegan():
                self._none_is_due()
                self._watch(event)
            case WatchEnded():
                self._watch_ended(event)
            case WatchOverdue(number, waited_ms):
                watch = self.watches.pop(number)
                why = f"request {number}, {history.shown(watch.read)} at {watch.agent}"
                raise Difference(Property.WOKEN, f"{why}, has not returned for {waited_ms} ms", self._expected(watch))
            case WatchClosed(number):
                if self.due(number):
                    raise Difference(Property.WOKEN, f"request {number} was given up although its index was passed")
                del self.watches[number]
                self.counts["blocking, given up by the client"] += 1
            case CaughtUp(applied):
                self._caught_up(applied)
            case Lagging(server, applied, leader_applied, waited_ms):
                why = f"{server} has applied {applied}, the leader {leader_applied}, for {waited_ms} ms"
                raise Difference(Property.FOLLOWS, why)
            case _:
                assert_never(event)

    def _begin(self, event: Baseline) -> None:
        if event.format != history.FORMAT:
            raise history.BadHistory(f"the format is {event.format}, not {history.FORMAT}")
        try:
            state = state_at_start(event)
        except NotFresh as not_fresh:
            raise history.BadHistory(f"the cluster was not new: {not_fresh}") from not_fresh
        self.agents, self.servers, self.accounted = event.agents, event.servers, event.applied
        self._leader = event.leader
        self.worlds = (World(((event.applied, state),), floors=dict.fromkeys(event.servers, event.applied)),)

    # ------------------------------------------------------------------------------------------------ the growing log

    def _grow(
        self,
        event: Exchange | WatchEnded,
        background: tuple[Reading, ...],
        own: Pending | None = None,
        accept: Callable[[Extension], bool] = lambda extension: True,
    ) -> list[Extension]:
        """Account for the entries since the last event, `own` among them; the extensions that `accept` takes."""
        if event.applied < self.accounted:
            why = f"{event.leader} had applied {event.applied}, and {self._leader} {self.accounted} before"
            raise Difference(Property.FORWARD, why)
        span = range(self.accounted + 1, event.applied + 1)
        moment = Moment(self._now_ns, event.received_ns, event.leader)
        found: list[Extension] = []
        for world in self.worlds:
            new = learned(world.state, span, background, self.agents)
            found += extensions(world, span, own, new, moment)
        if own is not None and not found:
            why = f"request {own.number} was acknowledged, and the log ends at {event.applied} as before"
            raise Difference(Property.LOGGED, why)
        return [each for each in found if accept(each)]

    def _settle(self, event: Exchange | WatchEnded, extended: list[Extension], *, own: bool = False) -> None:
        self.counts["entries that nobody asked for"] += event.applied - self.accounted - own
        self.worlds = distinct([each.world for each in extended], WORLDS_MAX)
        self.counts["most possible states"] = max(self.counts["most possible states"], len(self.worlds))
        if event.leader != self._leader:
            self.counts["changes of leader"] += 1
        self.accounted, self._leader, self._now_ns = event.applied, event.leader, event.received_ns

    # --------------------------------------------------------------------------------------------------------- requests

    def _exchange(self, event: Exchange, asked: Asked) -> None:
        self.counts["requests"] += 1
        match asked:
            case Write(command):
                self._write(event, command)
            case Read():
                self._read(event, asked)
            case ReadTransaction():
                self._read_transaction(event, asked)
            case Renew():
                self._renew(event, asked)
            case _:
                assert_never(asked)

    def _write(self, event: Exchange, command: Command) -> None:
        name = type(command).__name__
        self.counts[f"command {name}"] += 1
        if isinstance(command, Transaction):
            self.counts.update(f"operation {type(each).__name__} {each.verb.value}" for each in command.operations)
        answer = event.answer
        if answer is None or is_unknown(answer):
            self._write_unknown(event, command)
            return
        if is_refused(answer):
            self.counts["not served"] += 1
            self._settle(event, self._grow(event, event.background))
            return
        command, result = result_of(command, answer.reply())
        own = Pending(event.number, command, event.sent_ns)
        refused, surely = self._by_lock_delay(event, own, result)
        expected: list[Result] = []

        def accept(extension: Extension) -> bool:
            assert extension.result is not None
            expected.append(extension.result)
            return as_shown(extension.result) == result

        appended: list[Extension] = []
        if not (surely or (refused and event.applied == self.accounted)):
            appended = self._grow(event, event.background, own, accept)
        if not (refused or appended):
            evidence = [f"  spec:     {text(as_shown(each))}" for each in expected[:4]]
            why = f"request {event.number}, {event.request} at {event.agent}, was not answered as the spec says"
            raise Difference(Property.RESULT, why, (*evidence, f"  answered: {text(result)}"))
        match result:
            case _ if not appended:
                self.counts["refused by a lock-delay"] += 1
            case Failed() | Outcome(errors=(_, *_)):
                self.counts["refused by the state machine"] += 1
            case False:
                self.counts["answered false"] += 1
            case _:
                self.counts["written"] += 1
        self._settle(event, [*refused, *appended], own=bool(appended))

    def _write_unknown(self, event: Exchange, command: Command) -> None:
        if event.answer is None and not event.sent:
            self.counts["not sent"] += 1
            self._settle(event, self._grow(event, event.background))
            return
        self.counts["of unknown outcome"] += 1
        if isinstance(command, CreateSession):
            raise Undecided("a session whose id nobody knows")
        pending = Pending(event.number, command, event.sent_ns)
        self.worlds = tuple(replace(world, pending=(*world.pending, pending)) for world in self.worlds)
        self._settle(event, self._grow(event, event.background))

    def _by_lock_delay(self, event: Exchange, own: Pending, result: Result) -> tuple[list[Extension], bool]:
        """The extensions in which the leader refused a lock because of its lock-delay, so that nothing was appended;
        and whether that must be so.

        Raises Difference: it must, and the answer says otherwise.
        """
        keys = locked_keys(own.command)
        delayed = [key for key in keys if any(self._may_be_delayed(world, key, event) for world in self.worlds)]
        surely = [key for key in delayed if all(self._must_be_delayed(world, key, event) for world in self.worlds)]
        if not delayed:
            return [], False
        refused = is_delay(own.command, result, delayed)
        if surely and not refused:
            why = f"request {event.number}, {event.request}: the lock-delay of {surely[0]!r} still lasts"
            raise Difference(Property.DELAY, why, (f"  answered: {text(result)}",))
        if refused and (surely or event.applied - self.accounted != 1):
            return self._grow(event, event.background), bool(surely)
        return [], False

    def _must_be_delayed(self, world: World, key: str, event: Exchange) -> bool:
        delay = world.delays.get(key)
        return delay is not None and event.received_ns < delay.ends_ns_min

    def _may_be_delayed(self, world: World, key: str, event: Exchange) -> bool:
        delay = world.delays.get(key)
        if delay is None:
            return False
        late = CHANGED_LEADER_NS if delay.leader != event.leader else 0
        return event.sent_ns <= delay.ends_ns_max + late

    def _read(self, event: Exchange, asked: Read) -> None:
        self.counts[f"read {type(asked.request).__name__}"] += 1
        self.counts[f"mode {asked.mode.value}"] += 1
        since = self._oldest(event.agent, asked.mode)
        extended = self._grow(event, event.background)
        self._settle(event, extended)
        if is_unserved(event.answer):
            self.counts["reads without an answer"] += 1
            return
        assert event.answer is not None
        answer = told(event.answer.reply(), asked.request, asked.as_list)
        broken = Property.STALE if asked.mode is Mode.STALE else Property.CURRENT
        self._answered(event.agent, asked, answer, since, broken, f"request {event.number}, {event.request}")
        if asked.index:
            waited_ms = (event.received_ns - event.sent_ns) // 1_000_000
            self._returned(asked, answer, waited_ms)

    def _oldest(self, agent: str, mode: Mode) -> Index:
        """The state at this index is the oldest that a read which begins now may see."""
        if mode is not Mode.STALE:
            return self.accounted
        of = (agent,) if agent in self.servers else self.servers
        return min(world.floors[server] for world in self.worlds for server in of)

    def _answered(self, agent: str, asked: Read, answer: Told, since: Index, broken: Property, who: str) -> None:
        """Keep the worlds in which the answer is that of a state since `since`, and what that says of the server."""
        self._judge_freshness(asked.mode, (answer.known_leader, answer.last_contact_ms, answer.effective), who)
        kept: list[World] = []
        rows_match = False
        for world in self.worlds:
            seen: Index | None = None
            for index, state in world.since(since):
                expected_index, rows = query(state, asked.request)
                if shown(asked.request, rows) == answer.rows:
                    rows_match = True
                    if expected_index == answer.index:
                        seen = index
                        break
            if seen is None:
                continue
            if asked.mode is Mode.STALE and agent in self.servers:
                floors = {**world.floors, agent: max(world.floors[agent], seen)}
                world = replace(world, floors=floors)
            kept.append(world)
        if kept:
            self.worlds = distinct(kept, WORLDS_MAX)
            return
        evidence = [
            f"  spec:     {index} {text(shown(asked.request, rows))}"
            for world in self.worlds[:2]
            for index, rows in [query(state, asked.request) for _, state in world.since(since)][-2:]
        ]
        found = Property.INDEX if rows_match and broken is Property.CURRENT else broken
        evidence.append(f"  answered: {answer.index} {text(answer.rows)}")
        raise Difference(found, f"{who} at {agent}, was not answered as the spec says", tuple(evidence))

    def _judge_freshness(self, mode: Mode, said: tuple[bool, int, str], who: str) -> None:
        known, contact_ms, effective = said
        if effective != EFFECTIVE[mode]:
            raise Difference(Property.FRESHNESS, f"{who}, was answered as {effective!r}, not {EFFECTIVE[mode]!r}")
        if mode is not Mode.STALE and not (known and contact_ms == 0):
            why = f"{who}, was answered by a leader that says: leader known {known}, heard {contact_ms} ms ago"
            raise Difference(Property.FRESHNESS, why)

    def _read_transaction(self, event: Exchange, asked: ReadTransaction) -> None:
        self.counts["read Transaction"] += 1
        self.counts[f"mode {asked.mode.value}"] += 1
        since = self._oldest(event.agent, asked.mode)
        self._settle(event, self._grow(event, event.background))
        if is_unserved(event.answer):
            self.counts["reads without an answer"] += 1
            return
        assert event.answer is not None
        reply = event.answer.reply()
        found, who = outcome(reply), f"request {event.number}, {event.request}"
        self._judge_freshness(asked.mode, freshness(reply), who)

        def answers(state: State) -> bool:
            return shown_outcome(transactions.run(state, asked.transaction, 0)[1]) == found

        broken = Property.STALE if asked.mode is Mode.STALE else Property.CURRENT
        self._keep(lambda world: any(answers(state) for _, state in world.since(since)), broken, event, found)

    def _renew(self, event: Exchange, asked: Renew) -> None:
        self.counts["renewals"] += 1
        since = self.accounted
        self._settle(event, self._grow(event, event.background))
        if is_unserved(event.answer):
            self.counts["reads without an answer"] += 1
            return
        assert event.answer is not None
        reply = event.answer.reply()
        missing = f"Session id '{asked.session_id}' not found"
        found = () if (reply.status, event.answer.body) == (404, missing) else sessions(reply.body)
        self.counts["renewals refused"] += not found
        request = GetSession(asked.session_id)
        self._keep(
            lambda world: any(query(state, request)[1] == found for _, state in world.since(since)),
            Property.CURRENT,
            event,
            found,
        )

    def _keep(self, holds: Callable[[World], bool], broken: Property, event: Exchange, found: object) -> None:
        kept = [world for world in self.worlds if holds(world)]
        if not kept:
            why = f"request {event.number}, {event.request} at {event.agent}, was not answered as the spec says"
            raise Difference(broken, why, (f"  answered: {text(found)}",))
        self.worlds = tuple(kept)

    # ------------------------------------------------------------------------------------------------ blocking queries

    def _none_is_due(self) -> None:
        for number in self.watches:
            if self.due(number):
                raise Difference(Property.WOKEN, f"nothing is said of request {number}, whose index was passed")

    def _watch(self, event: WatchBegan) -> None:
        asked = history.parsed(event.asked)
        if not isinstance(asked, Read) or not asked.index:
            raise history.BadHistory(f"request {event.number} is no blocking query")
        self.counts["requests"] += 1
        self.counts[f"read {type(asked.request).__name__}"] += 1
        self.counts[f"mode {asked.mode.value}"] += 1
        since = self._oldest(event.agent, asked.mode)
        index, rows = query(self.state, asked.request)
        # A server that is behind may have met an index that was not passed yet, and wait.
        passed = index > asked.index and asked.mode is not Mode.STALE
        self.watches[event.number] = Watch(event.agent, asked, event.sent_ns, since, rows, passed)

    def _watch_ended(self, event: WatchEnded) -> None:
        watch = self.watches.pop(event.number)
        self._settle(event, self._grow(event, event.background))
        if event.answer is None or is_unserved(event.answer):
            self.counts["reads without an answer"] += 1
            return
        answer = told(event.answer.reply(), watch.read.request, watch.read.as_list)
        who = f"request {event.number}, {history.shown(watch.read)}"
        self._answered(watch.agent, watch.read, answer, watch.since, Property.WAITED, who)
        self._returned(watch.read, answer, (event.received_ns - watch.sent_ns) // 1_000_000)

    def _returned(self, asked: Read, answer: Told, waited_ms: int) -> None:
        if answer.index > asked.index:
            self.counts["blocking, woken"] += 1
        elif waited_ms >= asked.wait_ms:
            self.counts["blocking, time over"] += 1
        else:
            self.counts["blocking, spurious"] += 1

    def _expected(self, watch: Watch) -> tuple[str, ...]:
        index, rows = query(self.state, watch.read.request)
        return (f"  given:    {watch.read.index}", f"  spec:     {index} {text(shown(watch.read.request, rows))}")

    # --------------------------------------------------------------------------------------------------------- servers

    def _caught_up(self, applied: Mapping[str, Index]) -> None:
        for server in self.servers:
            if applied.get(server, 0) < self.accounted:
                why = f"{server} is said to have caught up with {self.accounted}, and is at {applied.get(server, 0)}"
                raise history.BadHistory(why)
        if self.watches:
            return
        floors = dict.fromkeys(self.servers, self.accounted)
        self.worlds = distinct(
            [replace(world, states=(world.states[-1],), floors=floors) for world in self.worlds], WORLDS_MAX
        )
