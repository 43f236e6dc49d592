"""The links to the other servers: one connection dialled to each, for Raft's messages only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.rpc.handshake import Hello, Refusal
from impl.rpc.peer_link import PeerLink
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Runtime


class LinkEvents(Protocol):
    """What the owner of the links hears and is asked."""

    def admit(self, hello: Hello) -> Refusal | None:
        """Whether Raft's messages may go to, or come from, this server."""
        ...

    def connected(self, hello: Hello) -> None:
        """The link to this peer is up."""
        ...

    def lost(self, peer: str) -> None:
        """The link to this peer was up and is down."""
        ...

    def refused(self, listened: Hello) -> None:
        """Nobody listens any more where this process listened."""
        ...


class PeerLinks:
    """Links by name. A peer that is found at another address gets a new one."""

    def __init__(
        self, runtime: Runtime, hello: Callable[[], Hello], timings: Timings, log: Log, events: LinkEvents
    ) -> None:
        self._runtime = runtime
        self._hello = hello
        self._timings = timings
        self._log = log
        self._events = events
        self._links: dict[str, tuple[Address, PeerLink]] = {}

    def dial(self, name: str, address: Address) -> None:
        """Keep a link to the peer at this address."""
        known = self._links.get(name)
        if known is not None:
            if known[0] == address:
                return
            known[1].close()
        link = PeerLink(
            self._runtime,
            self._hello,
            name,
            (address.host, address.port),
            self._timings,
            _Events(self._events, self._log, name, address),
            lambda text: self._log.warn("cannot reach peer", peer=name, address=str(address), error=text),
            self._events.admit,
        )
        self._links[name] = (address, link)

    def keep(self, names: set[str]) -> None:
        """Hang up on everybody else."""
        for name in sorted(self._links.keys() - names):
            address, link = self._links.pop(name)
            self._log.info("closing the link to a server that is no member", peer=name, address=str(address))
            link.close()

    def send(self, to: str, frame: bytes) -> None:
        """As `driver.Peers.send`."""
        known = self._links.get(to)
        if known is not None:
            known[1].send(frame)

    def nudge(self, name: str) -> None:
        """The peer has just dialled us: it is there, redial now."""
        known = self._links.get(name)
        if known is not None:
            known[1].nudge()

    def is_connected(self, name: str) -> bool:
        """Whether the link to the peer is up."""
        known = self._links.get(name)
        return known is not None and known[1].connected

    def describe(self) -> dict[str, dict[str, object]]:
        """For each peer: whether the link is up, and milliseconds since it last answered."""
        now = self._runtime.clock.monotonic_ns()
        return {
            name: {
                "address": str(address),
                "connected": link.connected,
                "last_contact_ms": (now - link.last_pong_ns) // 1_000_000 if link.last_pong_ns else None,
            }
            for name, (address, link) in sorted(self._links.items())
        }

    def close(self) -> None:
        """Close every link."""
        for _, link in self._links.values():
            link.close()
        self._links.clear()


class _Events:
    """A link's callbacks, with the peer that they are about."""

    def __init__(self, events: LinkEvents, log: Log, name: str, address: Address) -> None:
        self._events = events
        self._log = log
        self._name = name
        self._address = address
        self._listened: Hello | None = None
        """Who was met at the address last."""

    def connected(self, hello: Hello) -> None:
        """The handshake is done."""
        self._listened = hello
        self._log.info("connected to peer", peer=self._name, address=str(self._address))
        self._events.connected(hello)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self._log.warn("lost connection to peer", peer=self._name, address=str(self._address), reason=reason)
        self._events.lost(self._name)

    def refused(self) -> None:
        """Nobody listens at the address."""
        if self._listened is not None:
            self._events.refused(self._listened)
