"""Nemesis packages: {what breaks and what mends, a generator of faults, a final generator, a colour for the plot}
(jepsen.nemesis.combined).

Each package has a thread of its own, so faults of different packages overlap. A fault holds for a random time, mostly
seconds, sometimes a fraction of one (a restart within the term in which it was killed finds what a slow one hides);
then it is mended, and after a pause the next one comes. A fault that needs no mending (a transfer) is followed by the
pause alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import msgspec

from jepsen_like.generator.combinators import Each, phases
from jepsen_like.generator.values import (
    PENDING,
    Answer,
    Completed,
    Context,
    Draws,
    Emit,
    Generator,
    Invocation,
)
from jepsen_like.nemesis import handover, lag, membership, partition, processes, rolling
from jepsen_like.nemesis.worker import NOTHING

SECOND_NS = 1_000_000_000
PAUSE_NS = (SECOND_NS, 7 * SECOND_NS // 3)
"""Between two faults of a package, for each package of the run: alone it breaks as often as all together do."""
TRACKS_MAX = 3
"""Beyond this many, packages do not slow each other down: each must get its turn in a run of a minute or two."""
FIRST_NS = (SECOND_NS // 2, 2 * SECOND_NS)
HOLD_NS = (SECOND_NS, 3 * SECOND_NS)
SHORT_HOLD_NS = (SECOND_NS // 20, SECOND_NS // 2)
CUT_HOLD_NS = (2 * SECOND_NS, 6 * SECOND_NS)
"""A cut holds longer than other faults: both sides go on, and what each then says is what a cut is for."""
NO_HOLD_NS = (0, 1)
LEASE_HOLD_NS = (SECOND_NS // 5, 9 * SECOND_NS // 20)
"""Longer than a lease, shorter than an election: a leader that wakes then is in doubt, and has answers to read by."""

Pick = Callable[[Draws], tuple[object, Draws]]
"""What a package breaks next."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What a package does, and what undoes it ("": nothing is needed)."""

    purpose: str
    breaks: str
    mends: str
    colour: str
    pick: Pick
    hold_ns: tuple[int, int] = HOLD_NS
    short_hold_ns: tuple[int, int] = SHORT_HOLD_NS
    short_in_ten: int = 3
    """How often, of ten times, the short hold is used."""
    servers_min: int = 1
    """With fewer servers it could do nothing."""
    pauses: bool = True
    """Whether a pause for each package of the run follows it; else only one of its own."""


PACKAGES = {
    "partition": Package(
        purpose="links are cut",
        breaks="cut",
        mends="heal",
        colour="#ffd27f",
        pick=partition.pick_shape,
        hold_ns=CUT_HOLD_NS,
        short_hold_ns=CUT_HOLD_NS,
    ),
    "kill": Package(
        purpose="kill -9, then a restart",
        breaks="kill",
        mends="restart",
        colour="#ff9f9f",
        pick=functools.partial(processes.pick_target, "kill"),
    ),
    "pause": Package(
        purpose="SIGSTOP, then SIGCONT",
        breaks="pause",
        mends="resume",
        colour="#b9c7ff",
        pick=functools.partial(processes.pick_target, "pause"),
        short_hold_ns=LEASE_HOLD_NS,
        short_in_ten=5,
    ),
    "membership": Package(
        purpose="servers, the leader too, are removed or demoted, then added and promoted again",
        breaks="change",
        mends="restore",
        colour="#a8e0a8",
        servers_min=membership.VOTERS_MIN + 1,
        pick=membership.pick_plan,
    ),
    "snapshot": Package(
        purpose="a follower misses so much that it must be sent a snapshot (thresholds are small)",
        breaks="fall-behind",
        mends="return",
        colour="#d9b3ff",
        servers_min=3,
        pick=lag.pick_way,
        short_hold_ns=HOLD_NS,
    ),
    "transfer": Package(
        purpose="the leadership is handed over",
        breaks="transfer",
        mends="",
        colour="#8fd8d8",
        servers_min=2,
        pick=handover.pick_heir,
        hold_ns=NO_HOLD_NS,
        short_hold_ns=NO_HOLD_NS,
    ),
    "rolling-restart": Package(
        purpose="servers are restarted gracefully, one after the other",
        breaks="roll",
        mends="",
        colour="#e0c9a6",
        pick=rolling.pick_nothing,
        hold_ns=SHORT_HOLD_NS,
        pauses=False,
    ),
}
DEFAULT = ("partition", "kill", "pause")


class Track(msgspec.Struct, frozen=True):
    """Break, hold, mend, pause, for ever, on the package's thread. `step` is next, at `at_ns`; `hold_ns` follows it.

    Where nothing could be broken (another package's fault has hit the same process), something else is tried soon.

    `tracks` is how many packages break things side by side.
    """

    package: str
    step: Invocation
    at_ns: int
    hold_ns: int
    draws: Draws
    tracks: int

    def ask(self, context: Context) -> Answer:
        if self.package not in context.free:
            return PENDING
        at_ns = max(self.at_ns, context.now_ns)
        return Emit(msgspec.structs.replace(self.step, at_ns=at_ns), self._after(at_ns + self.hold_ns))

    def _after(self, at_ns: int) -> Track:
        package = PACKAGES[self.package]
        if self.step.f == package.mends:
            return _breaking(self.package, at_ns, self.draws, self.tracks)
        pause_ns, draws = _within(PAUSE_NS if package.pauses else SHORT_HOLD_NS, self.draws)
        pause_ns *= self.tracks if package.pauses else 1
        if not package.mends:
            return _breaking(self.package, at_ns + pause_ns, draws, self.tracks)
        mending = Invocation(package.mends, thread=self.package)
        return Track(self.package, mending, at_ns, pause_ns, draws, self.tracks)

    def update(self, context: Context, event: Completed) -> Generator:
        if event.invocation.f != PACKAGES[self.package].breaks or event.completion.value != NOTHING:
            return self
        return _breaking(self.package, context.now_ns + SECOND_NS // 2, self.draws, self.tracks)


@functools.lru_cache(maxsize=16)
def _plan(package: str, draws: Draws) -> tuple[Invocation, int, Draws]:
    """What `package` breaks next, how long that holds, and the draws that follow. Remembered: asked at every turn."""
    chosen = PACKAGES[package]
    target, draws = chosen.pick(draws)
    seed, draws = draws.bits()
    kind, draws = draws.below(10)
    hold_ns, draws = _within(chosen.short_hold_ns if kind < chosen.short_in_ten else chosen.hold_ns, draws)
    return Invocation(chosen.breaks, value=target, thread=package, note=seed), hold_ns, draws


def _breaking(package: str, at_ns: int, draws: Draws, tracks: int) -> Track:
    step, hold_ns, draws = _plan(package, draws)
    return Track(package, step, at_ns, hold_ns, draws, tracks)


def track(package: str, draws: Draws, tracks: int) -> Track:
    """The faults of one package, beside those of `tracks` - 1 others."""
    first_ns, draws = _within(FIRST_NS, draws)
    return _breaking(package, first_ns, draws, tracks)


def _within(bounds: tuple[int, int], draws: Draws) -> tuple[int, Draws]:
    number, draws = draws.below(bounds[1] - bounds[0])
    return bounds[0] + number, draws


def generator(packages: tuple[str, ...], draws: Draws) -> tuple[Generator, ...]:
    """The tracks of `packages`, to run side by side; each uses the thread of its own name."""
    return tuple(track(name, draws.fork(name), min(len(packages), TRACKS_MAX)) for name in packages)


def final_generator(packages: tuple[str, ...]) -> Generator:
    """Undo everything: heal, restart, resume, whatever is broken; when all run, bring back who is no voter."""
    last = ["membership"] if "membership" in packages else []
    first = [name for name in packages if PACKAGES[name].mends and name not in last]

    def mended(names: Iterable[str]) -> Generator:
        value = membership.EVERYTHING
        return Each(tuple(Invocation(PACKAGES[name].mends, value=value, thread=name) for name in names))

    return phases(mended(first), mended(last))
