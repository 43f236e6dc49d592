"""Nemesis packages: {a worker, a generator of faults, a final generator, a colour for the plot}
(jepsen.nemesis.combined).

Each package has a thread of its own, so faults of different packages overlap. A fault holds for a random time, mostly
seconds, sometimes a fraction of one (a restart within the term in which it was killed finds what a slow one hides);
then it is mended, and after a pause the next one comes.
"""

from __future__ import annotations

import functools

import msgspec

from jepsen_like.generator.combinators import Each
from jepsen_like.generator.values import (
    PENDING,
    Answer,
    Completed,
    Completion,
    Context,
    Draws,
    Emit,
    Ending,
    Generator,
    Invocation,
)
from jepsen_like.nemesis import partition, processes
from jepsen_like.nemesis.book import Fault, FaultBook

SECOND_NS = 1_000_000_000
HOLD_NS = (SECOND_NS, 3 * SECOND_NS)
CUT_HOLD_NS = (2 * SECOND_NS, 6 * SECOND_NS)
"""A cut holds longer than other faults: both sides go on, and what each then says is what a cut is for."""
SHORT_HOLD_NS = (SECOND_NS // 20, SECOND_NS // 2)
SHORT_IN_TEN = 3
PAUSE_NS = (SECOND_NS, 7 * SECOND_NS // 3)
"""Between two faults of a package, for each package of the run: alone it breaks as often as three together do."""
FIRST_NS = (SECOND_NS // 2, 2 * SECOND_NS)

PACKAGES = {"partition": ("cut", "heal"), "kill": ("kill", "restart"), "pause": ("pause", "resume")}
"""Package -> what it does, and what undoes it."""
NOTHING = "nothing"
"""Value of a completion that broke or mended nothing."""
COLOURS = {"partition": "#ffd27f", "kill": "#ff9f9f", "pause": "#b9c7ff"}


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
        _, undo = PACKAGES[self.package]
        if self.step.f == undo:
            return _breaking(self.package, at_ns, self.draws, self.tracks)
        pause_ns, draws = _within(PAUSE_NS, self.draws)
        mending = Invocation(undo, thread=self.package)
        return Track(self.package, mending, at_ns, pause_ns * self.tracks, draws, self.tracks)

    def update(self, context: Context, event: Completed) -> Generator:
        breaking, _ = PACKAGES[self.package]
        if event.invocation.f != breaking or event.completion.value != NOTHING:
            return self
        return _breaking(self.package, context.now_ns + SECOND_NS // 2, self.draws, self.tracks)


@functools.lru_cache(maxsize=16)
def _plan(package: str, draws: Draws) -> tuple[Invocation, int, Draws]:
    """What `package` breaks next, how long that holds, and the draws that follow. Remembered: asked at every turn."""
    if package == "partition":
        target, draws = partition.pick_shape(draws)
    else:
        target, draws = processes.pick_target(package, draws)
    seed, draws = draws.bits()
    kind, draws = draws.below(10)
    if package == "partition":
        bounds = CUT_HOLD_NS
    else:
        bounds = SHORT_HOLD_NS if kind < SHORT_IN_TEN else HOLD_NS
    hold_ns, draws = _within(bounds, draws)
    return Invocation(PACKAGES[package][0], value=target, thread=package, note=seed), hold_ns, draws


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


class NemesisWorker:
    """Carries out a package's invocations on the cluster."""

    def __init__(self, package: str, book: FaultBook, test_clients: int) -> None:
        self._package = package
        self._book = book
        self._test_clients = test_clients

    async def invoke(self, invocation: Invocation) -> Completion:
        """Break or mend; the value says what was done to whom."""
        fault = await self._do(invocation)
        return Completion(Ending.INFO, value=fault.what or NOTHING, error=fault.error or None)

    async def _do(self, invocation: Invocation) -> Fault:
        book, package = self._book, self._package
        cluster = book.cluster
        match invocation.f:
            case "heal":
                return await book.heal(package)
            case "restart":
                return await book.restart(package)
            case "resume":
                return await book.resume(package)
        leader = await book.leader()
        draws = Draws(invocation.note)
        if invocation.f == "cut":
            shape = partition.cut(invocation.value, cluster.servers, cluster.clients, leader, draws, self._test_clients)
            return await book.cut(package, shape.links, shape.nodes, f"{invocation.value}: {shape.what}", leader)
        down = book.dead | book.paused
        servers = [name for name in cluster.servers if name not in down] or cluster.servers
        clients = [name for name in cluster.clients if name not in down]
        nodes = processes.nodes_of(invocation.value, servers, clients, None if leader in down else leader, draws)
        if invocation.f == "kill":
            return await book.kill(package, nodes, leader)
        assert invocation.f == "pause"
        return await book.pause(package, nodes, leader)


def generator(packages: tuple[str, ...], draws: Draws) -> tuple[Generator, ...]:
    """The tracks of `packages`, to run side by side; each uses the thread of its own name."""
    return tuple(track(name, draws.fork(name), len(packages)) for name in packages)


def final_generator(packages: tuple[str, ...]) -> Generator:
    """Undo everything: heal, restart, resume, whatever is broken."""
    return Each(tuple(Invocation(PACKAGES[name][1], thread=name) for name in packages))
