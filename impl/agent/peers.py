"""The links to the other voters: one connection dialled to each, for Raft's messages only."""

from __future__ import annotations

from collections.abc import Callable

from impl.agent.config import Address
from impl.agent.logs import Log
from impl.rpc.handshake import Hello
from impl.rpc.peer_link import PeerLink
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Runtime


class PeerLinks:
    """Links by name. A peer that is found at another address gets a new one."""

    def __init__(
        self,
        runtime: Runtime,
        hello: Callable[[], Hello],
        timings: Timings,
        log: Log,
        connected: Callable[[str], None],
        lost: Callable[[str], None],
    ) -> None:
        """`connected` and `lost` are called with the peer's name."""
        self._runtime = runtime
        self._hello = hello
        self._timings = timings
        self._log = log
        self._connected = connected
        self._lost = lost
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
            _Events(self, name, address),
            lambda text: self._log.warn("cannot reach peer", peer=name, address=str(address), error=text),
        )
        self._links[name] = (address, link)

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

    def on_connected(self, name: str, address: Address) -> None:
        """A link is up."""
        self._log.info("connected to peer", peer=name, address=str(address))
        self._connected(name)

    def on_lost(self, name: str, address: Address, reason: str) -> None:
        """A link that was up is down."""
        self._log.warn("lost connection to peer", peer=name, address=str(address), reason=reason)
        self._lost(name)


class _Events:
    """A link's callbacks, with the peer that they are about."""

    def __init__(self, links: PeerLinks, name: str, address: Address) -> None:
        self._links = links
        self._name = name
        self._address = address

    def connected(self, hello: Hello) -> None:
        """The handshake is done."""
        self._links.on_connected(self._name, self._address)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self._links.on_lost(self._name, self._address, reason)

    def refused(self) -> None:
        """Nobody listens at the address."""
