"""What may have happened so far: a *world* is one possible log since the servers last caught up, with its states.

There is one world while every outcome is known. A write without an answer is *pending*: in each world it may stand at
any entry that nobody else accounts for, now or later, once or never. Entries that no client asked for are *background*:
the new leader's first entry, and what the agents write of themselves, which is learned from reads and may concern their
own rows only. Pure values; nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import msgspec
from msgspec.structs import replace

from spec.catalog import sessions
from spec.catalog.commands import Command, Register
from spec.catalog.state import Index, State
from spec.catalog.transitions import Result, apply

SPAN_MAX = 8
"""Entries of unknown content at once, while writes are pending or one's own place among them is unknown."""


class Undecided(Exception):
    """There are too many possibilities; the text says of what."""


class Pending(msgspec.Struct, frozen=True):
    """A write whose outcome is unknown."""

    number: int
    command: Command
    sent_ns: int


class Delay(msgspec.Struct, frozen=True):
    """A lock-delay: it is over at some time in between. `leader` led when it began: only its clock is known."""

    begins_ns: int
    ends_ns_min: int
    ends_ns_max: int
    leader: str


class Moment(msgspec.Struct, frozen=True):
    """When, and under which leader, an entry was applied: at some time of the interval."""

    from_ns: int
    to_ns: int
    leader: str


class World(msgspec.Struct, frozen=True):
    """One possible log."""

    states: tuple[tuple[Index, State], ...]
    """The states that readers may still see, oldest first, each with the index of the entry that led to it."""
    pending: tuple[Pending, ...] = ()
    floors: Mapping[str, Index] = msgspec.field(default_factory=dict)
    """For each server, an entry that it has applied: a stale read there sees no older state."""
    delays: Mapping[str, Delay] = msgspec.field(default_factory=dict)

    @property
    def state(self) -> State:
        """The newest state."""
        return self.states[-1][1]

    def since(self, index: Index) -> tuple[tuple[Index, State], ...]:
        """The state at `index` and all newer ones."""
        at = max((place for place, (first, _) in enumerate(self.states) if first <= index), default=0)
        return self.states[at:]


class Extension(msgspec.Struct, frozen=True):
    """A world with more entries, and what one's own command was told in it (None: it is not among them)."""

    world: World
    result: Result | None


def extensions(
    world: World,
    span: range,
    own: Pending | None,
    learned: Mapping[Index, Register],
    moment: Moment,
) -> Iterator[Extension]:
    """The worlds in which the entries of `span` are `own`, the learned ones, perhaps pending ones, and others that
    change nothing.

    Raises Undecided.
    """
    if own is None and not world.pending:
        yield _extended(world, {}, None, learned, moment)
        return
    if len(span) > SPAN_MAX:
        raise Undecided(f"{len(span)} entries of the log at once")
    for background in _subsets(learned):
        free = [index for index in span if index not in background]
        for place in [None] if own is None else free:
            taken = {} if own is None or place is None else {place: own}
            for placed in _placements(world.pending, [index for index in free if index != place]):
                yield _extended(world, taken | placed, place, background, moment)


def _subsets(learned: Mapping[Index, Register]) -> Iterator[dict[Index, Register]]:
    """What looks like an agent's own registration may be a client's: each is learned, or is not."""
    for count in range(len(learned) + 1):
        for chosen in combinations(sorted(learned), count):
            yield {index: learned[index] for index in chosen}


def _placements(pending: tuple[Pending, ...], free: list[Index]) -> Iterator[dict[Index, Pending]]:
    """Each pending write stands at one free entry, or at none."""
    if not pending:
        yield {}
        return
    first, others = pending[0], pending[1:]
    yield from _placements(others, free)
    for index in free:
        for placed in _placements(others, [other for other in free if other != index]):
            yield {index: first, **placed}


def _extended(
    world: World, placed: Mapping[Index, Pending], own: Index | None, learned: Mapping[Index, Register], moment: Moment
) -> Extension:
    states, delays, result = list(world.states), dict(world.delays), None
    state = world.state
    for index in sorted([*placed, *learned]):
        write = placed.get(index)
        command: Command = learned[index] if write is None else write.command
        before, (state, told) = state, apply(state, command, index)
        states.append((index, state))
        begins = moment.from_ns if write is None else write.sent_ns
        for key, delay_ns in sessions.lock_delays(before, state).items():
            delays[key] = Delay(begins, begins + delay_ns, moment.to_ns + delay_ns, moment.leader)
        if index == own:
            result = told
    gone = {write.number for write in placed.values()}
    pending = tuple(write for write in world.pending if write.number not in gone)
    return Extension(replace(world, states=tuple(states), pending=pending, delays=delays), result)


def distinct(worlds: list[World], most: int) -> tuple[World, ...]:
    """Each world once. Raises Undecided: there are more than `most`."""
    found: list[World] = []
    for world in worlds:
        if not any(_same(world, other) for other in found):
            found.append(world)
    if len(found) > most:
        raise Undecided(f"{len(found)} possible states")
    return tuple(found)


def _same(one: World, other: World) -> bool:
    if (one.pending, one.floors, one.delays) != (other.pending, other.floors, other.delays):
        return False
    if len(one.states) != len(other.states):
        return False
    return all(a is b or a == b for a, b in zip(reversed(one.states), reversed(other.states), strict=True))
