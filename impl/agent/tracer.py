"""The trace of one process incarnation: the real steps of its core, in the format of ARCHITECTURE.md, section 5.

Lines are gathered and written with one write; the driver flushes before any byte that they explain leaves the process,
which survives SIGKILL. A trace is evidence, not a log: it has no level, and a failure to write it is fatal, since a
trace with a hole would accuse an innocent server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from impl.raft.ready import Event, IssueEvent, SendEvent, StepEvent
from impl.runtime.interfaces import Disk, File

FORMAT = 2


class Tracer:
    """Writes `NODE-INCARNATION.ndjson`. Sequence numbers start at 1; times are CLOCK_MONOTONIC in nanoseconds."""

    def __init__(
        self, disk: Disk, monotonic_ns: Callable[[], int], directory: str, node: str, incarnation: int
    ) -> None:
        """Create the file.

        Raises:
            OSError: the directory cannot be made, or the file exists: another cluster's traces are there.
        """
        disk.make_directories(directory)
        self._file: File = disk.open(f"{directory}/{node}-{incarnation:06d}.ndjson", create=True)
        self._monotonic_ns = monotonic_ns
        self._node = node
        self._incarnation = incarnation
        self._prefix = f"{node}/{incarnation}/"
        self._encode = msgspec.json.Encoder().encode
        self._sequence = 0
        self._offset = 0
        self._lines: list[bytes] = []

    def header(
        self,
        cluster_id: str,
        voters: Sequence[str],
        state: list[Any],
        *,
        election_ns: int = 0,
        lease_ns: int = -1,
        pre_vote: bool = True,
        recovered: bool = False,
    ) -> None:
        """The first line: who this is and what it recovered.

        `voters`: of the genesis. `election_ns`: whoever heard from a leader less than this ago neither votes nor
        campaigns; `lease_ns`: how long after a round began its leader may answer by it; -1: never.
        `pre_vote`: whether campaigns need pre-votes (those of agents do).
        `recovered`: an outage recovery replaced the log, by hand.
        """
        self._lines.append(
            self._encode(
                {
                    "kind": "header",
                    "format": FORMAT,
                    "cluster_id": cluster_id,
                    "node": self._node,
                    "incarnation": self._incarnation,
                    "voters": sorted(voters),
                    "election_ns": election_ns,
                    "lease_ns": lease_ns,
                    "pre_vote": pre_vote,
                    "ns": self._monotonic_ns(),
                    "state": state,
                    **({"recovered": True} if recovered else {}),
                }
            )
        )
        self.flush()

    def events(self, events: Sequence[Event], checksums: Sequence[int]) -> None:
        """What the core did; `checksums` are those of the frames of its sends, in order."""
        ns = self._monotonic_ns()
        sent = iter(checksums)
        for event in events:
            self._sequence += 1
            line: dict[str, Any]
            if isinstance(event, StepEvent):
                line = {"kind": "step", "seq": self._sequence, "ns": ns, "action": event.action}
                line.update(event.arguments)
                line["state"] = event.state
            elif isinstance(event, SendEvent):
                line = {
                    "kind": "send",
                    "seq": self._sequence,
                    "ns": ns,
                    "id": f"{self._prefix}{event.sequence}",
                    "to": event.to,
                    "action": event.action,
                    "message": event.message,
                    "frame": next(sent),
                }
            else:
                line = _issue(event, self._sequence, ns)
            self._lines.append(self._encode(line))

    def proposals(self, proposed: Sequence[tuple[str, int, int]]) -> None:
        """Which entry carries which client's request: (request, index, term)."""
        ns = self._monotonic_ns()
        for request, index, term in proposed:
            self._sequence += 1
            line = {
                "kind": "propose",
                "seq": self._sequence,
                "ns": ns,
                "request": request,
                "index": index,
                "term": term,
            }
            self._lines.append(self._encode(line))

    def identity(self, name: str) -> str:
        """NODE/INCARNATION/name."""
        return self._prefix + name

    def answer(self, request: str, mode: str, query: Sequence[Any], applied: int, result: Any, **more: Any) -> None:
        """What a client is told; `more` is the read's id or the write's index."""
        self._sequence += 1
        self._lines.append(
            self._encode(
                {
                    "kind": "answer",
                    "seq": self._sequence,
                    "ns": self._monotonic_ns(),
                    "request": request,
                    "mode": mode,
                    **more,
                    "query": query,
                    "applied": applied,
                    "result": result,
                }
            )
        )

    def flush(self) -> None:
        """Hand everything gathered to the operating system, in one write."""
        if not self._lines:
            return
        self._lines.append(b"")
        data = b"\n".join(self._lines)
        self._lines = []
        self._file.write(self._offset, data)
        self._offset += len(data)

    def end(self, reason: str) -> None:
        """The last line: this incarnation ended gracefully."""
        self._sequence += 1
        line = {"kind": "end", "seq": self._sequence, "ns": self._monotonic_ns(), "reason": reason}
        self._lines.append(self._encode(line))
        self.flush()
        self._file.close()


def _issue(event: IssueEvent, sequence: int, ns: int) -> dict[str, Any]:
    return {"kind": "issue", "seq": sequence, "ns": ns, "write": event.write, "point": event.point}
