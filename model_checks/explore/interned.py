"""Local steps, computed once: server states, messages and inboxes become small integers.

A *configuration* of a server (the word of automata theory, not of Raft) is its state with the messages that wait for
it (its inbox) and what its clock shows. A global state is then one number: a configuration per server and the history,
each in a field of `FIELD` bits. What a server can do depends on its configuration only, and what a step sends joins
other inboxes; so a step is an addition to the number, looked up in tables that are filled from the spec when they are
first needed. Filling them eagerly would call the spec on impossible pairs. Time passes as a step of the first server
that delivers `TICK` to the others.

It must not decide anything that the spec decides: every entry comes from `spec.raft.network`. Sends are taken at once
and dead messages forgotten, as `network.settled` does; tests compare the counts with those of `plain`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from model_checks.explore.judge import Judge
from spec.raft.bounds import Bounds
from spec.raft.messages import Message
from spec.raft.network import History, Protocol, Transition, World, internal_steps, receipts, remember, sends, tick
from spec.raft.types import Server, Time

FIELD = 24
"""Bits for one configuration or history in a global state."""
MASK = (1 << FIELD) - 1
TICK = -1
"""The letter that advances its receiver's clock."""
SENDING = -1
"""In place of the time, for steps that depend on the server's state alone."""

T = TypeVar("T", bound=Hashable)


class Interner(Generic[T]):
    """Values numbered in the order in which they were first seen."""

    def __init__(self) -> None:
        self.numbers: dict[T, int] = {}
        self.values: list[T] = []

    def number(self, value: T) -> int:
        """The number of `value`. Raises OverflowError if a field cannot hold it."""
        found = self.numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            if found > MASK:
                raise OverflowError(f"more than {MASK:,} values in one field of a global state: choose smaller bounds")
            self.values.append(value)
        return found


class Move(NamedTuple):
    """A local step as arithmetic on global states."""

    delta: int
    """Added to the global state: the server's new configuration."""
    sent: tuple[tuple[int, int], ...]
    """(position of the receiver, number of the set of messages) for what the new state sends and the old did not."""
    recorded: int
    """Number of the step if it touches the history or breaks a property by itself; -1 otherwise."""
    looks_new: bool
    """Whether what other servers and the history are compared with has changed."""


class Configuration(NamedTuple):
    """A server state (by number), its inbox (a bit per message), and what its clock shows."""

    server: int
    inbox: int
    now: Time


class Effect(NamedTuple):
    """A local step that changes its server: what of a move does not depend on the inbox."""

    step: Transition
    after: int
    sent: tuple[tuple[int, int], ...]
    recorded: int


class Outbox(NamedTuple):
    """What a server may send in one state."""

    letters: tuple[int, ...]
    """Per receiver, as inbox bits."""
    broken: str | None
    """The property that one of these messages breaks."""


class LocalState:
    """What is known of one server state at one position and time; filled as inboxes ask for it."""

    __slots__ = ("asked", "internal", "received", "useful")

    def __init__(self) -> None:
        self.internal: list[Effect] | None = None
        self.asked = 0
        """Messages whose effect on this state is known, as inbox bits; `useful` are those that have one."""
        self.useful = 0
        self.received: dict[int, list[Effect]] = {}


class Tables:
    """The lazily filled tables of one exploration."""

    def __init__(self, protocol: Protocol, bounds: Bounds, judge: Judge) -> None:
        self.protocol, self.bounds, self.judge, self.c = protocol, bounds, judge, judge.c
        self.width = len(self.c.servers)
        self.position = {name: position for position, name in enumerate(self.c.servers)}
        self.servers: Interner[Server] = Interner()
        self.messages: Interner[Message] = Interner()
        self.histories: Interner[History] = Interner()
        self.letters: Interner[int] = Interner()
        """Sets of messages sent together to one receiver, as inbox bits."""
        self.configurations: list[Interner[Configuration]] = [Interner() for _ in self.c.servers]
        self.moves: list[dict[int, list[Move]]] = [{} for _ in self.c.servers]
        self.move_steps: list[dict[int, list[Transition]]] = [{} for _ in self.c.servers]
        self.deliveries: list[dict[int, int]] = [{} for _ in self.c.servers]
        """Per receiver: (configuration, letter) in one key -> what the delivery adds to the global state."""
        self.views: list[list[int]] = [[] for _ in self.c.servers]
        """Per position and configuration: the number of its view."""
        self.view_servers: list[Server] = []
        """Per view, a server that has it."""
        self._view_numbers: dict[tuple[object, ...], int] = {}
        self.recorded: list[Transition] = []
        self.broken: dict[int, str] = {}
        """Recorded step -> the property that it breaks by itself."""
        self.transitions: list[tuple[Transition, tuple[int, int, Time]]] = []
        """Every local step computed, with its server's position, the number of the state before it, and the time."""
        self._by_term: list[dict[int, int]] = [{} for _ in self.c.servers]
        self._outboxes: list[dict[int, Outbox]] = [{} for _ in self.c.servers]
        self._local_states: list[dict[tuple[int, Time], LocalState]] = [{} for _ in self.c.servers]

    # ------------------------------------------------------------------------------------------ numbers and worlds

    def pack(self, world: World) -> int:
        """The number of `world`, with all that its servers may send sent."""
        sent = [0] * self.width
        for m in sorted(world.messages, key=repr):
            sent[self.position[m.dest]] |= 1 << self.message(m)
        numbers = [self.servers.number(s) for s in world.servers]
        for position, number in enumerate(numbers):
            for to, bits in enumerate(self.outbox(position, number).letters):
                sent[to] |= bits
        state = self.histories.number(world.history) << FIELD * self.width
        for position, number in enumerate(numbers):
            alive = self.alive(position, number, sent[position])
            here = self.configuration(position, Configuration(number, alive, world.now))
            state |= here << FIELD * position
        return state

    def unpack(self, state: int) -> World:
        """The world that `state` numbers."""
        servers: list[Server] = []
        messages: set[Message] = set()
        now = 0
        for position in range(self.width):
            server, inbox, now = self.configurations[position].values[state >> FIELD * position & MASK]
            servers.append(self.servers.values[server])
            messages.update(self.messages.values[bit] for bit in bits_of(inbox))
        return World(tuple(servers), frozenset(messages), self.histories.values[state >> FIELD * self.width], now)

    def message(self, m: Message) -> int:
        """The bit of `m` in its receiver's inbox."""
        known = len(self.messages.values)
        bit = self.messages.number(m)
        if bit == known:
            by_term = self._by_term[self.position[m.dest]]
            by_term[m.term] = by_term.get(m.term, 0) | 1 << bit
        return bit

    def configuration(self, position: int, configuration: Configuration) -> int:
        """The number of a configuration; a new one gets its view."""
        interner = self.configurations[position]
        number = interner.number(configuration)
        if number == len(self.views[position]):
            self.views[position].append(self.view(self.servers.values[configuration.server]))
        return number

    def view(self, s: Server) -> int:
        """The number of what `PAIR_PROPERTIES`, `HISTORY_PROPERTIES` and `SOMETIMES_PAIR` read of a server."""
        key = (s.role, s.current_term, s.log, s.durable.log, s.commit_index, s.durable.snapshot)
        number = self._view_numbers.setdefault(key, len(self.view_servers))
        if number == len(self.view_servers):
            self.view_servers.append(s)
        return number

    def alive(self, position: int, server: int, inbox: int) -> int:
        """`inbox` without the messages below the durable term: `network.dead`."""
        term = self.servers.values[server].durable.term
        for older, bits in self._by_term[position].items():
            if older < term:
                inbox &= ~bits
        return inbox

    # ------------------------------------------------------------------------------------------------------- steps

    def outbox(self, position: int, server: int) -> Outbox:
        """What the server at `position` may send in state `server`."""
        known = self._outboxes[position].get(server)
        if known is None:
            sent, s = [0] * self.width, self.servers.values[server]
            broken = None
            for step in sends(self.protocol, self.c, self.c.servers[position], s):
                self.transitions.append((step, (position, server, SENDING)))
                broken = broken or self.judge.sent(s, step.outcome.sent)
                for m in step.outcome.sent:
                    sent[self.position[m.dest]] |= 1 << self.message(m)
            known = self._outboxes[position][server] = Outbox(tuple(sent), broken)
        return known

    def effects(self, position: int, configuration: Configuration) -> Iterator[Effect]:
        """Every local step from `configuration` that has an effect."""
        server, inbox, now = configuration
        i, s = self.c.servers[position], self.servers.values[server]
        local = self._local_states[position].get((server, now))
        if local is None:
            local = self._local_states[position][server, now] = LocalState()
        if local.internal is None:
            found = internal_steps(self.protocol, self.c, self.bounds, i, s, now)
            local.internal = self.met(position, server, now, found)
        yield from local.internal
        for bit in bits_of(inbox & ~local.asked):
            found = receipts(self.protocol, self.c, self.bounds, i, s, self.messages.values[bit], now)
            received = self.met(position, server, now, found)
            local.asked |= 1 << bit
            if received:
                local.useful |= 1 << bit
                local.received[bit] = received
        for bit in bits_of(inbox & local.useful):
            yield from local.received[bit]

    def met(self, position: int, server: int, now: Time, steps: Iterator[Transition]) -> list[Effect]:
        """Note every step; keep those with an effect."""
        effects, before = [], self.outbox(position, server).letters
        for step in steps:
            self.transitions.append((step, (position, server, now)))
            if step.changes_nothing and not step.outcome.sent:
                continue
            after = self.servers.number(step.after)
            box = self.outbox(position, after)
            fresh = [bits & ~old for bits, old in zip(box.letters, before, strict=True)]
            for m in step.outcome.sent:
                fresh[self.position[m.dest]] |= 1 << self.message(m)
            sent = tuple((to, self.letters.number(bits)) for to, bits in enumerate(fresh) if bits)
            broken = self.judge.sent(step.before, step.outcome.sent)
            effects.append(Effect(step, after, sent, self.record(step, box.broken or broken)))
        return effects

    def record(self, step: Transition, broken_by_sending: str | None) -> int:
        """The number of a step that the search must look at more closely; -1 if it need not."""
        broken = self.judge.step(step) or broken_by_sending
        if broken is None and not step.outcome.facts and step.action != "crash_restart":
            return -1
        number = len(self.recorded)
        self.recorded.append(step)
        if broken is not None:
            self.broken[number] = broken
        return number

    def fill(self, position: int, number: int) -> list[Move]:
        """The moves of a configuration, computed from the spec and remembered."""
        configuration = self.configurations[position].values[number]
        moves, steps, view = [], [], self.views[position][number]
        for step, after, sent, recorded in self.effects(position, configuration):
            inbox = self.alive(position, after, configuration.inbox)
            target = self.configuration(position, Configuration(after, inbox, configuration.now))
            looks_new = self.views[position][target] != view
            moves.append(Move((target - number) << FIELD * position, sent, recorded, looks_new))
            steps.append(step)
        if position == 0 and configuration.now < self.bounds.max_time:
            moves.append(self.tick(number))
            steps.append(tick(self.c, self.servers.values[configuration.server], configuration.now))
        self.moves[position][number] = moves
        self.move_steps[position][number] = steps
        return moves

    def tick(self, number: int) -> Move:
        """Time passes: the first server's configuration `number` moves on, and all others with it."""
        letter = self.letters.number(TICK)
        later = self.configuration(0, self.later(self.configurations[0].values[number]))
        return Move(later - number, tuple((to, letter) for to in range(1, self.width)), recorded=-1, looks_new=False)

    def later(self, configuration: Configuration) -> Configuration:
        """`configuration` when the clock has advanced."""
        return configuration._replace(now=configuration.now + 1)

    def deliver(self, position: int, number: int, letter: int) -> int:
        """What it adds to a global state when the messages of `letter` join the inbox of configuration `number`."""
        configuration, bits = self.configurations[position].values[number], self.letters.values[letter]
        if bits == TICK:
            changed = self.later(configuration)
        else:
            joined = configuration.inbox | self.alive(position, configuration.server, bits)
            changed = configuration._replace(inbox=joined)
        added = (self.configuration(position, changed) - number) << FIELD * position
        self.deliveries[position][number << FIELD | letter] = added
        return added

    def after_record(self, history: int, number: int) -> tuple[str | None, int | None]:
        """What a recorded step breaks, and the history after it: None if it leaves the bounds, then nothing breaks."""
        step, before = self.recorded[number], self.histories.values[history]
        after = remember(before, step, self.bounds)
        if after is None:
            return None, None
        broken = self.broken.get(number) or self.judge.facts(before, step)
        return broken, self.histories.number(after)


def bits_of(mask: int) -> Iterator[int]:
    """The positions of the ones in `mask`, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
