"""Which servers there are, and when they may form a cluster: a decision table over what they say of themselves.

A cluster forms only when all `bootstrap_expect` servers name the same set of (name, node id), are reachable and hold no
log. Then each of them writes the same genesis, since it is a function of that set. A server whose peers already have a
genesis that names it adopts it; one that it does not name is refused.

Why two clusters cannot share a majority: a server writes one genesis, once, and its log is bound to it (the cluster id
is part of every handshake). *Not covered:* a server whose data directory was removed but whose node id is given by flag
comes back under its old identity without its votes; `-node-id` must not be reused after a loss of the disk.

This module must not do I/O: `impl/agent/introductions.py` asks and is asked.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from impl.agent.config import Address
from impl.agent.protocol import Discover, Discovered, ServerInfo
from impl.runtime.interfaces import MILLISECONDS
from impl.storage.records import Genesis, Voter

FRESH_NS = 2_000 * MILLISECONDS
"""A reply older than this no longer says that its sender is reachable."""


class Refused(Exception):
    """This server cannot be part of the cluster. The text says why and what to do."""


class Conflict(Exception):
    """Another server has this one's name or node id. The text says what to do."""


def make_genesis(identities: list[tuple[str, str]]) -> Genesis:
    """The genesis of the cluster that these (name, node id) form: a function of the set."""
    ordered = sorted(identities)
    digest = blake2b(msgspec.msgpack.encode(sorted((node_id, name) for name, node_id in ordered)), digest_size=16)
    return Genesis(digest.hexdigest(), tuple(Voter(name, node_id) for name, node_id in ordered))


class Discovery:
    """What one agent knows of the servers."""

    def __init__(self, myself: ServerInfo | None, bootstrap_expect: int, genesis: Genesis | None) -> None:
        """`myself` is None for a client agent."""
        self.myself = myself
        self.bootstrap_expect = bootstrap_expect
        self.genesis = genesis
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
        return Discovered(self.myself, self.bootstrap_expect, self.genesis, candidates, known)

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
        self._meet(reply.sender)
        self._pass_on(reply.known)
        if self.myself is not None and reply.sender.name == self.myself.name:
            return  # it asked itself, by an address that it did not know to be its own
        self._replies[reply.sender.name] = (now_ns, reply)

    def candidates(self, now_ns: int) -> list[tuple[str, str]]:
        """The (name, node id) that this server would form a cluster with now: itself and all fresh, unformed ones."""
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
            Refused: the peers have formed a cluster that does not name this server.
        """
        assert self.myself is not None, "a client agent forms nothing"
        for _, reply in self._fresh(now_ns):
            if reply.genesis is not None:
                return self._adopt(reply.genesis, reply.sender)
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
        return [name for name, _ in candidates] if len(candidates) > self.bootstrap_expect > 0 else []

    def addresses(self, join: tuple[Address, ...]) -> list[Address]:
        """Whom to ask: the configured addresses and those of every server heard of, without this one's own."""
        found = {*join, *(server.address for server in self.known.values())}
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
        voters = self.genesis.voters if self.genesis is not None else ()
        return any(voter.name == server.name and voter.node_id != server.node_id for voter in voters)

    def _pass_on(self, servers: tuple[ServerInfo, ...]) -> None:
        """Hearsay: fills gaps, and says where a server that was started again is now; it accuses nobody."""
        for server in servers:
            if (self.myself is not None and server.name == self.myself.name) or self._is_impostor(server):
                continue
            known = self.known.setdefault(server.name, server)
            if known.node_id == server.node_id and known.incarnation < server.incarnation:
                self.known[server.name] = server

    def _adopt(self, genesis: Genesis, source: ServerInfo) -> Genesis:
        assert self.myself is not None, "a client agent adopts nothing"
        names = {voter.name: voter.node_id for voter in genesis.voters}
        listed = names.get(self.myself.name)
        if listed == self.myself.node_id:
            return genesis
        if listed is not None:
            raise Refused(
                f"cluster {genesis.cluster_id} knows {self.myself.name!r} by node ID {listed}, but this data directory "
                f"belongs to {self.myself.node_id}: give this server another -node name if that one still runs, "
                f"otherwise restore the data directory of that one"
            )
        raise Refused(
            f"cluster {genesis.cluster_id} (from {source.name!r} at {source.address}) has the servers "
            f"{', '.join(sorted(names))} and not {self.myself.name!r}: servers cannot be added yet; "
            f"start this one with other -retry-join addresses"
        )
