"""Servers, the messages between them and their clients, in one thread and without time: the system under test.

Whatever can happen to a cluster is a method, and nothing happens by itself: the caller is the scheduler. Each call is
one line of a transcript, which `script` can run again. After each call the observer and the replay have judged what
happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import msgspec

from impl.raft.core import Core
from impl.raft.errors import Refused
from impl.raft.messages import Entry, Message, decode, encode
from impl.raft.ready import Ready, Role
from impl.raft.settings import Settings
from model_checks.stateful.node import Node
from model_checks.stateful.observer import Observer
from model_checks.stateful.replay import Replay
from model_checks.stateful.system import Envelope
from model_checks.stateful.tracing import Traces, command
from model_checks.stateful.violations import Property, Violation

DEFAULT_BATCH = Settings(name="").append_entries_max
MESSAGES_MAX = 400
"""In flight; beyond it the oldest are lost."""
SETTLE_ROUNDS_MAX = 400
HEALING_TICKS_MAX = 240
"""Ticks in which a healed cluster must have a leader and one log: four election timeouts, since votes may split."""


class World:
    """A cluster of real cores on virtual disks. Implements SystemUnderTest; raises Violation."""

    def __init__(
        self,
        servers: int,
        seed: int,
        *,
        batch: int = DEFAULT_BATCH,
        conformance: bool = True,
        traced: bool = False,
    ) -> None:
        """`batch`: entries in one AppendEntriesRequest, at most. `traced`: keep traces like those of processes."""
        self.names = tuple(f"s{number}" for number in range(1, servers + 1))
        self.nodes = {name: Node(name, self.names, seed, batch) for name in self.names}
        self.in_flight: list[Envelope] = []
        self.observer = Observer(self.nodes)
        self.replay = Replay(self.names) if conformance else None
        self.traces = Traces(self.names) if traced else None
        self.transcript: list[str] = [f"servers {servers} seed {seed} batch {batch}"]
        self.output: list[str] = []
        """What happened, for people; whoever shows it clears it."""
        self.counts: dict[str, int] = {}
        """How often each kind of thing happened: a schedule that never elects checks little."""
        self.healing_ticks = 0
        """How long `heal_and_check` took."""
        self._cuts: set[tuple[str, str]] = set()
        self._held: set[str] = set()
        self._proposed: dict[tuple[str, int, int], str] = {}
        """Writes whose client waits: (server/incarnation, index, term)."""
        for name in self.names:
            self._start(name)

    # What the machine does.

    def is_up(self, name: str) -> bool:
        """Whether the server runs."""
        return self.nodes[name].core is not None

    def leaders(self) -> list[str]:
        """The servers that believe that they lead: there may be several, of different terms."""
        return [name for name, node in self.nodes.items() if node.core is not None and node.core.role is Role.LEADER]

    def tick(self, name: str, count: int = 1) -> None:
        """10 ms pass at one server, `count` times."""
        self._note(f"tick {name} {count}")
        core = self.nodes[name].running
        for _ in range(count):
            core.tick()
            self._carry_out(name)

    def timeout(self, name: str) -> None:
        """Time passes at one server until it stands for election; nothing happens at a leader."""
        self._note(f"timeout {name}")
        core = self.nodes[name].running
        term = core.term
        for _ in range(core.server.settings.election_ticks_max + 1):
            if core.term != term:
                break
            core.tick()
            self._carry_out(name)

    def deliver(self, envelope: Envelope, *, keep: bool = False) -> None:
        """Deliver a message; to a server that is down it is lost."""
        self._note(f"deliver {envelope.id} {'keep' if keep else ''}".rstrip())
        if not keep:
            self.in_flight.remove(envelope)
        core = self.nodes[envelope.to].core
        if core is not None:
            core.step(envelope.source, envelope.message, envelope.id, envelope.frame)
            self._carry_out(envelope.to)

    def lose(self, envelope: Envelope) -> None:
        """Lose a message."""
        self._note(f"lose {envelope.id}")
        self.in_flight.remove(envelope)

    def propose(self, name: str, texts: Sequence[str]) -> None:
        """A client writes; refusals are shown."""
        self._note(f"propose {name} {' '.join(texts)}")
        node = self.nodes[name]
        try:
            first, term = node.running.propose([command(text) for text in texts])
        except Refused as refusal:
            self.output.append(f"{name} refuses: {refusal}")
            return
        for index, text in enumerate(texts, first):
            self._proposed[f"{name}/{node.incarnation}", index, term] = text
        self._carry_out(name)

    def read(self, name: str, read_id: str) -> None:
        """A client reads; refusals are shown."""
        self._note(f"read {name} {read_id}")
        try:
            self.nodes[name].running.read(read_id)
        except Refused as refusal:
            self.output.append(f"{name} refuses: {refusal}")
            return
        self.observer.saw_read(read_id)
        self._carry_out(name)

    def append(self, name: str, count: int = 1) -> None:
        """The disk is given the next `count` writes: a power loss may keep them or not."""
        self._note(f"append {name} {count}")
        self.nodes[name].append(count)

    def sync(self, name: str) -> None:
        """The disk confirms everything that it was given."""
        self._note(f"sync {name}")
        self.nodes[name].sync()
        self._carry_out(name)

    def crash(self, name: str, keep: int = 0, torn_bytes: int = 0) -> None:
        """Power loss at one server: of what was not synced, `keep` changes survive, and some bytes of the next."""
        self._note(f"crash {name} {keep} {torn_bytes}")
        self.nodes[name].crash(keep, torn_bytes)
        self._held.discard(name)

    def scatter(self, name: str, seed: int) -> None:
        """Power loss at one server whose disk reorders: of what was not synced, any sectors survive."""
        self._note(f"scatter {name} {seed}")
        self.nodes[name].crash_scattered(seed)
        self._held.discard(name)

    def restart(self, name: str) -> None:
        """Start a crashed server."""
        self._note(f"restart {name}")
        self._start(name)

    def cut(self, source: str, to: str) -> None:
        """From now on no message gets from `source` to `to`; those on their way are lost."""
        self._note(f"cut {source} {to}")
        self._cuts.add((source, to))
        self.in_flight = [envelope for envelope in self.in_flight if (envelope.source, envelope.to) not in self._cuts]

    def heal(self) -> None:
        """Undo every cut."""
        self._note("heal")
        self._cuts.clear()

    def connected(self, name: str, peer: str) -> None:
        """The server is told that it has a connection to a peer."""
        self._note(f"connected {name} {peer}")
        self.nodes[name].running.peer_connected(peer)
        self._carry_out(name)

    def disconnected(self, name: str, peer: str) -> None:
        """The server is told that a connection with a peer closed."""
        self._note(f"disconnected {name} {peer}")
        self.nodes[name].running.peer_lost(peer)
        self._carry_out(name)

    def hold(self, name: str) -> None:
        """The driver of a server is slow: inputs gather until `release`."""
        self._note(f"hold {name}")
        self._held.add(name)

    def release(self, name: str) -> None:
        """The driver of a server goes on."""
        self._note(f"release {name}")
        self._held.discard(name)
        if self.is_up(name):
            self._carry_out(name)

    # What several of these make together.

    def flush(self, name: str) -> None:
        """The disk of one server does everything that is asked of it."""
        node = self.nodes[name]
        while node.core is not None and node.has_writes():
            self.append(name, len(node.queue))
            self.sync(name)

    def lose_all(self) -> None:
        """Lose every message that is on its way."""
        for envelope in list(self.in_flight):
            self.lose(envelope)

    def settle(self) -> None:
        """Disks write and messages arrive, in order, until nothing moves; time stands still."""
        for _ in range(SETTLE_ROUNDS_MAX):
            for name in self.names:
                self.flush(name)
            arriving = list(self.in_flight)
            if not arriving:
                return
            for envelope in arriving:
                if envelope in self.in_flight:
                    self.deliver(envelope)
        raise Violation(Property.LIVENESS, f"messages beget messages without end: {len(self.in_flight)} in flight")

    def heal_and_check(self) -> None:
        """Heal everything; the servers must elect a leader and agree within a bounded time, and have kept what was
        acknowledged.
        """
        self.heal()
        for name in self.names:
            if not self.is_up(name):
                self.restart(name)
            self.release(name)
        for ticks in range(HEALING_TICKS_MAX):
            self.settle()
            if self._agreed_leader() is not None:
                self.healing_ticks = ticks
                break
            for name in self.names:
                self.tick(name)
        else:
            states = "; ".join(self.status(name) for name in self.names)
            raise Violation(Property.LIVENESS, f"no agreement within {HEALING_TICKS_MAX} ticks: {states}")
        self.observer.look_at_the_end()

    def _agreed_leader(self) -> Core | None:
        """The leader, if all servers follow it and have applied the same log to its end."""
        cores = [self.nodes[name].running for name in self.names]
        states = {(core.term, core.leader_id, core.last_applied, core.last_index) for core in cores}
        if len(states) != 1 or cores[0].leader_id is None or cores[0].last_applied != cores[0].last_index:
            return None
        return self.nodes[cores[0].leader_id].core

    def status(self, name: str) -> str:
        """One line about a server."""
        core = self.nodes[name].core
        if core is None:
            return f"{name} is down"
        log = core.server.log
        terms = " ".join(f"{entry.term}" for entry in log.slice(max(0, log.last_index - 12), log.last_index))
        return (
            f"{name} {core.role.value} term {core.term} leader {core.leader_id} commit {core.commit_index} "
            f"applied {core.last_applied} durable {core.server.disk.durable_index} of {log.last_index} terms [{terms}]"
        )

    # What the driver of an agent does.

    def _start(self, name: str) -> None:
        core = self.nodes[name].start()
        incarnation = self.nodes[name].incarnation
        if self.replay is not None and incarnation > 1:
            self.replay.restart(name, core.trace_state())
        if self.traces is not None:
            self.traces.started(name, incarnation, core.trace_state())
        self._carry_out(name)

    def _carry_out(self, name: str) -> None:
        if name in self._held:
            return
        core = self.nodes[name].running
        while core.has_ready():
            self._carry_out_ready(name, core.ready())
        self.observer.look(name)
        self.observer.look_at_disks()

    def _carry_out_ready(self, name: str, ready: Ready) -> None:
        node = self.nodes[name]
        for change in ready.role_changes:
            self.output.append(f"{name} {change.role.value} of term {change.term}: {change.why}")
            self._count("elected" if change.role is Role.LEADER else "role changed")
        if self.replay is not None:
            self.replay.feed(name, node.incarnation, ready.events)
            self.counts["spec steps"] = self.replay.steps
        if ready.write is not None:
            node.queue.append(ready.write)
        encoded = [encode(message) for _, message in ready.messages]
        frames = [crc32(frame) for frame in encoded]
        if self.traces is not None:
            self.traces.happened(name, ready.events, frames)
        for (to, message), wire, frame in zip(ready.messages, encoded, frames, strict=True):
            self.observer.saw_message(name, to, message)
            self._post(Envelope(f"{name}/{node.incarnation}/{message.sequence}", name, to, decode(wire), frame))
        self.observer.saw_applied(name, ready.committed)
        for entry in ready.committed:
            self._applied(node, entry)
        for read in ready.reads:
            self.output.append(f"{name} answers {read.id} at index {read.index}")
            self.observer.saw_answer(name, read, len(node.applied))
            self._count("read answered")
        self.output.extend(f"{name} fails {read.id}: {read.reason}" for read in ready.failed_reads)
        for lost in ready.lost:
            self.output.append(
                f"{name} lost {lost.first_index}..{lost.last_index} of term {lost.term}: outcome unknown"
            )

    def _post(self, envelope: Envelope) -> None:
        cut = (envelope.source, envelope.to) in self._cuts
        self.output.append(f"{envelope.source} -> {envelope.to} {describe(envelope.message)}{' (cut)' if cut else ''}")
        if not cut:
            self.in_flight.append(envelope)
            del self.in_flight[:-MESSAGES_MAX]

    def _applied(self, node: Node, entry: Entry) -> None:
        _, *arguments = msgspec.msgpack.decode(entry.payload)
        text = arguments[0] if arguments else "no-op"
        self.output.append(f"{node.name} applies {entry.index} ({text}, term {entry.term})")
        self._count("applied")
        client = (f"{node.name}/{node.incarnation}", entry.index, entry.term)
        if self._proposed.pop(client, None) is not None:
            self.observer.saw_acknowledgement(entry)
            self._count("acknowledged")

    def _note(self, line: str) -> None:
        self.transcript.append(line)
        self._count(line.partition(" ")[0])

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def describe(message: Message) -> str:
    """One line about a message, without its sequence."""
    fields = msgspec.structs.asdict(message)
    del fields["sequence"]
    if fields.get("success"):
        del fields["conflict_index"], fields["conflict_term"]
    if "entries" in fields:
        entries = fields.pop("entries")
        fields["entries"] = f"{entries[0].index}..{entries[-1].index}" if entries else "none"
    shown = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{type(message).__name__} {shown}"
