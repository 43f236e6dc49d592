"""A server's link to one peer: Raft's messages go out on the connection that this server dialled, and nothing comes
back on it but pongs.

Two servers therefore have two connections, one for each direction, and each server alone decides when to redial its
own. A message that is sent while the link is down is lost, as Raft allows; nothing is queued for later, since a
message kept through a partition is worth less than the one that the core will build then.

It must not look into messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from impl.rpc.channel import BadFrame
from impl.rpc.dialler import Dialler, State
from impl.rpc.framing import FrameKind, checksum
from impl.rpc.handshake import Hello, Purpose, Refusal
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Address, Runtime


class LinkEvents(Protocol):
    """What the owner of a link hears."""

    def connected(self, hello: Hello) -> None:
        """The link is up; `hello` is the peer's."""

    def lost(self, reason: str) -> None:
        """The link was up and is down; it is dialled again at once."""

    def refused(self) -> None:
        """The peer's host answers that nobody listens at its address."""


class PeerLink:
    """Dials from the start and for ever, until `close`."""

    def __init__(
        self,
        runtime: Runtime,
        hello: Callable[[], Hello],
        expected_name: str,
        address: Address,
        timings: Timings,
        events: LinkEvents,
        report: Callable[[str], None] = lambda text: None,
        admit: Callable[[Hello], Refusal | None] = lambda hello: None,
    ) -> None:
        """`report` hears why attempts fail, once per reason until the link was up again; `admit` is asked of whoever
        answers under the expected name.
        """
        self._link_events = events
        self._report = report
        self._reported: set[str] = set()

        def expect(theirs: Hello) -> Refusal | None:
            if theirs.node_name != expected_name:
                return Refusal("wrong node", f"{theirs.node_name} answers where {expected_name} was expected")
            return admit(theirs)

        self._dialler = Dialler(runtime, hello, Purpose.RAFT, expect, address, timings, self)
        self._dialler.start(keep=True)

    @property
    def connected(self) -> bool:
        """Whether messages go out now."""
        return self._dialler.state is State.UP

    @property
    def epoch(self) -> int:
        """Number of the present connection, from 1; 0 before the first."""
        return self._dialler.epoch

    @property
    def last_pong_ns(self) -> int:
        """When the peer was last heard on this link (CLOCK_MONOTONIC); 0 = never."""
        return self._dialler.heard_ns

    def send(self, payload: bytes) -> bool:
        """Send one message. False: it is lost."""
        return self._dialler.send(FrameKind.RAFT, payload)

    def crc(self, payload: bytes) -> int:
        """The checksum of the frame that `send(payload)` makes: known before it is sent, so that traces can record
        it."""
        return checksum(FrameKind.RAFT, payload)

    def nudge(self) -> None:
        """The peer was heard of by another way (it has just dialled us): redial now."""
        self._dialler.nudge()

    def close(self) -> None:
        """Hang up for good; `lost` follows if the link is up."""
        self._dialler.close("closed")

    def up(self, hello: Hello) -> None:
        """As `dialler.Events.up`."""
        self._reported.clear()
        self._link_events.connected(hello)

    def frame(self, kind: FrameKind, payload: bytes, crc: int) -> None:
        """As `dialler.Events.frame`: nothing comes back on a Raft link."""
        raise BadFrame(f"{kind.name} on a Raft link")

    def down(self, text: str) -> None:
        """As `dialler.Events.down`."""
        self._link_events.lost(text)

    def failed(self, text: str, refused: bool) -> None:
        """As `dialler.Events.failed`."""
        if refused:
            self._link_events.refused()
        if text not in self._reported:
            self._reported.add(text)
            self._report(text)
