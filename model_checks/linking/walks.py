"""Random runs of the whole readable spec: what exploration's bounds keep apart happens together in them.

Four servers, of which three vote at first, with every feature on: leases, pre-vote, transfer, changes of the
configuration, snapshots, crashes. Each step is drawn from those that are enabled; now and then one server is cut off
and loses what was sent to it, so that it needs a snapshot. A run is a function of its seed.

Must not: judge anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Final

from msgspec.structs import replace

from spec.raft.actions import ACTIONS
from spec.raft.bounds import Bounds
from spec.raft.messages import Message
from spec.raft.network import (
    ADVANCE_CLOCK,
    Protocol,
    Transition,
    World,
    dead,
    initial_world,
    internal_steps,
    receipts,
    sends,
    take,
    tick,
)
from spec.raft.types import Configuration, Role, ServerId

CONFIGURATIONS: Final = tuple(
    Configuration(tuple(voters.split()), tuple(others.split()))
    for voters, others in (
        ("s1 s2 s3", ""),
        ("s1 s2 s3", "s4"),
        ("s1 s2 s3 s4", ""),
        ("s2 s3 s4", ""),
        ("s2 s3", ""),
        ("s1 s2", ""),
        ("s1 s2", "s3"),
    )
)

BOUNDS: Final = Bounds(
    servers=4,
    genesis=3,
    max_term=8,
    max_log=10,
    max_issued=5,
    max_restarts=6,
    reads=tuple(f"r{number}" for number in range(1, 9)),
    lease_reads=tuple(f"l{number}" for number in range(1, 9)),
    configurations=CONFIGURATIONS,
    snapshots=True,
    pre_vote=True,
    max_time=150,
    election_timeout=6,
    lease=5,
    max_round=12,
    steps_down=True,
    transfers=True,
)

WEIGHTS: Final[Mapping[str, float]] = {
    "advance_commit_index": 30,
    "answer_read": 1,
    "apply": 6,
    "become_leader": 50,
    "change_configuration": 2,
    "client_request": 5,
    "compact": 3,
    "confirm_read": 8,
    "crash_restart": 0.03,
    "handle_pre_vote_request": 0.5,
    "lease_read": 3,
    "persist": 8,
    "read_request": 0.3,
    "restore_snapshot": 10,
    "step_down": 0.05,
    "timeout": 0.5,
    "transfer_leadership": 0.1,
    "update_term": 1,
}
"""How often a step is taken, compared with the others that are enabled; 1 where nothing is said."""

TICK: Final = 0.5
TICK_LED: Final = 0.1
"""Weights of the clock: it runs faster while there is no leader."""

RECENT: Final = 2.0
STALE: Final = 0.1
"""Weights of messages of the receiver's term or a later one, and of an older one."""

CUT: Final = 0.02
HEAL: Final = 0.008
"""How often a follower is cut off, and heard again, at a step."""

MESSAGES_MAX: Final = 300
INBOX_NEWEST: Final = 6
INBOX_OLDER: Final = 4
SENDS_SAMPLE: Final = 8


class Walk:
    """One random run. `steps` yields every distinct local step as it is taken, sends included."""

    def __init__(self, seed: int, protocol: Protocol = ACTIONS, bounds: Bounds = BOUNDS) -> None:
        self.random = Random(seed)
        self.protocol, self.bounds, self.c = protocol, bounds, bounds.constants()
        self.world: World = initial_world(self.c)
        self._cut: ServerId | None = None
        """Who receives nothing."""
        self._under_way: list[Message] = []
        """The messages of the world, in the order in which they were sent."""

    def steps(self, count: int) -> Iterator[Transition]:
        """Take `count` steps; fewer if nothing is enabled when one is drawn."""
        seen: set[Transition] = set()
        for _ in range(count):
            if self.random.random() < (HEAL if self._cut else CUT):
                self._cut = None if self._cut else self.random.choice(self._followers())
            for step in self._one():
                if step not in seen:
                    seen.add(step)
                    yield step

    def _followers(self) -> list[ServerId]:
        """Who does not lead."""
        return [i for i, s in zip(self.c.servers, self.world.servers, strict=True) if s.role is not Role.LEADER]

    def _one(self) -> list[Transition]:
        """Draw a server and take one of its steps; then it sends some of what it may send."""
        i = self.random.choice(self.c.servers)
        enabled = self._enabled(i)
        if not enabled:
            return []
        [step] = self.random.choices([step for step, _ in enabled], [weight for _, weight in enabled])
        after = take(self.c, self.bounds, self.world, step)
        if after is None:
            return []
        self.world = after
        if step.action == ADVANCE_CLOCK:
            return [step]
        possible = list(sends(self.protocol, self.c, i, step.after))
        sent = self.random.sample(possible, min(SENDS_SAMPLE, len(possible)))
        self._deliver([*step.outcome.sent, *(m for each in sent for m in each.outcome.sent)])
        return [step, *sent]

    def _enabled(self, i: ServerId) -> list[tuple[Transition, float]]:
        """The enabled steps of a server with their weights, for some of the messages that it may receive."""
        c, b, world = self.c, self.bounds, self.world
        s = world.servers[c.servers.index(i)]
        found = [(step, WEIGHTS.get(step.action, 1.0)) for step in internal_steps(self.protocol, c, b, i, s, world.now)]
        inbox = [m for m in self._under_way if m.dest == i]
        older = inbox[:-INBOX_NEWEST]
        for m in inbox[-INBOX_NEWEST:] + self.random.sample(older, min(INBOX_OLDER, len(older))):
            weight = RECENT if m.term >= s.current_term else STALE
            found += [
                (step, WEIGHTS.get(step.action, weight))
                for step in receipts(self.protocol, c, b, i, s, m, world.now)
                if not step.changes_nothing or step.outcome.sent
            ]
        if world.now < b.max_time:
            led = any(each.role is Role.LEADER for each in world.servers)
            found.append((tick(c, world.servers[0], world.now), TICK_LED if led else TICK))
        return found

    def _deliver(self, sent: list[Message]) -> None:
        """Messages under way, the newest last, but those for who is cut off, those that are dead, and the oldest."""
        world = self.world
        order = [m for m in dict.fromkeys([*self._under_way, *sent]) if m.dest != self._cut]
        self._under_way = [m for m in order if not dead(self.c, world.servers, m)][-MESSAGES_MAX:]
        self.world = replace(world, messages=frozenset(self._under_way))


def walked(seeds: range, steps: int, protocol: Protocol = ACTIONS) -> list[Transition]:
    """The distinct local steps of several random runs of `BOUNDS`."""
    return list(dict.fromkeys(step for seed in seeds for step in Walk(seed, protocol).steps(steps)))
