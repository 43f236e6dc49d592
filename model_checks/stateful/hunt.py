"""Schedules drawn from a seed, thousands a minute; a failing one is shortened by leaving lines out.

Each schedule draws its own weights first ("swarm testing", Groce et al. 2012): a schedule in which disks are slow and
few messages are lost finds other things than one in which everything breaks at once. Hypothesis (`machine`) is
thorough where this is fast. Shortening: Zeller and Hildebrandt 2002 (ddmin), greedily.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from model_checks.stateful.script import run_script
from model_checks.stateful.system import Setup
from model_checks.stateful.violations import Property, Violation
from model_checks.stateful.world import World

HUNT_STEPS = 400
"""Steps of a schedule before healing: some elections, crashes and dozens of writes."""
SHRINK_RUNS_MAX = 2000


class Found(msgspec.Struct, frozen=True):
    """A schedule that breaks a property."""

    seed: int
    broken: Property
    text: str
    transcript: tuple[str, ...]


class Hunt:
    """One schedule: weights and choices from the seed."""

    def __init__(self, seed: int, *, conformance: bool = True, traced: bool = False) -> None:
        self.seed = seed
        self.random = Random(f"hunt/{seed}")
        setup = Setup(
            servers=self.random.choice((1, 2, 3, 3, 5)),
            spare=self.random.choice((0, 1, 2)),
            seed=seed,
            batch=self.random.choice((1, 2, 512)),
            trailing=self.random.choice((0, 2, 8)),
            pre_vote=self.random.random() < 0.7,
        )
        self.world = World(setup, conformance=conformance, traced=traced)
        self._number = 0
        self._acts: list[Callable[[str], None]] = [
            self._deliver, self._tick, self._timeout, self._propose, self._read, self._flush, self._append, self._sync,
            self._settle, self._crash_or_restart, self._lose, self._cut, self._heal, self._hold_or_release, self._link,
            self._pass_time, self._wait, self._lease_read, self._change, self._transfer, self._ended, self._snapshot,
            self._leave,
        ]  # fmt: skip
        usual = [40, 5, 0.7, 6, 3, 12, 3, 3, 2, 1.5, 2, 0.7, 0.7, 1, 1, 3, 1.5, 4, 6, 0.4, 1, 2, 0.3]
        self._weights = [weight * self.random.choice((0, 0.5, 1, 1, 2)) for weight in usual]
        self._weights[0] = max(self._weights[0], 10)
        self._weights[2] = max(self._weights[2], 0.3)
        self._keep = self.random.choice((0.0, 0.1, 0.5))
        self._disks = Random(f"disks/{seed}")
        self._spares, self._power = self._disks.choice((0.02, 0.1)), self._disks.choice((0, 0, 0.01, 0.05))
        """How often, in a step, the other thread of a server goes on, and some power is about to fail."""

    def run(self, steps: int) -> World:
        """Take `steps` steps, heal, and check that all is well in the end. Raises Violation."""
        for _ in range(steps):
            name = self.random.choice(self.world.names)
            (act,) = self.random.choices(self._acts, self._weights)
            if self.world.is_up(name) or act == self._crash_or_restart:
                act(name)
            self._disturb_disks()
        self.world.heal_and_check()
        return self.world

    def _disturb_disks(self) -> None:
        name = self._disks.choice(self.world.names)
        if self._disks.random() < self._spares and self.world.is_up(name):
            self.world.spare(name, self._disks.choice((1, 2, 3, 6)))
        if self._disks.random() < self._power:
            self.world.fail_power(name, self._disks.randrange(8), self._disks.randrange(4), self._disks.randrange(60))
            if self.world.is_up(name):
                self.world.flush(name)

    def _deliver(self, name: str) -> None:
        if self.world.in_flight:
            # Mostly in order, as connections deliver.
            at = 0 if self.random.random() < 0.5 else self.random.randrange(len(self.world.in_flight))
            self.world.deliver(self.world.in_flight[at], keep=self.random.random() < self._keep)

    def _lose(self, name: str) -> None:
        if self.world.in_flight:
            self.world.lose(self.random.choice(self.world.in_flight))

    def _tick(self, name: str) -> None:
        self.world.tick(name, self.random.choice((1, 5, 10)))

    def _timeout(self, name: str) -> None:
        self.world.timeout(name)

    def _propose(self, name: str) -> None:
        leaders = self.world.leaders()
        self._number += 1
        texts = [f"v{self._number}.{part}" for part in range(self.random.choice((1, 1, 3)))]
        self.world.propose(self.random.choice(leaders or [name]), texts)

    def _read(self, name: str) -> None:
        leaders = self.world.leaders()
        self._number += 1
        self.world.read(self.random.choice(leaders or [name]), f"r{self._number}")

    def _pass_time(self, name: str) -> None:
        self.world.pass_time(self.random.choice((1, 5, 20)))

    def _wait(self, name: str) -> None:
        self.world.wait(self.random.choice((20, 100, 250, 300)))

    def _lease_read(self, name: str) -> None:
        leaders = self.world.leaders()
        self._number += 1
        self.world.lease_read(self.random.choice(leaders or [name]), f"r{self._number}")

    def _change(self, name: str) -> None:
        leaders = self.world.leaders()
        what = self.random.choice(("add", "add", "promote", "promote", "demote", "remove"))
        self.world.change(what, self.random.choice(leaders or [name]), name)

    def _transfer(self, name: str) -> None:
        leaders = self.world.leaders()
        if self.random.random() < 0.2:
            self.world.step_down(name)
        else:
            to = self.random.choice((None, self.random.choice(self.world.names)))
            self.world.transfer(self.random.choice(leaders or [name]), to)

    def _ended(self, name: str) -> None:
        if len(self.world.names) > 1:
            self.world.ended(name, self._other(name))

    def _snapshot(self, name: str) -> None:
        """A leader's, more often than not; and a link that is made anew just then, so that it may be sent."""
        leaders = self.world.leaders()
        if leaders and self.random.random() < 0.5:
            name = self.random.choice(leaders)
        self.world.snapshot(name)
        if self.random.random() < 0.5:
            self.world.flush(name)
            if len(self.world.names) > 1 and self.world.is_up(name):
                self.world.connected(name, self._other(name))

    def _leave(self, name: str) -> None:
        """A leader gives its vote away, and leads no more before that is committed, perhaps."""
        for leader in self.world.leaders()[:1]:
            for other in self.world.names:
                if other != leader and self.random.random() < 0.5:
                    self.world.cut(leader, other)
            self.world.change(self.random.choice(("demote", "remove")), leader, leader)
            self.world.flush(leader)
            if self.random.random() < 0.5 and self.world.is_up(leader):
                self.world.step_down(leader)

    def _other(self, name: str) -> str:
        return self.random.choice([other for other in self.world.names if other != name])

    def _flush(self, name: str) -> None:
        self.world.flush(name)

    def _append(self, name: str) -> None:
        self.world.append(name, 1)

    def _sync(self, name: str) -> None:
        self.world.sync(name)

    def _settle(self, name: str) -> None:
        self.world.settle()

    def _crash_or_restart(self, name: str) -> None:
        if not self.world.is_up(name):
            self.world.restart(name)
        elif self.random.random() < 0.3:
            self.world.scatter(name, self.random.randrange(1 << 16))
        else:
            self.world.crash(name, self.random.randrange(4), self.random.randrange(60))

    def _cut(self, name: str) -> None:
        side = {other for other in self.world.names if self.random.random() < 0.5}
        both = self.random.random() < 0.7
        for source in self.world.names:
            for to in self.world.names:
                if source in side and to not in side:
                    self.world.cut(source, to)
                    if both:
                        self.world.cut(to, source)

    def _heal(self, name: str) -> None:
        self.world.heal()

    def _hold_or_release(self, name: str) -> None:
        if self.random.random() < 0.5:
            self.world.hold(name)
        else:
            self.world.release(name)

    def _link(self, name: str) -> None:
        if len(self.world.names) == 1:
            return
        peer = self._other(name)
        if self.random.random() < 0.5:
            self.world.connected(name, peer)
        else:
            self.world.disconnected(name, peer)


def try_seed(seed: int, steps: int, *, conformance: bool = True) -> World | Found:
    """Run the schedule of `seed`: the world if all is well, else what broke. An exception of a core is a violation
    too.
    """
    hunt = Hunt(seed, conformance=conformance)
    try:
        return hunt.run(steps)
    except Violation as violation:
        return Found(seed, violation.property, violation.text, tuple(hunt.world.transcript))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return Found(seed, Property.NO_EXCEPTION, text, tuple(hunt.world.transcript))


def shrink(found: Found, *, conformance: bool = True, runs_max: int = SHRINK_RUNS_MAX) -> Found:
    """A shorter schedule that breaks the same property: leave out ever smaller pieces as long as it does."""
    runs, piece = 0, len(found.transcript) // 2
    while piece and runs < runs_max:
        at, shorter_found = 1, False
        while at < len(found.transcript) and runs < runs_max:
            runs += 1
            shorter = _breaks_still(found, (*found.transcript[:at], *found.transcript[at + piece :]), conformance)
            if shorter is None:
                at += piece
            else:
                found, shorter_found = shorter, True
        if not shorter_found or piece > 1:
            piece //= 2
    return found


def _breaks_still(found: Found, lines: tuple[str, ...], conformance: bool) -> Found | None:
    """`lines` as a schedule that breaks the property of `found`, or None."""
    world: list[World] = []
    try:
        run_script(lines, conformance=conformance, skip_impossible=True, started=world.append)
    except Violation as violation:
        if violation.property is found.broken:
            return Found(found.seed, violation.property, violation.text, tuple(world[0].transcript))
    except Exception as error:
        if found.broken is Property.NO_EXCEPTION and type(error).__name__ == found.text.partition(":")[0]:
            return Found(found.seed, found.broken, f"{type(error).__name__}: {error}", tuple(world[0].transcript))
    return None
