"""Timeouts and bounds of connections between agents, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from impl.runtime.interfaces import MILLISECONDS

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each thing may take and how large it may be. Times in nanoseconds."""

    connect_ns: int = 250 * MILLISECONDS
    """TCP's own first retransmission comes after a second: an attempt that met a cut is worth less than a new one."""
    handshake_ns: int = 500 * MILLISECONDS
    """From the connection to the other side's Hello."""
    ping_ns: int = 100 * MILLISECONDS
    """Pause between the dialling side's pings."""
    link_unanswered_ns: int = 600 * MILLISECONDS
    """A Raft link is given up when nothing came for so long: the longest election timeout."""
    call_unanswered_ns: int = 2_000 * MILLISECONDS
    """A connection for calls is given up when nothing came for so long: giving up makes the outcome of its calls
    unknown."""
    idle_ns: int = 5_000 * MILLISECONDS
    """An accepted connection without a frame (not even a ping) for so long is closed: the peer is gone."""
    redial_ns_min: int = 20 * MILLISECONDS
    redial_ns_max: int = 250 * MILLISECONDS
    """Bounds of the back-off, before jitter of up to one half."""
    frame_bytes_max: int = 8 * MEBIBYTE
    buffer_bytes_max: int = 32 * MEBIBYTE
    """A connection that has this much unsent is closed: its peer does not read."""
    connections_max: int = 1_024
    """Accepted connections at a time; further ones are closed at once."""
