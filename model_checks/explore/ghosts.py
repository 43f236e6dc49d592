"""Ghost independence: no guard and no visible update of the spec reads what compaction has forgotten.

The spec's logs keep entries at and below `base` as history. So every action is tried a second time in a server whose
history holds other values of the same terms: it must be enabled in both or in none, and what it yields must look the
same above the bases. What a snapshot's log holds is history, too: only its length, last term and configuration count.
The last entry's term and the configuration in force at the base are known to a real server, so they stay.

`model_checks/proofs/ghosts.py` proves the same of the relational model. Source: Ongaro 2014, section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from spec.raft.bounds import Bounds
from spec.raft.log import EMPTY, Log
from spec.raft.messages import InstallSnapshotRequest, Message
from spec.raft.network import Protocol, Transition, handler, internal_choices, send_choices, takes_clock
from spec.raft.properties import is_message
from spec.raft.types import Committed, Constants, Elected, Entry, Fact, Outcome, Point, Restored, Server, ServerId

FORGOTTEN = "forgotten"
"""The value that stands in a history in place of another."""


def other_history(log: Log) -> Log:
    """A log of the same terms and of the same latest configuration, whose values are others."""
    other = EMPTY
    for index, entry in enumerate(log.slice(0, log.length), start=1):
        kept = entry.configuration if index == log.configuration_index else None
        other = other.append(Entry(entry.term, FORGOTTEN, kept))
    return other


class Rewriting:
    """Another history for one server: the entries up to its base, wherever its logs begin with them."""

    def __init__(self, s: Server) -> None:
        self.old = s.log.truncate(s.memory.base)
        self.new = other_history(self.old)

    def log(self, log: Log) -> Log:
        """`log` with the other history."""
        if not self.old.is_prefix_of(log):
            return log
        return self.new.extend(log.slice(self.old.length, log.length))

    def point(self, point: Point) -> Point:
        """A disk point with the other history."""
        return replace(point, log=self.log(point.log))

    def server(self, s: Server) -> Server:
        """A server with the other history, in memory and on disk."""
        issued = tuple(replace(write, point=self.point(write.point)) for write in s.issued)
        return replace(s, durable=self.point(s.durable), issued=issued)

    def fact(self, fact: Fact) -> Fact:
        """A fact with the other history."""
        return replace(fact, log=self.log(fact.log)) if isinstance(fact, Elected | Committed | Restored) else fact


def seen_point(point: Point) -> tuple[object, ...]:
    """What a server knows of a disk point: all of it but the entries up to the base."""
    base = point.log.truncate(point.base)
    known = (
        base.last_term,
        base.configuration,
        base.configuration_index,
        point.log.slice(point.base, point.log.length),
    )
    return (point.term, point.voted_for, point.snapshot, point.base, *known)


def seen_server(s: Server) -> tuple[object, ...]:
    """What is visible of a server."""
    points = tuple((seen_point(write.point), write.cause) for write in s.issued)
    return (replace(s, durable=Point(0, None, EMPTY), issued=()), seen_point(s.durable), points)


def seen_message(m: Message) -> Message:
    """What is visible of a message."""
    return replace(m, log=other_history(m.log)) if isinstance(m, InstallSnapshotRequest) else m


def seen(outcome: Outcome | None) -> tuple[object, ...] | None:
    """What is visible of an outcome; None if the action is not enabled."""
    if outcome is None:
        return None
    return (seen_server(outcome.server), tuple(map(seen_message, outcome.sent)), outcome.facts)


def reads_history(protocol: Protocol, c: Constants, i: ServerId, s: Server, action: str, *args: object) -> bool:
    """Whether `action` in state `s` of server `i` depends on what compaction has forgotten."""
    rewriting = Rewriting(s)
    outcome = protocol[action](c, i, s, *args)
    if outcome is not None:
        facts = tuple(map(rewriting.fact, outcome.facts))
        outcome = replace(outcome, server=rewriting.server(outcome.server), facts=facts)
    return seen(protocol[action](c, i, rewriting.server(s), *args)) != seen(outcome)


def attempts(
    protocol: Protocol, c: Constants, b: Bounds, transitions: Iterable[Transition]
) -> Iterator[tuple[ServerId, Server, tuple[object, ...]]]:
    """Every (server, state, (action, arguments...)) that may be enabled in the states met, the messages met with them
    included, where something is forgotten.
    """
    met: dict[tuple[ServerId, Server], dict[Message, None]] = {}
    for step in transitions:
        if step.before.memory.base:
            inbox = met.setdefault((step.server, step.before), {})
            inbox.update(dict.fromkeys(m for m in step.arguments if is_message(m)))
    for (i, s), inbox in met.items():
        yield from ((i, s, choice) for choice in (*internal_choices(b, s, b.max_time), *send_choices(c, i, s)))
        for m in inbox:
            for action in ("update_term", handler(m)):
                yield i, s, (action, m, b.max_time) if takes_clock(protocol[action]) else (action, m)


def ghost_readers(
    protocol: Protocol, c: Constants, b: Bounds, transitions: Iterable[Transition]
) -> tuple[int, dict[str, int]]:
    """How many attempts were made in the states met, and how often each action was caught reading history."""
    count, caught = 0, dict[str, int]()
    for i, s, (action, *args) in attempts(protocol, c, b, transitions):
        count += 1
        if reads_history(protocol, c, i, s, str(action), *args):
            caught[str(action)] = caught.get(str(action), 0) + 1
    return count, caught
