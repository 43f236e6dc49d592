"""What a process may find on its disk when it starts: nothing at first, then a point that the crash of the one before
it allows.
"""

from __future__ import annotations

from model_checks.conformance.divergence import DURABILITY, Divergence, excerpt
from model_checks.conformance.observed import described_point, recovered_point
from model_checks.conformance.trace import DiskPoint, Header, Reader
from spec.raft.actions import Action
from spec.raft.types import Constants, Server, ServerId, Time


class Incomplete(Exception):
    """A trace is missing that the verdict depends on: nothing is proved either way."""


def check_nothing_was_rewritten(header: Header) -> None:
    """Outage recovery (peers.json) breaks the protocol by intent. Raises Incomplete."""
    if header.recovered:
        raise Incomplete(
            f"{header.node}, incarnation {header.incarnation}, was recovered with peers.json: what its log held counts "
            "as committed since; check the traces from before apart, and trace what follows into a new directory"
        )


def check_initial(header: Header) -> None:
    """A server's first incarnation finds an empty disk. Raises Divergence, Incomplete."""
    found = header.state
    if (found.term, found.voted_for, found.last_index) == (0, None, 0):
        return
    if header.incarnation > 1:
        raise Incomplete(
            f"{header.node}: the first trace is of incarnation {header.incarnation}, which recovered term "
            f"{found.term} and {found.last_index} entries: what it did before was not traced"
        )
    raise Divergence(DURABILITY, "a new server has an empty disk", f"it recovered {recovered_point(found)}")


def survived(
    c: Constants, i: ServerId, s: Server, crash_restart: Action, found: DiskPoint, now: Time
) -> tuple[int, Server] | None:
    """The server after a crash that left `found`, with the number of issued points that the disk had written; None if
    no crash leaves that.
    """
    for k in range(len(s.issued), -1, -1):
        outcome = crash_restart(c, i, s, k, now)
        if outcome is not None and described_point(outcome.server.durable) == found:
            return k, outcome.server
    return None


def check_no_trace_is_missing(readers: list[Reader], header: Header) -> Reader:
    """The trace of the incarnation before this one. Raises Incomplete if there was one that has no trace."""
    before = max(
        (r for r in readers if r.file.incarnation < header.incarnation), key=lambda reader: reader.file.incarnation
    )
    missing = range(before.file.incarnation + 1, header.incarnation)
    if missing:
        found = recovered_point(header.state)
        raise Incomplete(f"{header.node}: no trace of incarnation {missing[0]}, after which {found} was recovered")
    return before


def not_what_was_written(s: Server, found: DiskPoint, before: Reader) -> Divergence:
    """The disk holds what no crash leaves."""
    allowed = [s.durable, *(write.point for write in s.issued)]
    return Divergence(
        DURABILITY,
        "the disk keeps what it confirmed, and nothing that was not written",
        f"recovered {found}",
        [
            "the disk may hold:",
            *(f"  {described_point(point)}" for point in allowed),
            *excerpt(before.file.path, before.lines),
        ],
    )
