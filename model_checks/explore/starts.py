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

from spec.raft.actions import ACTIONS, CLOCKED
from spec.raft.bounds import Bounds
from spec.raft.messages import Message
from spec.raft.network import Transition, World, handler, initial_world, sends, settled, take, transition
from spec.raft.types import Configuration, Constants, Index, Server, ServerId, Term, Time

UNBOUNDED = Bounds(max_term=99, max_log=99, max_issued=99, max_restarts=99)


class Script:
    """A world that takes the steps that it is told to take, all of them steps of the spec."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        """The cluster of the script and its features: exploration goes on within bounds of the same."""
        self.c = bounds.constants()
        self.world = initial_world(self.c)
        self.steps: list[Transition] = []
        """Every step taken, in order, with the sends that each state allowed: all that led to `world`."""

    def server(self, i: ServerId) -> Server:
        """The state of server `i`."""
        return self.world.servers[self.c.servers.index(i)]

    def step(self, i: ServerId, action: str, *arguments: object) -> tuple[Message, ...]:
        """Take one step, now; returns what it sent. Raises ValueError if it is not enabled."""
        if action in CLOCKED:
            arguments = (*arguments, self.world.now)
        found = transition(ACTIONS, self.c, i, self.server(i), action, *arguments)
        after = None if found is None else take(self.c, UNBOUNDED, self.world, found)
        if found is None or after is None:
            raise ValueError(f"{action}{arguments} is not enabled in server {i}: {self.server(i)}")
        self.world = settled(ACTIONS, self.c, after, i)
        self.steps += [found, *sends(ACTIONS, self.c, i, found.after)]
        return found.outcome.sent

    def wait(self, time: Time) -> None:
        """The clocks advance by `time`."""
        self.world = replace(self.world, now=self.world.now + time)

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
        self.campaign(i, term)
        for voter in voters:
            self.receive(voter, self.step(i, "request_vote", voter))
            self.receive(i, self.step(voter, "vote_response", i, True))
        self.step(i, "become_leader")

    def campaign(self, i: ServerId, term: Term) -> None:
        """Server `i` times out until it is a candidate of `term`, on its disk too."""
        while self.server(i).current_term < term:
            self.step(i, "timeout")
            self.persist(i)

    def append(self, i: ServerId, value: str = "x") -> None:
        """Leader `i` appends an entry, on its disk too."""
        self.step(i, "client_request", value)
        self.persist(i)

    def replicate(self, i: ServerId, to: ServerId, prev: Index, last: Index) -> None:
        """Leader `i` brings its entries (prev, last] to the disk of `to`, and hears of it."""
        self.receive(to, self.step(i, "append_entries", to, prev, last))
        self.receive(i, self.step(to, "append_entries_response", i, True, last))

    def commit(self, i: ServerId, to: ServerId) -> None:
        """Leader `i` brings the last entry of its log to `to`, commits it, tells `to`; both have applied it."""
        last = self.server(i).log.length
        self.replicate(i, to, last - 1, last)
        if self.server(i).commit_index < last:
            self.step(i, "advance_commit_index", last)
        self.replicate(i, to, last, last)
        for server in (i, to):
            if self.server(server).last_applied < last:
                self.step(server, "apply")

    def compact(self, i: ServerId, index: Index) -> None:
        """Server `i` takes a snapshot of what it applied up to `index` and forgets the log up to there."""
        self.step(i, "take_snapshot", index)
        self.step(i, "compact", index)
        self.persist(i)

    def change(self, i: ServerId, voters: str, nonvoters: str = "") -> None:
        """Leader `i` proposes a configuration (names separated by blanks); it is on its disk."""
        allowed_by = self.server(i).commit_index
        proposed = Configuration(tuple(voters.split()), tuple(nonvoters.split()), allowed_by)
        self.step(i, "change_configuration", proposed)
        self.persist(i)


def elected() -> Script:
    """s1 leads term 1 by the vote of s2; its log is empty."""
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    return script


def figure_8() -> Script:
    """Ongaro 2014, figure 3.7 (figure 8 of the paper), before its step (c), with three servers.

    s1 led term 1 and appended an entry that nobody else has; s3 led term 2 and did the same; s1 leads term 3.
    Replicating its old entry does not make it safe: s3 may still be elected in term 4.
    """
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.elect("s3", 2, "s2")
    script.append("s3")
    script.receive("s1", script.step("s3", "vote_response", "s1", False))
    script.elect("s1", 3, "s2")
    return script


def deposed_leader() -> Script:
    """s1 led term 1 and committed an entry; s2 leads term 2, which s1 has not heard of (section 6.4: stale reads)."""
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.replicate("s1", "s2", 0, 1)
    script.step("s1", "advance_commit_index", 1)
    script.elect("s2", 2, "s3")
    return script


def replicated() -> Script:
    """s1 leads term 1; s2 holds its two entries, of which the first is committed; s3 has heard of nothing."""
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.replicate("s1", "s2", 0, 1)
    script.step("s1", "advance_commit_index", 1)
    script.append("s1")
    script.replicate("s1", "s2", 1, 2)
    return script


def diverged() -> Script:
    """s1 led term 1 and has an entry that nobody else has; s2 leads term 2 and has another, not on its disk yet."""
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.elect("s2", 2, "s3")
    script.step("s2", "client_request", "x")
    return script


def orphaned() -> Script:
    """s1 led term 1, sent s2 an entry before its own disk held it, and crashed; s3 leads term 2 by the vote of s1."""
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    script.step("s1", "client_request", "x")
    script.receive("s2", script.step("s1", "append_entries", "s2", 0, 1))
    script.step("s1", "crash_restart", 0)
    script.elect("s3", 2, "s1")
    script.world = replace(script.world, history=replace(script.world.history, restarts=0))
    return script


def voters(*configurations: str) -> tuple[Configuration, ...]:
    """Configurations of voters only, whose names are separated by blanks: what leaders may propose after a start."""
    return tuple(Configuration(tuple(names.split())) for names in configurations)


LEASES = Bounds(election_timeout=2, lease=1)
"""The features of the starts with leases: a lease of 1 is over before anybody votes, after 2."""


def committed() -> Script:
    """s1 leads term 1; its first entry is committed and applied, by s2 too; s3 has heard of nothing."""
    script = Script(Bounds())
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.commit("s1", "s2")
    return script


def compacted() -> Script:
    """As `committed`; and s1 has forgotten its entry, which s3 can only get by a snapshot."""
    script = committed()
    script.compact("s1", 1)
    return script


def kept_suffix() -> Script:
    """s1 leads term 1 with two entries, of which its snapshot covers the first; s2 holds both, on its disk too."""
    script = compacted()
    script.append("s1")
    script.replicate("s1", "s2", 1, 2)
    return script


def conflicting() -> Script:
    """s3 led term 1 and has an entry that nobody else has; s1 leads term 2, committed another and compacted its log."""
    script = Script(Bounds())
    script.elect("s3", 1, "s2")
    script.append("s3")
    script.elect("s1", 2, "s2")
    script.append("s1")
    script.commit("s1", "s2")
    script.compact("s1", 1)
    return script


def two_snapshots() -> Script:
    """s1 leads term 1 and sent s2 its snapshot after one entry, then the second entry; s2 compacted both away."""
    script = compacted()
    script.append("s1")
    script.commit("s1", "s2")
    script.compact("s2", 2)
    return script


def own_term() -> Script:
    """Two leaders that change the configuration at once (Ongaro, raft-dev, 2015), four servers.

    s1 leads term 1, committed an entry, and removes s4, of which nobody has heard; s2 leads term 2 by the votes of s3
    and s4, has committed nothing of its own term, and wants to remove s1. Majorities of what they propose do not meet.
    s1, which has heard of term 2 only, campaigns in term 3.
    """
    script = Script(Bounds(servers=4))
    script.elect("s1", 1, "s2", "s3")
    script.append("s1")
    for follower in ("s2", "s3", "s4"):
        script.receive(follower, script.step("s1", "append_entries", follower, 0, 1))
        script.receive("s1", script.step(follower, "append_entries_response", "s1", True, 1))
    script.step("s1", "advance_commit_index", 1)
    script.change("s1", "s1 s2 s3")
    script.elect("s2", 2, "s3", "s4")
    script.receive("s1", script.step("s2", "vote_response", "s1", False))
    script.campaign("s1", 3)
    return script


def leader_leaves() -> Script:
    """s1 leads term 1, committed an entry, and proposed a configuration without itself, which s2 holds."""
    script = committed()
    script.change("s1", "s2 s3")
    script.replicate("s1", "s2", 1, 2)
    return script


def leader_left() -> Script:
    """s1 leads term 1 of four servers and still does after all hold a configuration without it; s2 alone holds more.

    s3 campaigns in term 2.
    """
    script = Script(Bounds(servers=4))
    script.elect("s1", 1, "s2", "s3")
    script.append("s1")
    for follower in ("s2", "s3"):
        script.replicate("s1", follower, 0, 1)
    script.step("s1", "advance_commit_index", 1)
    script.change("s1", "s2 s3 s4")
    for follower in ("s2", "s3", "s4"):
        script.replicate("s1", follower, 0, 2)
    script.append("s1")
    script.replicate("s1", "s2", 2, 3)
    script.campaign("s3", 2)
    return script


def learner() -> Script:
    """s1 and s2 vote, s1 leads term 1; s3 has joined without a vote, which is committed, and holds the log."""
    script = Script(Bounds(genesis=2))
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.commit("s1", "s2")
    script.change("s1", "s1 s2", "s3")
    script.replicate("s1", "s3", 0, 2)
    script.commit("s1", "s2")
    return script


def learner_ahead() -> Script:
    """Three servers vote, s1 leads term 1; s4 has joined without a vote, and holds an entry that only s1 has, too.

    s3 campaigns in term 2.
    """
    script = Script(Bounds(servers=4, genesis=3))
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.commit("s1", "s2")
    script.change("s1", "s1 s2 s3", "s4")
    for follower in ("s2", "s3", "s4"):
        script.replicate("s1", follower, 0, 2)
    script.append("s1")
    script.replicate("s1", "s4", 2, 3)
    script.campaign("s3", 2)
    return script


def leased() -> Script:
    """s1 leads term 1 and has committed an entry that all hold; it has just appended another.

    s2 has just answered a round, so that s1 has a lease; s3 has heard of nothing for so long that it may campaign.
    """
    script = Script(LEASES)
    script.wait(2)
    script.elect("s1", 1, "s2")
    script.append("s1")
    script.commit("s1", "s3")
    script.wait(2)
    script.step("s1", "begin_round")
    script.commit("s1", "s2")
    script.append("s1")
    return script


def challenged() -> Script:
    """As `leased`, and s3 campaigns in term 2."""
    script = leased()
    script.campaign("s3", 2)
    return script


def lease_over() -> Script:
    """As `leased`, but so much later that the lease has ended and the others may vote; s1 has begun another round."""
    script = leased()
    script.wait(2)
    script.step("s1", "begin_round")
    return script


def transferring() -> Script:
    """As `leased`, and s1 transfers its leadership."""
    script = leased()
    script.step("s1", "transfer_leadership")
    return script


SCRIPTS: Final[Mapping[str, Callable[[], Script]]] = {
    script.__name__: script
    for script in (
        elected,
        figure_8,
        deposed_leader,
        replicated,
        diverged,
        orphaned,
        committed,
        compacted,
        kept_suffix,
        conflicting,
        two_snapshots,
        own_term,
        leader_leaves,
        leader_left,
        learner,
        learner_ahead,
        leased,
        challenged,
        lease_over,
        transferring,
    )
}
"""The scripted starts by name. Most have three servers, and no feature beyond chapter 3 but what they show."""


def initial(bounds: Bounds) -> World:
    """The initial world."""
    return initial_world(bounds.constants())


def seeded(name: str) -> Callable[[Bounds], World]:
    """The start at the end of a script. Raises ValueError if the bounds speak of another cluster."""

    def start(bounds: Bounds) -> World:
        script = SCRIPTS[name]()
        if bounds.constants() != script.c:
            raise ValueError(f"start {name} is one of {script.c}, the bounds are of {bounds.constants()}")
        return script.world

    return start


STARTS: Final[Mapping[str, Callable[[Bounds], World]]] = {
    "initial": initial,
    **{name: seeded(name) for name in SCRIPTS},
}
"""Starts by name, each a function of the bounds: the worlds in which exploration begins."""


def scripted_steps(name: str) -> tuple[Constants, tuple[Transition, ...]]:
    """The steps that lead to start `name`, sends included, and the constants that they are steps of: for linking."""
    if name == "initial":
        return Bounds().constants(), ()
    script = SCRIPTS[name]()
    return script.c, tuple(dict.fromkeys(script.steps))
