"""Servers, the messages between them and their clients, in one thread, with a time of their own: the system under test.

Whatever can happen to a cluster is a method, and nothing happens by itself: the caller is the scheduler. Each call is
one line of a transcript, which `script` can run again. After each call the observer and the replay have judged what
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final
from zlib import crc32

import msgspec

from impl.raft.configuration import Configuration, Member, with_member, with_voter, without_member
from impl.raft.core import Core
from impl.raft.errors import Refused, UnknownServer
from impl.raft.messages import Entry, InstallSnapshotRequest, decode, encode
from impl.raft.ready import Ready, Role
from impl.raft.settings import Settings
from impl.runtime.virtual_disk import PowerFailed
from impl.storage.errors import StorageError
from model_checks.stateful.node import Node
from model_checks.stateful.observer import Observer
from model_checks.stateful.replay import Replay
from model_checks.stateful.system import Envelope, Setup
from model_checks.stateful.tracing import Traces, command
from model_checks.stateful.violations import Property, Violation
from model_checks.stateful.wording import describe_entry, describe_message, describe_server

TICK_NS = 10_000_000
MESSAGES_MAX = 400
"""In flight; beyond it the oldest are lost."""
SETTLE_ROUNDS_MAX = 400
HEALING_TICKS_MAX = 360
"""Ticks in which a healed cluster must have a leader and one log: six election timeouts, since votes may split."""
CALM_TICKS, CALM_STEP = 130, 10
"""Ticks in which whoever was removed campaigns twice, if it does."""
CHANGES: Final[Mapping[str, Callable[[Configuration, str], tuple[Member, ...]]]] = {
    "add": lambda configuration, server: with_member(configuration, Member(server, voter=False)),
    "remove": without_member,
    "promote": lambda configuration, server: with_voter(configuration, server, voter=True),
    "demote": lambda configuration, server: with_voter(configuration, server, voter=False),
}
"""The changes of a configuration, by the name of the command."""


class World:
    """A cluster of real cores on virtual disks. Implements SystemUnderTest; raises Violation."""

    def __init__(
        self,
        setup: Setup,
        *,
        conformance: bool = True,
        traced: bool = False,
    ) -> None:
        """`traced`: keep traces like those of processes."""
        self.names = tuple(f"s{number}" for number in range(1, setup.servers + setup.spare + 1))
        members = self.names[: setup.servers]
        settings = Settings(
            name="", append_entries_max=setup.batch, snapshot_trailing=setup.trailing, pre_vote=setup.pre_vote
        )
        self.nodes = {
            name: Node(msgspec.structs.replace(settings, name=name), members, setup.seed, traced=traced)
            for name in self.names
        }
        self.real_ns = 0
        """Real time, which no server knows: each has a clock that drifts."""
        self.in_flight: list[Envelope] = []
        self.observer = Observer(self.nodes)
        self.replay = Replay(self.names, members, settings) if conformance else None
        self.traces = Traces(members, settings, lambda: 1 + self.real_ns) if traced else None
        self.transcript: list[str] = [str(setup)]
        self.output: list[str] = []
        """What happened, for people; whoever shows it clears it."""
        self.counts: dict[str, int] = {}
        """How often each kind of thing happened: a schedule that never elects checks little."""
        self._healing = False
        """Whether what happens now is part of `heal_and_check`, and so no line of its own."""
        self._cuts: set[tuple[str, str]] = set()
        self._held: set[str] = set()
        self._failing: dict[str, tuple[int, int]] = {}
        """Servers whose power will fail within a call, each with what of the unsynced changes will survive."""
        self._unreported: list[Envelope] = []
        """Lost as they were sent; their senders are told of snapshots among them."""
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
        """10 ms pass, `count` times: for the timers of one server, for the clocks of all."""
        self._note(f"tick {name} {count}")
        core = self.nodes[name].running
        for _ in range(count):
            self._advance(TICK_NS)
            core.tick()
            self._carry_out(name)

    def pass_time(self, count: int = 1) -> None:
        """10 ms pass everywhere, `count` times."""
        self._note(f"pass {count}")
        for _ in range(count):
            self._advance(TICK_NS)
            for name, node in self.nodes.items():
                if node.core is not None:
                    node.core.tick()
                    self._carry_out(name)

    def wait(self, milliseconds: int) -> None:
        """Time passes in which no server gets to run."""
        self._note(f"wait {milliseconds}")
        self._advance(milliseconds * 1_000_000)

    def _advance(self, ns: int) -> None:
        self.real_ns += ns
        for node in self.nodes.values():
            if node.core is not None:
                node.core.advance_clock(node.clock(self.real_ns))

    def timeout(self, name: str) -> None:
        """Time passes until one server stands for election, or asks who would vote for it; nothing happens at a
        leader.
        """
        self._note(f"timeout {name}")
        core = self.nodes[name].running
        term = core.term
        for _ in range(core.server.settings.election_ticks_max * 2):
            if core.term != term or core.server.asking or core.role is Role.LEADER:
                break
            self._advance(TICK_NS)
            core.tick()
            self._carry_out(name)

    def deliver(self, envelope: Envelope, *, keep: bool = False) -> None:
        """Deliver a message; to a server that is down it is lost."""
        self._note(f"deliver {envelope.id} {'keep' if keep else ''}".rstrip())
        if not keep:
            self.in_flight.remove(envelope)
        node, message = self.nodes[envelope.to], envelope.message
        if node.core is None:
            self._report_transfer(envelope, ok=False)
        elif isinstance(message, InstallSnapshotRequest):
            assert envelope.file is not None, "a snapshot's file travels beside it"
            meta = node.receive_snapshot(message, envelope.file)
            node.core.snapshot_received(envelope.source, message, envelope.id, envelope.frame, meta)
            self._carry_out(envelope.to)
            self._report_transfer(envelope, ok=True)
        else:
            node.core.step(envelope.source, message, envelope.id, envelope.frame)
            self._carry_out(envelope.to)

    def lose(self, envelope: Envelope) -> None:
        """Lose a message."""
        self._note(f"lose {envelope.id}")
        self.in_flight.remove(envelope)
        self._report_transfer(envelope, ok=False)

    def _report_transfer(self, envelope: Envelope, *, ok: bool) -> None:
        """Tell the driver that sent a snapshot what became of it, if it runs still."""
        source = self.nodes[envelope.source]
        if not isinstance(envelope.message, InstallSnapshotRequest) or source.core is None:
            return
        if envelope.id.startswith(f"{source.name}/{source.incarnation}/"):
            source.core.snapshot_sent(envelope.to, ok)
            self._carry_out(envelope.source)

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

    def lease_read(self, name: str, read_id: str) -> None:
        """A client reads, by the lease of the leader; refusals are shown."""
        self._note(f"lease-read {name} {read_id}")
        core = self.nodes[name].running
        self.observer.saw_read(read_id)
        if core.lease_read(read_id):
            self._count("read by lease")
            self._carry_out(name)
        else:
            self.output.append(f"{name} has no lease")

    def change(self, what: str, name: str, server: str) -> None:
        """A server is asked to change the configuration; refusals are shown."""
        self._note(f"{what} {name} {server}")
        core = self.nodes[name].running
        try:
            if server not in self.nodes:
                raise UnknownServer(server, self.names)
            core.change_configuration(CHANGES[what](core.configuration, server))
        except Refused as refusal:
            self.output.append(f"{name} refuses: {refusal}")
            return
        self._count("configuration changed")
        self._carry_out(name)

    def transfer(self, name: str, to: str | None = None) -> None:
        """A server is asked to hand its leadership over; refusals are shown."""
        self._note(f"transfer {name} {to or ''}".rstrip())
        try:
            self.nodes[name].running.transfer_leadership(to)
        except Refused as refusal:
            self.output.append(f"{name} refuses: {refusal}")
            return
        self._carry_out(name)

    def step_down(self, name: str) -> None:
        """A server is asked to lead no more."""
        self._note(f"step-down {name}")
        self.nodes[name].running.step_down("it was asked to")
        self._carry_out(name)

    def ended(self, name: str, peer: str) -> None:
        """A server gets evidence that a process of a peer has ended: the latest that did."""
        self._note(f"ended {name} {peer}")
        core, node = self.nodes[name].running, self.nodes[peer]
        ended = node.incarnation if node.core is None else node.incarnation - 1
        if ended:
            core.process_ended(peer, ended)
            self._carry_out(name)

    def snapshot(self, name: str) -> None:
        """A server takes a snapshot of what it has applied."""
        self._note(f"snapshot {name}")
        if self.nodes[name].take_snapshot():
            self._count("snapshot taken")
            self._carry_out(name)

    def append(self, name: str, count: int = 1) -> None:
        """The disk is given the next `count` writes: a power loss may keep them or not."""
        self._note(f"append {name} {count}")
        with self._powered(name):
            self.nodes[name].append(count)

    def sync(self, name: str) -> None:
        """The disk confirms everything that it was given."""
        self._note(f"sync {name}")
        with self._powered(name):
            self.nodes[name].sync()
        if self.is_up(name):
            self._carry_out(name)

    def spare(self, name: str, steps: int = 1) -> None:
        """Another thread makes the log's next segment ahead, if one is wanted: so many changes of the disk."""
        self._note(f"spare {name} {steps}")
        with self._powered(name):
            self._count("segment made ahead", self.nodes[name].make_spare(steps))

    def fail_power(self, name: str, changes: int, keep: int = 0, torn_bytes: int = 0) -> None:
        """After so many more changes of its disk a server will lose its power, in whatever it then is about."""
        self._note(f"fail-power {name} {changes} {keep} {torn_bytes}")
        self.nodes[name].fail_power_after(changes)
        self._failing[name] = keep, torn_bytes

    def crash(self, name: str, keep: int = 0, torn_bytes: int = 0) -> None:
        """Power loss at one server: of what was not synced, `keep` changes survive, and some bytes of the next."""
        self._note(f"crash {name} {keep} {torn_bytes}")
        self.nodes[name].crash(keep, torn_bytes)
        self._crashed(name)

    def scatter(self, name: str, seed: int) -> None:
        """Power loss at one server whose disk reorders: of what was not synced, any sectors survive."""
        self._note(f"scatter {name} {seed}")
        self.nodes[name].crash_scattered(seed)
        self._crashed(name)

    @contextmanager
    def _powered(self, name: str) -> Iterator[None]:
        try:
            yield
        except PowerFailed:
            self.output.append(f"{name} loses its power")
            self._count("power failed in a call")
            self.nodes[name].lose_power(*self._failing[name])
            self._crashed(name)

    def _crashed(self, name: str) -> None:
        self._held.discard(name)
        self._failing.pop(name, None)
        if self.replay is not None:
            self.replay.crashed(name)

    def restart(self, name: str) -> None:
        """Start a crashed server."""
        self._note(f"restart {name}")
        with self._powered(name):
            self._start(name)

    def cut(self, source: str, to: str) -> None:
        """From now on no message gets from `source` to `to`; those on their way are lost."""
        self._note(f"cut {source} {to}")
        self._cuts.add((source, to))
        for envelope in [found for found in self.in_flight if (found.source, found.to) == (source, to)]:
            self.in_flight.remove(envelope)
            self._report_transfer(envelope, ok=False)

    def heal(self) -> None:
        """Undo every cut; no power is about to fail any more."""
        self._note("heal")
        self._cuts.clear()
        for name in sorted(self._failing):
            self.nodes[name].fail_power_after(None)
        self._failing.clear()

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
            if self.is_up(name):
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

        One line of the transcript: run again, a shorter schedule is healed in its own way, and judged.
        """
        self._note("heal-and-check")
        self._healing = True
        self.heal()
        for name in self.names:
            if not self.is_up(name):
                self.restart(name)
            self.release(name)
        leader = self._agreement()
        self._check_calm(leader)
        self.observer.look_at_the_end(leader.configuration.names)
        self._healing = False

    def _agreement(self) -> Core:
        """The leader of an agreement that has lasted for a heartbeat: by then all its followers have heard from it. Who
        has not may campaign right after the servers agreed, as a member should that was cut off until then.
        """
        agreed_term, since = 0, 0
        for ticks in range(HEALING_TICKS_MAX):
            self.settle()
            leader = self._agreed_leader()
            term = 0 if leader is None else leader.term
            if term != agreed_term:
                agreed_term, since = term, ticks
            elif leader is not None and ticks - since >= leader.server.settings.heartbeat_ticks:
                return leader
            self.pass_time()
        states = "; ".join(self.status(name) for name in self.names)
        raise Violation(Property.LIVENESS, f"no agreement within {HEALING_TICKS_MAX} ticks: {states}")

    def _agreed_leader(self) -> Core | None:
        """The leader, if all members follow it and have applied the same log to its end, and it takes new entries."""
        for name in self.leaders():
            leader = self.nodes[name].running
            cores = [self.nodes[member].running for member in leader.configuration.names]
            states = {(core.term, core.leader_id, core.last_applied, core.last_index) for core in [leader, *cores]}
            idle = leader.last_applied == leader.last_index and leader.server.transferee is None
            if len(states) == 1 and idle and leader in cores:
                return leader
        return None

    def _check_calm(self, leader: Core) -> None:
        """Who does not belong to the cluster any more does not disturb it."""
        if len(leader.configuration.names) == len(self.names):
            return
        term = leader.term
        for _ in range(CALM_TICKS // CALM_STEP):
            self.pass_time(CALM_STEP)
            self.settle()
            if leader.role is not Role.LEADER or leader.term != term:
                states = "; ".join(self.status(name) for name in self.names)
                raise Violation(Property.LIVENESS, f"the cluster is disturbed from outside: {states}")

    def status(self, name: str) -> str:
        """One line about a server."""
        return describe_server(name, self.nodes[name].core)

    # What the driver of an agent does.

    def _start(self, name: str) -> None:
        try:
            core = self.nodes[name].start(self.real_ns)
        except StorageError as error:
            raise Violation(Property.RESTARTS, f"{name} cannot read its log: {error}") from error
        incarnation = self.nodes[name].incarnation
        if self.replay is not None:
            self.replay.restart(name, core.trace_state(), self.nodes[name].clock(self.real_ns))
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
        lost, self._unreported = self._unreported, []
        for envelope in lost:
            self._report_transfer(envelope, ok=False)

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
        sent = [*ready.messages, *ready.snapshots]
        encoded = [encode(message) for _, message in sent]
        frames = [crc32(frame) for frame in encoded]
        if self.traces is not None:
            self.traces.happened(name, ready.events, frames)
        for (to, message), wire, frame in zip(sent, encoded, frames, strict=True):
            self.observer.saw_message(name, to, message)
            file = node.file(message.checksum) if isinstance(message, InstallSnapshotRequest) else None
            self._post(Envelope(f"{name}/{node.incarnation}/{message.sequence}", name, to, decode(wire), frame, file))
        if ready.restore is not None:
            self.output.append(f"{name} restores the snapshot of index {ready.restore.index}")
            self.observer.saw_restored(name, node.restore(ready.restore))
            self._count("snapshot restored")
        self.observer.saw_applied(name, ready.committed)
        for entry in ready.committed:
            self._applied(node, entry)
        for read in ready.reads:
            self.output.append(f"{name} answers {read.id} at index {read.index}")
            self.observer.saw_answer(name, read, len(node.applied))
            self._count("read answered")
        self.output.extend(f"{name} fails {read.id}: {read.reason}" for read in ready.failed_reads)
        self.output.extend(f"{name} keeps leading: {failed.reason}" for failed in ready.transfers_failed)
        for lost in ready.lost:
            self.output.append(
                f"{name} lost {lost.first_index}..{lost.last_index} of term {lost.term}: outcome unknown"
            )

    def _post(self, envelope: Envelope) -> None:
        cut = (envelope.source, envelope.to) in self._cuts
        self.output.append(
            f"{envelope.source} -> {envelope.to} {describe_message(envelope.message)}{' (cut)' if cut else ''}"
        )
        if cut:
            self._unreported.append(envelope)
            return
        self.in_flight.append(envelope)
        self._unreported += self.in_flight[:-MESSAGES_MAX]
        del self.in_flight[:-MESSAGES_MAX]

    def _applied(self, node: Node, entry: Entry) -> None:
        self.output.append(f"{node.name} applies {entry.index} ({describe_entry(entry)}, term {entry.term})")
        self._count("applied")
        client = (f"{node.name}/{node.incarnation}", entry.index, entry.term)
        if self._proposed.pop(client, None) is not None:
            self.observer.saw_acknowledgement(entry)
            self._count("acknowledged")

    def _note(self, line: str) -> None:
        if not self._healing:
            self.transcript.append(line)
        self._count(line.partition(" ")[0])

    def _count(self, what: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times
