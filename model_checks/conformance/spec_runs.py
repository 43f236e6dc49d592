"""Runs of the spec itself, written as traces: the reference writer of the format, and what conformance must accept.

`SpecCluster` takes random steps of the spec's servers (`spec_nodes`), from a seed, over a network that delays,
duplicates and loses messages, with disks that lose what was not confirmed, on one clock, while members come and go.
With `actions` from a broken spec it writes what a broken implementation would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec

from model_checks.conformance.entries import Payloads
from model_checks.conformance.spec_nodes import NOOP, Ended, Lines, Node
from spec.catalog.commands import Get, Keys, List, Request
from spec.catalog.state import State
from spec.raft.actions import ACTIONS, Action
from spec.raft.messages import Message
from spec.raft.types import Constants, Role, Value

REQUESTS: list[Request] = [Get("k1"), Get("k2"), List("k"), List(""), Keys("", "1"), Keys("k", "")]
TICK_NS = 1_000
ELECTION_NS, LEASE_NS = 150 * TICK_NS, 130 * TICK_NS
"""So short that leaders change often, so long that most leases hold when they are asked."""
SNAPSHOT_EVERY, TRAILING = 12, 4
SEEDS_MAX = 50


class SpecCluster:
    """A cluster of the spec, run at random from a seed; `actions` may be a broken spec, `spares` servers that no one
    has added yet.
    """

    def __init__(
        self, seed: int, servers: int = 3, actions: Mapping[str, Action] | None = None, spares: int = 1
    ) -> None:
        self.random = Random(seed)
        names = tuple(f"s{number}" for number in range(1, servers + spares + 1))
        self.constants = Constants(names, names[:servers], ELECTION_NS, LEASE_NS, pre_vote=True)
        self.actions: Mapping[str, Action] = {**ACTIONS, **(actions or {})}
        self.payloads = Payloads()
        self.states: dict[Value, State] = {}
        self.network: list[tuple[str, Message, int]] = []
        self.ended: list[Ended] = []
        self.reads: dict[str, tuple[str, Request]] = {}
        self.lines: Lines = {}
        self.clock = TICK_NS
        self.nodes = [Node(name, self) for name in names]

    def tick(self) -> int:
        """The next instant, in nanoseconds."""
        self.clock += TICK_NS
        return self.clock

    def run(self, steps: int) -> SpecCluster:
        """Take `steps` random actions."""
        for _ in range(steps):
            self.step(self.random.choice(self.nodes))
        return self

    def step(self, node: Node) -> None:
        """One random action; elections and crashes are rare."""
        chance = self.random.random()
        if self.network and chance < 0.5:
            place = self.random.randrange(len(self.network))
            id, message, frame = self.network[place]
            if self.random.random() < 0.9:
                self.network.pop(place)
            next(n for n in self.nodes if n.name == message.dest).receive(id, message, frame)
        elif chance < 0.65:
            node.persist()
        elif chance < 0.75:
            node.respond()
        elif chance < 0.98:
            self.lead(node) if node.server.role is Role.LEADER else self.follow(node)
        elif chance < 0.985:
            node.crash()
        if node.server.last_applied >= node.server.memory.snapshot + SNAPSHOT_EVERY:
            node.snapshot(TRAILING)
        if self.random.random() < 0.1:
            node.answer_read("stale", self.random.choice(REQUESTS))
        self.tick()

    def follow(self, node: Node) -> None:
        """What a follower or candidate does by itself."""
        node.apply()
        node.answer_reads()
        if self.random.random() < 0.2:
            node.believe_the_end()
        if self.random.random() < 0.1:
            for peer in node.configuration.voters:
                node.send("request_pre_vote", peer)
        if self.random.random() < 0.5 and (node.server.role is Role.FOLLOWER or self.random.random() < 0.1):
            node.take("timeout")
        if node.server.role is Role.CANDIDATE:
            for peer in node.configuration.voters:
                node.send("request_vote", peer)
            if node.take("become_leader"):
                node.propose([NOOP])

    def lead(self, node: Node) -> None:
        """What a leader does by itself."""
        if self.random.random() < 0.5:
            node.take("begin_round")
        self.replicate(node)
        for index in range(node.server.log.length, node.server.commit_index, -1):
            if node.take("advance_commit_index", index, index=index):
                break
        node.apply()
        if self.random.random() < 0.5:
            node.propose([random_payload(self.random) for _ in range(self.random.randint(1, 3))])
        if self.random.random() < 0.6:
            node.read(self.random.choice(["consistent", "default"]), self.random.choice(REQUESTS))
        node.answer_reads()
        if self.random.random() < 0.15:
            self.reconfigure(node)
        if self.random.random() < 0.02:
            node.take("transfer_leadership")
        if node.server.transferring:
            node.send("timeout_now", self.random.choice(node.configuration.members))
        if self.random.random() < 0.02:
            node.take("step_down", reason="it was asked to")

    def replicate(self, node: Node) -> None:
        """Send every member a slice of the log, or the snapshot to who is behind the log."""
        length = node.server.log.length
        base = min(node.server.memory.base, length)
        for name, known in node.server.match_index:
            if known < base or self.random.random() < 0.02:
                node.send("install_snapshot", name)
            prev = min(length, max(base, self.random.choice([known, known, self.random.randint(base, length)])))
            node.send("append_entries", name, prev, self.random.randint(prev, length))

    def reconfigure(self, node: Node) -> None:
        """Change one server's status, but leave at least two voters if there are two."""
        voters, nonvoters = set(node.configuration.voters), set(node.configuration.nonvoters)
        name = self.random.choice(self.constants.servers)
        status = self.random.choice(["voter", "nonvoter", "absent"])
        voters.discard(name)
        nonvoters.discard(name)
        if status == "voter":
            voters.add(name)
        elif status == "nonvoter":
            nonvoters.add(name)
        if len(voters) >= min(2, len(self.constants.voters)):
            node.reconfigure(voters, nonvoters)


def rich_run(steps: int) -> Lines:
    """The traces of the first run, by seed, in which a cluster of three and a spare takes every step of the spec."""
    for seed in range(1, SEEDS_MAX):
        lines = SpecCluster(seed).run(steps).lines
        taken = {line.get("action") for of_file in lines.values() for line in of_file}
        if taken >= ACTIONS.keys() - {"crash_restart"}:
            return lines
    raise RuntimeError(f"{SEEDS_MAX} runs of {steps} steps, and none took every step: take longer ones")


def random_payload(random: Random) -> bytes:
    """A write over few keys, so that they meet."""
    key, value, index = f"k{random.randint(1, 3)}", random.randbytes(2), random.randint(0, 9)
    commands = [
        ["kv-set", key, value, 0],
        ["kv-cas", key, value, 7, index],
        ["kv-delete", key],
        ["kv-delete-cas", key, index],
        ["kv-delete-tree", "k"],
    ]
    return msgspec.msgpack.encode(random.choices(commands, [6, 2, 1, 1, 1])[0])


def written(lines: Lines, directory: Path) -> Path:
    """Write the traces into `directory`, and return it."""
    for name, of_file in lines.items():
        (directory / name).write_text("".join(f"{json.dumps(line)}\n" for line in of_file))
    return directory
