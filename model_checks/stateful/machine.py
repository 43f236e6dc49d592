"""Hypothesis as the scheduler: a rule for each thing that can happen to a cluster, invariants after each, healing at
the end.

The machine knows its cluster only as a `SystemUnderTest`; the properties are checked behind that border. A failing
run is in `CoreMachine.failed` as a schedule: `hunt.shrink` shortens it, faster than Hypothesis would, and `script` runs
it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from model_checks.stateful.system import Envelope, Setup, SystemUnderTest
from model_checks.stateful.world import World


def _profile(examples: int, steps: int, *, derandomize: bool = False) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        phases=(Phase.generate,),
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


PROFILES: dict[str, Callable[[], settings]] = {
    "dev": lambda: _profile(60, 60),
    "ci": lambda: _profile(100, 60, derandomize=True),
    "nightly": lambda: _profile(5000, 150),
}
"""How much: while working; in CI, the same each time; over night, new each time."""

PICK = st.integers(0, 1 << 12)
"""Picks one of what there is now, modulo its number: shrinks towards the first."""


class CoreMachine(RuleBasedStateMachine):
    """Three to five servers under any schedule."""

    conformance: ClassVar[bool] = True
    totals: ClassVar[Counter[str]] = Counter()
    """What all runs so far did."""
    failed: ClassVar[tuple[str, ...]] = ()
    """The schedule of the latest run that broke a property."""

    world: SystemUnderTest

    @initialize(
        setup=st.builds(
            Setup,
            servers=st.sampled_from((3, 4, 5)),
            spare=st.integers(0, 2),
            seed=st.integers(0, 1 << 16),
            batch=st.sampled_from((1, 2, 512)),
            trailing=st.sampled_from((0, 2, 8)),
            pre_vote=st.booleans(),
        ),
        led=st.booleans(),
    )
    def form(self, setup: Setup, led: bool) -> None:
        """A cluster, its logs empty; `led`: with a leader, without which little happens."""
        self.world = World(setup, conformance=self.conformance)
        self._number = 0
        if led:
            self.elect(0)

    def check_invariants(self, *arguments: Any) -> None:
        """The world checks after each of its steps; Hypothesis has nothing to add."""

    def _name(self, pick: int) -> str:
        return self.world.names[pick % len(self.world.names)]

    def _asked(self, pick: int) -> str:
        leaders = self.world.leaders()
        return leaders[pick % len(leaders)] if leaders else self._name(pick)

    def _do(self, name: str, act: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Let something happen at a server, if it is up."""
        if self.world.is_up(name):
            self._judged(act, name, *arguments, **options)

    def _judged(self, act: Callable[..., None], *arguments: Any, **options: Any) -> None:
        try:
            act(*arguments, **options)
        except Exception:
            type(self).failed = tuple(self.world.transcript)
            raise

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _envelope(self, pick: int) -> Envelope:
        return self.world.in_flight[pick % len(self.world.in_flight)]

    @precondition(lambda self: self.world.in_flight)
    @rule(pick=PICK, keep=st.booleans())
    def deliver(self, pick: int, keep: bool) -> None:
        """Any message arrives, perhaps not for the last time."""
        self._judged(self.world.deliver, self._envelope(pick), keep=keep)

    @precondition(lambda self: self.world.in_flight)
    @rule(count=st.integers(1, 20))
    def deliver_in_order(self, count: int) -> None:
        """Some messages arrive in the order in which they were sent."""
        for envelope in self.world.in_flight[:count]:
            if envelope in self.world.in_flight:
                self._judged(self.world.deliver, envelope)

    @precondition(lambda self: self.world.in_flight)
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        """Any message is lost."""
        self.world.lose(self._envelope(pick))

    @rule(server=PICK, count=st.integers(1, 60))
    def tick(self, server: int, count: int) -> None:
        """Time passes at one server only."""
        self._do(self._name(server), self.world.tick, count)

    @rule(server=PICK)
    def timeout(self, server: int) -> None:
        """A server hears nothing for too long."""
        self._do(self._name(server), self.world.timeout)

    @rule(server=PICK)
    def elect(self, server: int) -> None:
        """A server stands for election while everything is fast and nothing is lost."""
        self._do(self._name(server), self.world.timeout)
        self._judged(self.world.settle)

    @rule(server=PICK, count=st.integers(1, 3))
    def propose(self, server: int, count: int) -> None:
        """A client writes to a server that believes that it leads, or, without one, to any."""
        number = self._next_number()
        self._do(self._asked(server), self.world.propose, [f"v{number}.{part}" for part in range(count)])

    @rule(server=PICK)
    def read(self, server: int) -> None:
        """A client reads, likewise."""
        self._do(self._asked(server), self.world.read, f"r{self._next_number()}")

    @rule(server=PICK)
    def lease_read(self, server: int) -> None:
        """A client reads where nobody needs to be asked."""
        self._do(self._asked(server), self.world.lease_read, f"r{self._next_number()}")

    @rule(count=st.integers(1, 40))
    def pass_time(self, count: int) -> None:
        """Time passes everywhere."""
        self._judged(self.world.pass_time, count)

    @rule(milliseconds=st.sampled_from((20, 100, 250, 300)))
    def wait(self, milliseconds: int) -> None:
        """No server gets to run for a while."""
        self.world.wait(milliseconds)

    @rule(what=st.sampled_from(("add", "promote", "demote", "remove")), server=PICK, asked=PICK)
    def change(self, what: str, server: int, asked: int) -> None:
        """One server joins, leaves, or gets or loses its vote."""
        if self.world.is_up(self._asked(asked)):
            self._judged(self.world.change, what, self._asked(asked), self._name(server))

    @rule(server=PICK, to=st.none() | PICK)
    def transfer(self, server: int, to: int | None) -> None:
        """A leader hands over, to a given server or to the best."""
        self._do(self._asked(server), self.world.transfer, None if to is None else self._name(to))

    @rule(server=PICK)
    def step_down(self, server: int) -> None:
        """A leader leads no more."""
        self._do(self._asked(server), self.world.step_down)

    @rule(server=PICK, peer=PICK)
    def ended(self, server: int, peer: int) -> None:
        """A server gets evidence that a process has ended."""
        if self._name(server) != self._name(peer):
            self._do(self._name(server), self.world.ended, self._name(peer))

    @rule(server=PICK)
    def snapshot(self, server: int) -> None:
        """A server takes a snapshot."""
        self._do(self._name(server), self.world.snapshot)

    @rule(server=PICK, count=st.integers(1, 3))
    def append(self, server: int, count: int) -> None:
        """A disk is given writes, and confirms nothing yet."""
        self._do(self._name(server), self.world.append, count)

    @rule(server=PICK)
    def sync(self, server: int) -> None:
        """A disk confirms what it was given."""
        self._do(self._name(server), self.world.sync)

    @rule(server=PICK)
    def flush(self, server: int) -> None:
        """A disk is fast."""
        self._do(self._name(server), self.world.flush)

    @rule(server=PICK, steps=st.integers(1, 6))
    def spare(self, server: int, steps: int) -> None:
        """A log's next segment is made ahead, beside what else goes on."""
        self._do(self._name(server), self.world.spare, steps)

    @rule(server=PICK, keep=st.integers(0, 4), torn_bytes=st.integers(0, 64))
    def crash(self, server: int, keep: int, torn_bytes: int) -> None:
        """Power loss: a prefix of what was not confirmed survives."""
        self._do(self._name(server), self.world.crash, keep, torn_bytes)

    @precondition(lambda self: self.world.leaders())
    @rule(server=PICK, changes=st.integers(0, 7), keep=st.integers(0, 4), torn_bytes=st.integers(0, 64))
    def fail_power(self, server: int, changes: int, keep: int, torn_bytes: int) -> None:
        """Power loss in the middle of what a disk is about, a restart perhaps."""
        self.world.fail_power(self._name(server), changes, keep, torn_bytes)

    @rule(server=PICK, seed=PICK)
    def scatter(self, server: int, seed: int) -> None:
        """Power loss: any sectors of what was not confirmed survive."""
        self._do(self._name(server), self.world.scatter, seed)

    @rule(server=PICK)
    def restart(self, server: int) -> None:
        """A crashed server starts again."""
        if not self.world.is_up(self._name(server)):
            self._judged(self.world.restart, self._name(server))

    @rule(side=st.integers(1, 30), both=st.booleans())
    def partition(self, side: int, both: bool) -> None:
        """Nothing gets from some servers to the others, or in neither direction."""
        inside = [name for number, name in enumerate(self.world.names) if side & (1 << number)]
        outside = [name for name in self.world.names if name not in inside]
        for one in inside:
            for other in outside:
                self.world.cut(one, other)
                if both:
                    self.world.cut(other, one)

    @rule()
    def heal(self) -> None:
        """The network is whole again."""
        self.world.heal()

    @rule(server=PICK, peer=PICK, up=st.booleans())
    def link(self, server: int, peer: int, up: bool) -> None:
        """A server is told of a connection made or closed."""
        if self._name(server) != self._name(peer):
            act = self.world.connected if up else self.world.disconnected
            self._do(self._name(server), act, self._name(peer))

    @rule(server=PICK, held=st.booleans())
    def hold(self, server: int, held: bool) -> None:
        """A driver is slow, or no longer."""
        self._do(self._name(server), self.world.hold if held else self.world.release)

    @rule()
    def settle(self) -> None:
        """For a while everything is fast and nothing is lost."""
        self._judged(self.world.settle)

    def teardown(self) -> None:
        """Heal: a leader and one log within a bounded time, with everything that was acknowledged."""
        if hasattr(self, "world") and tuple(self.world.transcript) != self.failed:
            self._judged(self.world.heal_and_check)
            self.totals.update(self.world.counts)
            self.totals["schedules"] += 1
