"""Keeps one connection to one address: dials, shakes hands, listens for silence, dials again.

A cut link is silent: TCP keeps sending for minutes and after the cut waits out its own back-off before it tries
again. So the dialling side sends pings, and gives up a connection on which nothing came for a while; the next
attempt begins with a fresh TCP handshake. Silence is counted in pings, not in time: a process that was paused itself
would otherwise close healthy connections when it wakes.

A connection that ends is dialled again at once, without back-off: if its process has ended, the refusal says so within
a round trip, and whoever waits for that process need not wait for a timeout.

Each connection is an *epoch*, numbered from 1. Used by `PeerLink` and `RpcClient`; it must not know what they send.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import msgspec

from impl.rpc.channel import BadFrame, Channel
from impl.rpc.framing import FrameKind
from impl.rpc.handshake import Hello, Purpose, Refusal, check, decode_hello, decode_refusal, encode
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Address, Runtime, Timer


class State(Enum):
    """Where a dialler is."""

    IDLE = "idle"
    """Not wanted, or closed."""
    WAITING = "waiting"
    """Until the next attempt."""
    DIALLING = "dialling"
    SHAKING = "shaking"
    """Connected, the other side's Hello is missing."""
    UP = "up"


class Events(Protocol):
    """What the owner of a dialler hears."""

    def up(self, hello: Hello) -> None:
        """Hands were shaken; frames may be sent."""

    def frame(self, kind: FrameKind, payload: bytes, crc: int) -> None:
        """A frame that is not about the connection itself."""

    def down(self, text: str) -> None:
        """The connection that was up is gone."""

    def failed(self, text: str, refused: bool) -> None:
        """An attempt came to nothing. `refused`: the host answered that nobody listens there."""


class Dialler:
    """A connection that comes back. `start` begins, `close` ends."""

    def __init__(
        self,
        runtime: Runtime,
        hello: Callable[[], Hello],
        purpose: Purpose,
        admit: Callable[[Hello], Refusal | None],
        address: Address,
        timings: Timings,
        events: Events,
    ) -> None:
        """`hello` is asked at each attempt; `admit` is asked of whoever answers, beyond the handshake's own rules."""
        self.state = State.IDLE
        self.epoch = 0
        self.address = address
        self.heard_ns = 0
        """When the last frame came on an established connection, to the precision of a ping; 0 = never."""
        self._runtime = runtime
        self._hello = hello
        self._purpose = purpose
        self._admit = admit
        self._timings = timings
        self._events = events
        unanswered = timings.link_unanswered_ns if purpose is Purpose.RAFT else timings.call_unanswered_ns
        self._silent_pings_max = max(1, unanswered // timings.ping_ns)
        self._silent_pings = 0
        self._failures = 0
        self._up_ns = 0
        """When the present connection was established."""
        self._keep = False
        self._attempt: _Attempt | None = None
        self._timer: Timer | None = None
        self._dial: Timer | None = None
        self._mine: Hello | None = None

    def start(self, *, keep: bool) -> None:
        """Dial now if nothing is under way. `keep`: come back after every loss; else stop after one attempt or
        loss."""
        self._keep = keep
        if self.state in (State.IDLE, State.WAITING):
            self._attempt_now()

    def nudge(self) -> None:
        """There is reason to believe that the other side can be reached: do not wait, and begin a pending attempt
        anew."""
        if self._keep and self.state in (State.WAITING, State.DIALLING):
            self._attempt_now()

    def send(self, kind: FrameKind, payload: bytes) -> bool:
        """Queue a frame; False if the connection is not up."""
        return self.state is State.UP and self._attempt is not None and self._attempt.channel.send(kind, payload)

    def close(self, text: str) -> None:
        """Hang up and stop dialling. `down` or `failed` is still called if something was under way."""
        self._keep = False
        if self.state is State.DIALLING:
            self._abandon()
            self._attempt_failed(text)
        elif self._attempt is not None:
            self._attempt.channel.close("closed", text)
        else:
            self._cancel_timer()
            self.state = State.IDLE

    def _attempt_now(self) -> None:
        self._abandon()
        self.state = State.DIALLING
        attempt = _Attempt(self)
        attempt.channel = Channel(self._timings, attempt)
        self._attempt = attempt

        def failed(error: OSError) -> None:
            if self._attempt is attempt:
                self._attempt = None
                host, port = self.address
                cause = "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
                refused = isinstance(error, ConnectionRefusedError)
                self._attempt_failed(f"dial {host}:{port}: {cause}", refused=refused)

        self._dial = self._runtime.network.dial(self.address, attempt.channel, self._timings.connect_ns, failed)

    def _abandon(self) -> None:
        """Forget an attempt that has no connection yet. One that gets it nevertheless is closed by its channel."""
        self._cancel_timer()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._attempt is not None:
            attempt, self._attempt = self._attempt, None
            attempt.channel.abort("abandoned", "dialled again")

    def opened(self, attempt: _Attempt) -> None:
        """Connected: say who we are."""
        if attempt is not self._attempt:
            return
        self.state = State.SHAKING
        self._mine = msgspec.structs.replace(self._hello(), purpose=self._purpose)
        attempt.channel.send(FrameKind.HELLO, encode(self._mine))
        self._set_timer(
            self._timings.handshake_ns, lambda: attempt.channel.abort("silent", "no answer to the handshake")
        )

    def frame(self, attempt: _Attempt, kind: FrameKind, payload: bytes, crc: int) -> None:
        """A frame of the current connection."""
        if attempt is not self._attempt:
            return
        if self.state is State.UP:
            if kind is not FrameKind.PONG:
                self._events.frame(kind, payload, crc)
        elif kind is FrameKind.REFUSAL:
            refusal = decode_refusal(payload)
            attempt.channel.abort("refused", f"refused ({refusal.cause}): {refusal.text}")
        elif kind is FrameKind.HELLO:
            self._shake(attempt, payload)
        else:
            raise BadFrame(f"{kind.name} before the handshake")

    def _shake(self, attempt: _Attempt, payload: bytes) -> None:
        theirs = decode_hello(payload)
        assert self._mine is not None
        refusal = theirs if isinstance(theirs, Refusal) else check(self._mine, theirs, self._purpose)
        if isinstance(theirs, Hello) and refusal is None:
            refusal = self._admit(theirs)
        if isinstance(theirs, Refusal) or refusal is not None:
            assert refusal is not None
            attempt.channel.abort("refused", refusal.text)
            return
        self.state = State.UP
        self.epoch += 1
        self._failures = 0
        self._silent_pings = 0
        self.heard_ns = self._up_ns = self._runtime.clock.monotonic_ns()
        self._set_timer(self._timings.ping_ns, self._ping)
        self._events.up(theirs)

    def _ping(self) -> None:
        """Once per ping interval: was anything heard since the last one?"""
        attempt = self._attempt
        if attempt is None or self.state is not State.UP:
            return
        if attempt.channel.heard:
            attempt.channel.heard = False
            self._silent_pings = 0
            self.heard_ns = self._runtime.clock.monotonic_ns()
        else:
            self._silent_pings += 1
        if self._silent_pings > self._silent_pings_max:
            attempt.channel.abort("silent", f"nothing heard for {self._silent_pings_max} pings")
            return
        attempt.channel.send(FrameKind.PING, b"")
        self._set_timer(self._timings.ping_ns, self._ping)

    def closed(self, attempt: _Attempt, text: str) -> None:
        """The connection, or the attempt, ended."""
        if attempt is not self._attempt:
            return
        self._attempt = None
        if self.state is State.UP:
            # One that ended as soon as it was there would end so again.
            lived = self._runtime.clock.monotonic_ns() - self._up_ns >= self._timings.ping_ns
            self._rest(at_once=lived)
            self._events.down(text)
        else:
            self._attempt_failed(text)

    def _attempt_failed(self, text: str, *, refused: bool = False) -> None:
        self._failures += 1
        self._rest()
        self._events.failed(text, refused)

    def _rest(self, *, at_once: bool = False) -> None:
        """Wait for the next attempt, longer after each failure, never in step with others; or stop."""
        self._cancel_timer()
        if not self._keep:
            self.state = State.IDLE
            return
        self.state = State.WAITING
        if at_once:
            self._timer = self._runtime.clock.call_soon(self._attempt_now)
            return
        bound = min(self._timings.redial_ns_max, self._timings.redial_ns_min << min(self._failures, 16))
        self._set_timer(int(bound * (0.5 + self._runtime.random.random() / 2)), self._attempt_now)

    def _set_timer(self, delay_ns: int, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._runtime.clock.call_later(delay_ns, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Attempt:
    """Ties the calls of a channel to the attempt that made it: those of an abandoned one must not be taken for the
    new one's."""

    channel: Channel

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    def opened(self) -> None:
        self._dialler.opened(self)

    def frame(self, kind: FrameKind, payload: bytes, crc: int) -> None:
        self._dialler.frame(self, kind, payload, crc)

    def closed(self, cause: str, text: str) -> None:
        self._dialler.closed(self, text)
