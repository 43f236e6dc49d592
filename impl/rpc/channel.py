"""One connection as a channel of frames: cut, checked, counted, bounded; it ends for one named reason.

Both ends use it. It must not know who may speak with whom, nor what frames mean.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from impl.rpc.framing import FrameError, FrameKind, FrameReader, encode_frame
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Address, Connection


class Handler(Protocol):
    """What a channel talks to."""

    def opened(self) -> None:
        """Connected."""

    def frame(self, kind: FrameKind, payload: bytes, crc: int) -> None:
        """A good frame. Raising MsgspecError, UnicodeDecodeError (msgspec does) or BadFrame closes the channel."""

    def closed(self, cause: str, text: str) -> None:
        """It ended; last call. `cause` is for counters, `text` for people."""


class BadFrame(Exception):
    """A frame is intact, and makes no sense here."""


class Channel:
    """A `Receiver` that speaks frames."""

    def __init__(self, timings: Timings, handler: Handler) -> None:
        self._handler = handler
        self._buffer_bytes_max = timings.buffer_bytes_max
        self._reader = FrameReader(timings.frame_bytes_max)
        self._connection: Connection | None = None
        self._ending: tuple[str, str] | None = None
        """Why it ends, once that is decided; no frame is given to the handler any more."""
        self.frames_in = 0
        self.frames_out = 0
        self.heard = False
        """Set at each frame; whoever watches for silence clears it."""

    @property
    def remote(self) -> Address:
        """Address of the other end."""
        return self._connection.remote if self._connection is not None else ("", 0)

    def send(self, kind: FrameKind, payload: bytes) -> bool:
        """Queue a frame; False if the channel is ending. Ends it when its peer has let too much pile up."""
        connection = self._connection
        if connection is None or self._ending is not None:
            return False
        if connection.buffered() > self._buffer_bytes_max:
            self.abort("blocked", f"the peer has not read for {connection.buffered()} bytes")
            return False
        connection.write(encode_frame(kind, payload))
        self.frames_out += 1
        return True

    def close(self, cause: str, text: str) -> None:
        """Send what is queued, then end."""
        self._end(cause, text)
        if self._connection is not None:
            self._connection.close()

    def abort(self, cause: str, text: str) -> None:
        """End now."""
        self._end(cause, text)
        if self._connection is not None:
            self._connection.abort()

    def connection_made(self, connection: Connection) -> None:
        """As `Receiver.connection_made`."""
        self._connection = connection
        if self._ending is not None:
            connection.abort()
            return
        self._handler.opened()

    def data_received(self, data: bytes) -> None:
        """As `Receiver.data_received`."""
        if self._ending is not None:
            return
        self.heard = True
        try:
            for kind, payload, crc in self._reader.feed(data):
                self.frames_in += 1
                self._handler.frame(kind, payload, crc)
                # mypy does not see that the handler may have ended the channel.
                if self._is_ending():
                    return
        except FrameError as error:
            self.abort(error.cause, str(error))
        except (msgspec.MsgspecError, UnicodeDecodeError, BadFrame) as error:
            self.abort("malformed", f"a frame cannot be read: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """As `Receiver.connection_lost`."""
        if self._ending is None:
            self._ending = ("lost", f"connection lost: {error}" if error else "the peer closed the connection")
        self._connection = None
        self._handler.closed(*self._ending)

    def _end(self, cause: str, text: str) -> None:
        if self._ending is None:
            self._ending = (cause, text)

    def _is_ending(self) -> bool:
        return self._ending is not None
