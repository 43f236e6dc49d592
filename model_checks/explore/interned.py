"""Local steps, computed once: server states, messages and inboxes become small integers.

A *configuration* of a server is its state with the messages that wait for it (its inbox). A global state is then one
number: a configuration per server and the history, each in a field of `FIELD` bits. What a server can do depends on
its configuration only, and what a step sends joins other inboxes; so a step is an addition to the number, looked up in
tables that are filled from the spec when they are first needed. Filling them eagerly would call the spec on impossible
pairs.

It must not decide anything that the spec decides: every entry comes from `spec.raft.network`. Sends are taken at once
and dead messages forgotten, as `network.settled` does; tests compare the counts with those of `plain`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from model_checks.explore.judge import Judge
from spec.raft.bounds import Bounds
from spec.raft.messages import Message
from spec.raft.network import History, Protocol, Transition, World, internal_steps, receipts, remember, sends
from spec.raft.types import Server

FIELD = 24
"""Bits for one configuration or history in a global state."""
MASK = (1 << FIELD) - 1

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
    """A server state (by number) and its inbox (a bit per message)."""

    server: int
    inbox: int


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
        self.transitions: dict[Transition, tuple[int, int]] = {}
        """Every local step computed, with its server's position and the number of the state before it."""
        self._by_term: list[dict[int, int]] = [{} for _ in self.c.servers]
        self._effects: dict[tuple[int, int], list[tuple[Transition, int]]] = {}
        self._receipt_effects: dict[tuple[int, int], list[tuple[Transition, int]]] = {}
        self._outboxes: dict[tuple[int, int], tuple[int, ...]] = {}
        self._record_numbers: dict[Transition, int] = {}

    # ------------------------------------------------------------------------------------------ numbers and worlds

    def pack(self, world: World) -> int:
        """The number of `world`, with all that its servers may send sent."""
        sent = [0] * self.width
        for m in sorted(world.messages, key=repr):
            sent[self.position[m.dest]] |= 1 << self.message(m)
        numbers = [self.servers.number(s) for s in world.servers]
        for position, number in enumerate(numbers):
            for to, bits in enumerate(self.outbox(position, number)):
                sent[to] |= bits
        state = self.histories.number(world.history) << FIELD * self.width
        for position, number in enumerate(numbers):
            alive = self.alive(position, number, sent[position])
            state |= self.configuration(position, Configuration(number, alive)) << FIELD * position
        return state

    def unpack(self, state: int) -> World:
        """The world that `state` numbers."""
        servers: list[Server] = []
        messages: set[Message] = set()
        for position in range(self.width):
            server, inbox = self.configurations[position].values[state >> FIELD * position & MASK]
            servers.append(self.servers.values[server])
            messages.update(self.messages.values[bit] for bit in bits_of(inbox))
        return World(tuple(servers), frozenset(messages), self.histories.values[state >> FIELD * self.width])

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
        key = (s.role, s.current_term, s.log, s.durable.log, s.commit_index)
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

    def outbox(self, position: int, server: int) -> tuple[int, ...]:
        """Per receiver, the bits of all that the server may send in this state."""
        key = (position, server)
        known = self._outboxes.get(key)
        if known is None:
            sent = [0] * self.width
            for step in sends(self.protocol, self.c, self.c.servers[position], self.servers.values[server]):
                self.transitions[step] = key
                for m in step.outcome.sent:
                    sent[self.position[m.dest]] |= 1 << self.message(m)
            known = self._outboxes[key] = tuple(sent)
        return known

    def effects(self, position: int, configuration: Configuration) -> Iterator[tuple[Transition, int]]:
        """Every local step from `configuration` that has an effect, with the number of the state after it."""
        server, inbox = configuration
        i, s = self.c.servers[position], self.servers.values[server]
        internal = self._effects.get((position, server))
        if internal is None:
            found = internal_steps(self.protocol, self.c, self.bounds, i, s)
            internal = self._effects[position, server] = self.met(position, server, found)
        yield from internal
        for bit in bits_of(inbox):
            received = self._receipt_effects.get((bit, server))
            if received is None:
                found = receipts(self.protocol, self.c, self.bounds, i, s, self.messages.values[bit])
                received = self._receipt_effects[bit, server] = self.met(position, server, found)
            yield from received

    def met(self, position: int, server: int, steps: Iterator[Transition]) -> list[tuple[Transition, int]]:
        """Note every step; keep those with an effect."""
        effects = []
        for step in steps:
            self.transitions[step] = (position, server)
            if not step.changes_nothing:
                effects.append((step, self.servers.number(step.after)))
        return effects

    def fill(self, position: int, number: int) -> list[Move]:
        """The moves of a configuration, computed from the spec and remembered."""
        configuration = self.configurations[position].values[number]
        before = self.outbox(position, configuration.server)
        moves, steps = [], []
        for step, after in self.effects(position, configuration):
            outbox = self.outbox(position, after)
            fresh = ((to, bits & ~old) for to, (bits, old) in enumerate(zip(outbox, before, strict=True)))
            sent = tuple((to, self.letters.number(bits)) for to, bits in fresh if bits)
            inbox = self.alive(position, after, configuration.inbox)
            target = self.configuration(position, Configuration(after, inbox))
            looks_new = self.views[position][target] != self.views[position][number]
            moves.append(Move((target - number) << FIELD * position, sent, self.record(step), looks_new))
            steps.append(step)
        self.moves[position][number] = moves
        self.move_steps[position][number] = steps
        return moves

    def record(self, step: Transition) -> int:
        """The number of a step that the search must look at more closely; -1 if it need not."""
        known = self._record_numbers.get(step)
        if known is not None:
            return known
        sendable = [m for each in sends(self.protocol, self.c, step.server, step.after) for m in each.outcome.sent]
        broken = self.judge.step(step) or self.judge.sent(step.after, sendable)
        number = -1
        if broken is not None or step.outcome.facts or step.action == "crash_restart":
            number = len(self.recorded)
            self.recorded.append(step)
            if broken is not None:
                self.broken[number] = broken
        self._record_numbers[step] = number
        return number

    def deliver(self, position: int, number: int, letter: int) -> int:
        """What it adds to a global state when the messages of `letter` join the inbox of configuration `number`."""
        server, inbox = self.configurations[position].values[number]
        joined = inbox | self.alive(position, server, self.letters.values[letter])
        target = self.configuration(position, Configuration(server, joined))
        added = (target - number) << FIELD * position
        self.deliveries[position][number << FIELD | letter] = added
        return added

    def after_record(self, history: int, number: int) -> tuple[str | None, int | None]:
        """What a recorded step breaks, and the history after it (None if it leaves the bounds, which hides any
        breach).
        """
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
