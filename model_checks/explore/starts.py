"""Starts of exploration: the initial world, and named worlds in the middle of the protocol for what lies too deep for
it.

A seeded start is a script of real steps from the initial world: every line names a server, an action of the spec and
its arguments, and a step that is not enabled stops the script. So a start is reachable by construction, and a
violation found from it is a violation of the protocol. What exploration from it does not see are the other ways to get
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from spec.raft.actions import ACTIONS
from spec.raft.bounds import Bounds
from spec.raft.messages import Message
from spec.raft.network import Transition, World, handler, initial_world, sends, settled, take, transition
from spec.raft.types import Constants, Index, Server, ServerId, Term

UNBOUNDED = Bounds(max_term=99, max_log=99, max_issued=99, max_restarts=99)


class Script:
    """A world that takes the steps that it is told to take, all of them steps of the spec."""

    def __init__(self, servers: int) -> None:
        self.c = Bounds(servers=servers).constants()
        self.world = initial_world(self.c)
        self.steps: list[Transition] = []
        """Every step taken, in order, with the sends that each state allowed: all that led to `world`."""

    def server(self, i: ServerId) -> Server:
        """The state of server `i`."""
        return self.world.servers[self.c.servers.index(i)]

    def step(self, i: ServerId, action: str, *arguments: object) -> tuple[Message, ...]:
        """Take one step; returns what it sent. Raises ValueError if it is not enabled."""
        found = transition(ACTIONS, self.c, i, self.server(i), action, *arguments)
        after = None if found is None else take(self.c, UNBOUNDED, self.world, found)
        if found is None or after is None:
            raise ValueError(f"{action}{arguments} is not enabled in server {i}: {self.server(i)}")
        self.world = settled(ACTIONS, self.c, after, i)
        self.steps += [found, *sends(ACTIONS, self.c, i, found.after)]
        return found.outcome.sent

    def persist(self, i: ServerId) -> None:
        """Server `i`'s disk confirms all that was issued."""
        if self.server(i).issued:
            self.step(i, "persist", len(self.server(i).issued))

    def receive(self, i: ServerId, messages: tuple[Message, ...]) -> None:
        """Server `i` handles messages, entering higher terms first, and its disk confirms all writes."""
        for m in messages:
            if m.term > self.server(i).current_term:
                self.step(i, "update_term", m)
            self.step(i, handler(m), m)
        self.persist(i)

    def elect(self, i: ServerId, term: Term, *voters: ServerId) -> None:
        """Server `i` times out until it is a candidate of `term`, and becomes leader by the votes of `voters`."""
        while self.server(i).current_term < term:
            self.step(i, "timeout")
            self.persist(i)
        for voter in voters:
            self.receive(voter, self.step(i, "request_vote", voter))
            self.receive(i, self.step(voter, "vote_response", i, True))
        self.step(i, "become_leader")

    def append(self, i: ServerId, value: str = "x") -> None:
        """Leader `i` appends an entry, on its disk too."""
        self.step(i, "client_request", value)
        self.persist(i)

    def replicate(self, i: ServerId, to: ServerId, prev: Index, last: Index) -> None:
        """Leader `i` brings its entries (prev, last] to the disk of `to`, and hears of it."""
        self.receive(to, self.step(i, "append_entries", to, prev, last))
        self.receive(i, self.step(to, "append_entries_response", i, True, last))


def elected() -> Script:
    """s1 leads term 1 by the vote of s2; its log is empty."""
    script = Script(3)
    script.elect("s1", 1, "s2")
    return script


def figure_8() -> Script:
    """Ongaro 2014, figure 3.7 (figure 8 of the paper), before its step (c), with three servers.

    s1 led term 1 and appended an entry that nobody else has; s3 led term 2 and did the same; s1 leads term 3.
    Replicating its old entry does not make it safe: s3 may still be elected in term 4.
    """
    script = Script(3)
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.elect("s3", 2, "s2")
    script.append("s3")
    script.receive("s1", script.step("s3", "vote_response", "s1", False))
    script.elect("s1", 3, "s2")
    return script


def deposed_leader() -> Script:
    """s1 led term 1 and committed an entry; s2 leads term 2, which s1 has not heard of (section 6.4: stale reads)."""
    script = Script(3)
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.replicate("s1", "s2", 0, 1)
    script.step("s1", "advance_commit_index", 1)
    script.elect("s2", 2, "s3")
    return script


def replicated() -> Script:
    """s1 leads term 1; s2 holds its two entries, of which the first is committed; s3 has heard of nothing."""
    script = Script(3)
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.replicate("s1", "s2", 0, 1)
    script.step("s1", "advance_commit_index", 1)
    script.append("s1")
    script.replicate("s1", "s2", 1, 2)
    return script


def diverged() -> Script:
    """s1 led term 1 and has an entry that nobody else has; s2 leads term 2 and has another, not on its disk yet."""
    script = Script(3)
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.elect("s2", 2, "s3")
    script.step("s2", "client_request", "x")
    return script


def orphaned() -> Script:
    """s1 led term 1, sent s2 an entry before its own disk held it, and crashed; s3 leads term 2 by the vote of s1."""
    script = Script(3)
    script.elect("s1", 1, "s2")
    script.step("s1", "client_request", "x")
    script.receive("s2", script.step("s1", "append_entries", "s2", 0, 1))
    script.step("s1", "crash_restart", 0)
    script.elect("s3", 2, "s1")
    script.world = replace(script.world, history=replace(script.world.history, restarts=0))
    return script


SCRIPTS: Final[Mapping[str, Callable[[], Script]]] = {
    script.__name__: script for script in (elected, figure_8, deposed_leader, replicated, diverged, orphaned)
}
"""The scripted starts by name. All have three servers."""


def initial(bounds: Bounds) -> World:
    """The initial world."""
    return initial_world(bounds.constants())


def seeded(script: Callable[[], Script]) -> Callable[[Bounds], World]:
    """The start at the end of a script, whatever the bounds."""
    return lambda bounds: script().world


STARTS: Final[Mapping[str, Callable[[Bounds], World]]] = {
    "initial": initial,
    **{name: seeded(script) for name, script in SCRIPTS.items()},
}
"""Starts by name, each a function of the bounds: the worlds in which exploration begins."""


def scripted_steps(name: str) -> tuple[Constants, tuple[Transition, ...]]:
    """The steps that lead to start `name`, sends included, and the constants that they are steps of: for linking."""
    if name == "initial":
        return Bounds().constants(), ()
    script = SCRIPTS[name]()
    return script.c, tuple(dict.fromkeys(script.steps))
