"""Schedules as text: one line is one call of the world. Transcripts of failing runs are such; so are golden tests.

    servers N [spare K] [seed S] [batch B] [trailing T] [pre-vote yes|no]
                                the first line: N members and K others; `system.Setup` says more
    tick NAME [N]               N times 10 ms, for the timers of one server and the clocks of all
    pass [N]                    N times 10 ms everywhere
    wait MS                     time passes, but no server gets to run
    timeout NAME                time passes until it stands for election, or asks who would vote for it
    deliver FROM TO [keep]      the oldest message between them (or `deliver ID [keep]`); keep: it may arrive again
    lose FROM TO                (or `lose ID`)
    lose-all                    everything on its way
    propose NAME KEY...         one entry for each key to set
    read NAME ID
    lease-read NAME ID          by the leader's lease
    add NAME X / remove NAME X / promote NAME X / demote NAME X
                                NAME is asked to change the configuration
    transfer NAME [TO] / step-down NAME
    ended NAME PEER             NAME gets evidence that PEER's latest process that ended has ended
    snapshot NAME
    append NAME [N]             the disk is given the next N writes
    sync NAME                   and confirms them
    spare NAME [N]              another thread makes the log's next segment ahead: the next N changes of the disk
    fail-power NAME N [KEEP [TORN]]
                                after N more changes of the disk a crash comes, in the middle of what goes on then
    crash NAME [KEEP [TORN]]    power loss; KEEP of the changes that were not synced survive, and TORN bytes of the next
    scatter NAME SEED           power loss; any sectors of what was not synced survive
    restart NAME
    cut FROM TO / heal          heal: undo every cut, and every fail-power that has not come yet
    connected NAME PEER / disconnected NAME PEER
    hold NAME / release NAME    the driver of a server is slow, until released
    flush NAME                  append and sync until the disk has nothing left to do
    settle                      disks write and messages arrive until nothing moves
    heal-and-check              the end: everything recovers, in bounded time, with nothing acknowledged lost
    status                      one line about each server

Empty lines and lines that begin with # are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from model_checks.stateful.system import Envelope, Setup
from model_checks.stateful.world import World


class BadScript(ValueError):
    """A line that cannot be run: unknown, malformed, or impossible now. The text names the line."""


def run_script(
    lines: Iterable[str],
    *,
    conformance: bool = True,
    traced: bool = False,
    skip_impossible: bool = False,
    started: Callable[[World], None] = lambda world: None,
) -> World:
    """Run a schedule. Raises BadScript and Violation.

    `skip_impossible`: pass over lines that cannot be run, as happens when a transcript is shortened. `started` is
    told of the world as soon as there is one.
    """

    def form(setup: Setup) -> World:
        world = World(setup, conformance=conformance, traced=traced)
        started(world)
        return world

    return _run(lines, lambda line, output: None, form, skip_impossible)


def rewrite(script: str) -> str:
    """A golden text, with what happens now after each of its commands: they are the lines that begin with "> "."""
    kept: list[str] = []
    commands = [line for line in script.splitlines() if line.startswith(("> ", "#")) or not line]
    shown: list[str] = []

    def show(line: str, output: Sequence[str]) -> None:
        shown.extend(f"  {text}" for text in output)

    def numbered() -> Iterable[str]:
        for line in commands:
            kept.extend(shown)
            shown.clear()
            if line or (kept and kept[-1]):
                kept.append(line)
            yield line.removeprefix("> ")

    _run(numbered(), show, World, False)
    return "\n".join([*kept, *shown]).rstrip("\n") + "\n"


def _run(
    lines: Iterable[str],
    show: Callable[[str, Sequence[str]], None],
    form: Callable[[Setup], World],
    skip_impossible: bool,
) -> World:
    world: World | None = None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if world is None:
                world = form(_setup(words))
            else:
                perform(world, words)
        except (ValueError, KeyError, IndexError) as error:
            if skip_impossible and world is not None:
                continue
            raise BadScript(f"line {number}, {line.strip()!r}: {error}") from error
        show(line, world.output)
        world.output.clear()
    if world is None:
        raise BadScript("a script begins with: servers N")
    return world


def _setup(words: Sequence[str]) -> Setup:
    """The first line: names and values by turns."""
    given = dict(zip(words[::2], words[1::2], strict=False))
    if words[0] != "servers" or len(words) % 2 or not given.keys() <= _PARAMETERS.keys():
        raise ValueError("a script begins with: servers N [spare K] [seed S] [batch B] [trailing T] [pre-vote yes|no]")
    numbers = {_PARAMETERS[name]: int(value) for name, value in given.items() if name != "pre-vote"}
    return Setup(pre_vote=given.get("pre-vote", "yes") == "yes", **numbers)


_PARAMETERS = {
    "servers": "servers",
    "spare": "spare",
    "seed": "seed",
    "batch": "batch",
    "trailing": "trailing",
    "pre-vote": "pre_vote",
}


def perform(world: World, words: Sequence[str]) -> None:
    """Run one line. Raises ValueError or KeyError if it is malformed or impossible now, and Violation."""
    match words:
        case ["deliver", *where]:
            keep = where[-1:] == ["keep"]
            world.deliver(_envelope(world, where[:-1] if keep else where), keep=keep)
        case ["lose", *where]:
            world.lose(_envelope(world, where))
        case ["propose", name, *texts]:
            world.propose(name, texts)
        case ["read", name, read_id]:
            world.read(name, read_id)
        case ["lease-read", name, read_id]:
            world.lease_read(name, read_id)
        case ["add" | "remove" | "promote" | "demote" as what, name, server]:
            world.change(what, name, server)
        case ["transfer", name, *to] if len(to) < 2:
            world.transfer(name, *to)
        case ["status"]:
            world.output.extend(world.status(name) for name in world.names)
        case [command, *names_and_numbers] if command in _COMMANDS:
            count, act = _COMMANDS[command]
            names, numbers = names_and_numbers[:count], names_and_numbers[count:]
            unknown = [name for name in names if name not in world.names]
            if unknown or len(names) < count:
                raise ValueError(f"{command} needs {count} of the servers {', '.join(world.names)}")
            act(world, *names, *(int(number) for number in numbers))
        case _:
            raise ValueError("no such command")


_COMMANDS: dict[str, tuple[int, Callable[..., None]]] = {
    "tick": (1, World.tick),
    "timeout": (1, World.timeout),
    "pass": (0, World.pass_time),
    "wait": (0, World.wait),
    "step-down": (1, World.step_down),
    "ended": (2, World.ended),
    "snapshot": (1, World.snapshot),
    "append": (1, World.append),
    "sync": (1, World.sync),
    "spare": (1, World.spare),
    "fail-power": (1, World.fail_power),
    "crash": (1, World.crash),
    "scatter": (1, World.scatter),
    "restart": (1, World.restart),
    "cut": (2, World.cut),
    "heal": (0, World.heal),
    "connected": (2, World.connected),
    "disconnected": (2, World.disconnected),
    "hold": (1, World.hold),
    "release": (1, World.release),
    "flush": (1, World.flush),
    "settle": (0, World.settle),
    "lose-all": (0, World.lose_all),
    "heal-and-check": (0, World.heal_and_check),
}
"""How many servers each command names, and what it does; numbers follow."""


def _envelope(world: World, where: Sequence[str]) -> Envelope:
    match where:
        case [source, to]:
            found = [envelope for envelope in world.in_flight if (envelope.source, envelope.to) == (source, to)]
        case [message_id]:
            found = [envelope for envelope in world.in_flight if envelope.id == message_id]
        case _:
            raise ValueError("name a message by its id, or by source and destination")
    if not found:
        raise ValueError(f"no such message is in flight; there are {[envelope.id for envelope in world.in_flight]}")
    return found[0]
