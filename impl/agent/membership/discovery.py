"""Which servers there are, and when they may form a cluster: a decision table over what they say of themselves.

A cluster forms only when all `bootstrap_expect` servers name the same set of (name, node id, storage id), are reachable
and hold no log. Then each of them writes the same genesis, since it is a function of that set. A server whose peers
already have a genesis adopts it: if their newest configuration names it, it takes its place, otherwise it joins. If
that configuration names another server by its name or node id, or this one by another storage id, it is refused: it
could vote twice in a term.

Why two clusters cannot share a majority: a server writes one genesis, once, and its log is bound to it (the cluster id
is part of every handshake). The storage id is minted with the data directory and cannot be configured, so that a server
whose directory was lost never passes for the voter that remembers its votes, not even with the old `-node-id`.

This module must not do I/O: `impl/agent/membership/introductions.py` asks and is asked.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from impl.agent.config.validated import Address, parse_address
from impl.agent.requests.protocol import Discover, Discovered, Identity, ServerInfo
from impl.raft.configuration import Configuration, Member, first_configuration
from impl.runtime.interfaces import MILLISECONDS
from impl.storage.records import Genesis, Voter

FRESH_NS = 2_000 * MILLISECONDS
"""A reply older than this no longer says that its sender is reachable."""


class Refused(Exception):
    """This server cannot be part of the cluster. The text says why and what to do."""


class Conflict(Exception):
    """Another server has this one's name or node id. The text says what to do."""


def make_genesis(identities: list[Identity]) -> Genesis:
    """The genesis of the cluster that these servers form: a function of the set."""
    ordered = sorted(identities)
    named = sorted((node_id, name, storage_id) for name, node_id, storage_id in ordered)
    digest = blake2b(msgspec.msgpack.encode(named), digest_size=16)
    return Genesis(digest.hexdigest(), tuple(Voter(*identity) for identity in ordered))


def configuration_of(genesis: Genesis) -> Configuration:
    """The first configuration, at index 0."""
    return first_configuration([Member(voter.name, voter.node_id, voter.storage_id) for voter in genesis.voters])


def is_same(member: Member, server: ServerInfo) -> bool:
    """Whether the server is that member, with the memory that the cluster relies on."""
    return (member.name, member.node_id, member.storage_id) == server.identity


def objection(members: tuple[Member, ...], server: ServerInfo) -> str:
    """Why the server may not be, or become, one of these members; "" if it may. The text says what to do."""
    for member in members:
        if member.name == server.name and member.node_id != server.node_id:
            return (
                f"the cluster knows {server.name!r} by node ID {member.node_id}, and this is {server.node_id}: give it "
                f"another -node name if that one still runs; otherwise restore the data directory of that one, or run "
                f"`comitia operator raft remove-peer -id={member.node_id}` and start this server again"
            )
        if member.name == server.name and member.storage_id != server.storage_id:
            return (
                f"data directory lost: {server.name!r} ({member.node_id}) voted with storage {member.storage_id}, and "
                f"this is storage {server.storage_id}, which remembers none of its votes: run "
                f"`comitia operator raft remove-peer -id={member.node_id}`, then start this server again"
            )
        if member.node_id == server.node_id and member.name != server.name:
            return (
                f"the cluster knows node ID {server.node_id} by the name {member.name!r}: "
                f"give every server its own -data-dir and -node-id"
            )
    return ""


class Discovery:
    """What one agent knows of the servers."""

    def __init__(self, myself: ServerInfo | None, bootstrap_expect: int, genesis: Genesis | None) -> None:
        """`myself` is None for a client agent."""
        self.myself = myself
        self.bootstrap_expect = bootstrap_expect
        self.genesis = genesis
        self.configuration: Configuration | None = None
        """The newest that is known to be committed, of this server's own log or by hearsay; None: the genesis."""
        self.in_force: Configuration | None = None
        """The newest of this server's own log, committed or not."""
        self.known: dict[str, ServerInfo] = {}
        """Other servers by name, each as it last spoke of itself, or as another one passed it on."""
        self._replies: dict[str, tuple[int, Discovered]] = {}

    def introduction(self) -> Discover:
        """What to say to another server."""
        return Discover(self.myself, tuple(sorted(self.known.values())))

    def answer(self, now_ns: int) -> Discovered:
        """What a server answers to an introduction."""
        assert self.myself is not None, "a client agent is not asked"
        known = tuple(sorted(self.known.values()))
        candidates = tuple(self.candidates(now_ns)) if self.genesis is None else ()
        latest = self.latest()
        return Discovered(
            self.myself, self.bootstrap_expect, self.genesis, candidates, known, latest.members, latest.index
        )

    def latest(self) -> Configuration:
        """The newest configuration that is known to be committed; without members before a cluster is known."""
        if self.configuration is not None:
            return self.configuration
        return configuration_of(self.genesis) if self.genesis is not None else Configuration(())

    def roster(self) -> Configuration:
        """Whom this server takes for the members now."""
        latest = self.latest()
        return self.in_force if self.in_force is not None and self.in_force.index > latest.index else latest

    def configured(self, configuration: Configuration) -> None:
        """A configuration of this cluster is known to be committed."""
        if self.configuration is None or configuration.index > self.configuration.index:
            self.configuration = configuration

    def remember(self, servers: tuple[ServerInfo, ...]) -> None:
        """Servers met before the last restart: where to look first."""
        self._pass_on(servers)

    def hear(self, introduction: Discover) -> None:
        """Somebody introduced itself.

        Raises:
            Conflict: it has this server's name or node id.
        """
        if introduction.sender is not None:
            self._meet(introduction.sender)
        self._pass_on(introduction.known)

    def learn(self, reply: Discovered, now_ns: int) -> None:
        """A server answered.

        Raises:
            Conflict: it has this server's name or node id.
        """
        if reply.genesis is not None and reply.genesis == self.genesis:
            self.configured(Configuration(reply.members, index=reply.configuration_index))
        self._meet(reply.sender)
        self._pass_on(reply.known)
        if self.myself is not None and reply.sender.name == self.myself.name:
            return  # it asked itself, by an address that it did not know to be its own
        self._replies[reply.sender.name] = (now_ns, reply)

    def candidates(self, now_ns: int) -> list[Identity]:
        """The servers that this one would form a cluster with now: itself and all fresh, unformed ones."""
        assert self.myself is not None, "a client agent forms nothing"
        others = [
            reply.sender.identity
            for _, reply in self._fresh(now_ns)
            if reply.genesis is None and reply.bootstrap_expect == self.bootstrap_expect
        ]
        return sorted([self.myself.identity, *others])

    def decide(self, now_ns: int) -> Genesis | None:
        """The genesis to write now, if it is decided.

        Raises:
            Refused: the peers have formed a cluster that knows another server by this one's name, id or storage.
        """
        assert self.myself is not None, "a client agent forms nothing"
        formed = [reply for _, reply in self._fresh(now_ns) if reply.genesis is not None]
        if formed:
            return self._adopt(max(formed, key=lambda reply: reply.configuration_index))
        candidates = self.candidates(now_ns)
        if not self.bootstrap_expect or len(candidates) != self.bootstrap_expect:
            return None
        named = tuple(candidates)
        for _, reply in self._fresh(now_ns):
            if reply.sender.identity in candidates and reply.candidates != named:
                return None
        return make_genesis(candidates)

    def surplus(self, now_ns: int) -> list[str]:
        """Names of the servers in sight when there are more of them than expected: an operator must choose."""
        candidates = self.candidates(now_ns)
        return [name for name, _, _ in candidates] if len(candidates) > self.bootstrap_expect > 0 else []

    def addresses(self, join: tuple[Address, ...]) -> list[Address]:
        """Whom to ask: the configured addresses, those of every server heard of, and where members were when they were
        added, if nobody has met them since; without this one's own."""
        unmet = [m.address for m in self.roster().members if m.address and m.name not in self.known]
        found = {*join, *(server.address for server in self.known.values()), *(parse_address(text) for text in unmet)}
        if self.myself is not None:
            found.discard(self.myself.address)
        return sorted(found)

    def _fresh(self, now_ns: int) -> list[tuple[int, Discovered]]:
        return [(at, reply) for _, (at, reply) in sorted(self._replies.items()) if now_ns - at <= FRESH_NS]

    def _meet(self, server: ServerInfo) -> None:
        """A server spoke of itself: this is where it is now."""
        mine = self.myself
        if mine is not None:
            if server.name == mine.name and server.node_id != mine.node_id:
                raise Conflict(
                    f"another server is named {mine.name!r} (node ID {server.node_id}, at {server.address}): "
                    f"give one of the two another -node name"
                )
            if server.name == mine.name and server.storage_id != mine.storage_id:
                raise Conflict(
                    f"another server has the name {mine.name!r} and the node ID {mine.node_id} (at {server.address}, "
                    f"with storage {server.storage_id}): stop one of the two"
                )
            if server.node_id == mine.node_id and server.name != mine.name:
                raise Conflict(
                    f"server {server.name!r} at {server.address} has this server's node ID {mine.node_id}: "
                    f"give each server its own -data-dir and -node-id"
                )
            if server.name == mine.name:
                return
        if self._is_impostor(server):
            return
        self.known[server.name] = server

    def _is_impostor(self, server: ServerInfo) -> bool:
        """Whether the cluster knows another server of this name: nothing may be sent to this one in its place."""
        return any(member.name == server.name and not is_same(member, server) for member in self.roster().members)

    def _pass_on(self, servers: tuple[ServerInfo, ...]) -> None:
        """Hearsay: fills gaps, and says where a server that was started again is now; it accuses nobody."""
        for server in servers:
            if (self.myself is not None and server.name == self.myself.name) or self._is_impostor(server):
                continue
            known = self.known.setdefault(server.name, server)
            if known.node_id == server.node_id and known.incarnation < server.incarnation:
                self.known[server.name] = server

    def _adopt(self, reply: Discovered) -> Genesis:
        assert self.myself is not None and reply.genesis is not None, "a server adopts the genesis of one that formed"
        if text := objection(reply.members, self.myself):
            raise Refused(f"cluster {reply.genesis.cluster_id} (from {reply.sender.name!r}): {text}")
        return reply.genesis
