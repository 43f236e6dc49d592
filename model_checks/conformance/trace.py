"""Reading traces: the lines of ARCHITECTURE.md, section 5, as typed values; which files belong together; where one
was cut off.

A process that is killed may leave a last line that is not whole. The lines before it are good: they were written
before any byte that they cause left the process. Anything else that is not a line of the format is an error with file
and line number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from model_checks.verdicts import SetupFailed

FORMAT = 2
FILE_NAME = re.compile(r"(?P<node>.+)-(?P<incarnation>\d{6,})\.ndjson")


class UnreadableTrace(SetupFailed):
    """There is no trace, or a file is not one. The text names file, line and remedy."""


class State(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A server's recorded state: every field is compared."""

    role: str
    term: int
    voted_for: str | None
    leader_id: str | None
    commit_index: int
    last_applied: int
    last_index: int
    last_term: int
    digest: str
    leader_match: int
    round: int
    votes: tuple[str, ...]
    match: tuple[tuple[str, int], ...]
    snapshot: int
    base: int
    heard_at: int
    pre_votes: tuple[str, ...]
    lease_ended: bool
    urged_by: int
    transferring: bool
    configuration_index: int


class DiskPoint(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A point of the disk, as it is recorded: what a restart finds (ARCHITECTURE.md, section 3)."""

    term: int
    voted_for: str | None
    last_index: int
    digest: str
    snapshot: int
    base: int


class Header(msgspec.Struct, tag_field="kind", tag="header"):
    """Who writes, with which timing (nanoseconds), and what it recovered from its disk."""

    format: int
    cluster_id: str
    node: str
    incarnation: int
    voters: tuple[str, ...]
    ns: int
    state: State
    election_ns: int
    """The least time between hearing of a leader and voting for another."""
    lease_ns: int
    """How long a leader answers reads after it began a round that a quorum answered; negative: no leases."""
    pre_vote: bool = True
    """Whether campaigns need pre-votes: those of agents do."""
    recovered: bool = False
    """The disk was rewritten by hand (peers.json) before this start: Raft's promises end here."""


class Step(msgspec.Struct, tag_field="kind", tag="step"):
    """A step of the spec, with the parameters of its action, and the real state after it."""

    seq: int
    ns: int
    action: str
    state: State
    message: str = ""
    frame: int = 0
    entries: tuple[tuple[int, bytes], ...] = ()
    index: int = 0
    read: str = ""
    write: int = 0
    now: int = 0
    """The core's clock, for the actions that read it."""
    state_digest: str = ""
    """Of the state machine at `index`, for `take_snapshot` and `restore_snapshot`."""
    peer: str = ""
    incarnation: int = 0
    """`handle_lease_ended`: the process of `peer` that has ended."""
    reason: str = ""


class Issue(msgspec.Struct, tag_field="kind", tag="issue"):
    """A write is asked of the disk; it covers everything before it."""

    seq: int
    ns: int
    write: int
    point: DiskPoint


class Send(msgspec.Struct, tag_field="kind", tag="send"):
    """A message leaves."""

    seq: int
    ns: int
    id: str
    to: str
    action: str
    message: dict[str, int | bool | str]
    frame: int


class Propose(msgspec.Struct, tag_field="kind", tag="propose"):
    """A leader appended an entry for a client's write, which `request` names wherever it is forwarded."""

    seq: int
    ns: int
    request: str
    index: int
    term: int


class AnswerLine(msgspec.Struct, tag_field="kind", tag="answer"):
    """A client is answered. `index`: of a write's entry; `read`: the id of a consistent or default read."""

    seq: int
    ns: int
    request: str
    mode: str
    query: list[Any]
    applied: int
    result: bool | list[Any]
    """A write's result; a read's index and rows. Values are in base64."""
    read: str = ""
    index: int = 0


class End(msgspec.Struct, tag_field="kind", tag="end"):
    """The process ended gracefully."""

    seq: int
    ns: int
    reason: str


Line = Header | Step | Issue | Send | Propose | AnswerLine | End


class TraceFile(msgspec.Struct, frozen=True):
    """The trace of one process incarnation."""

    path: Path
    node: str
    incarnation: int
    size: int
    """Bytes, when it was found."""

    def grew(self) -> bool:
        """Whether a process has written to it since."""
        return self.path.stat().st_size != self.size


_decode = msgspec.json.Decoder(Line).decode


def trace_files(directory: Path) -> dict[str, list[TraceFile]]:
    """The trace files in `directory`, by node, each node's in the order of its incarnations.

    Empty files, of processes that died before their first line, are left out. Raises UnreadableTrace if none is left.
    """
    if not directory.is_dir():
        raise UnreadableTrace(f"{directory} is not a directory: give the one that the agents wrote with -trace")
    found: dict[str, list[TraceFile]] = {}
    for path in sorted(directory.glob("*.ndjson")):
        name = FILE_NAME.fullmatch(path.name)
        if name is None:
            raise UnreadableTrace(f"{path} is not named NODE-INCARNATION.ndjson: move what is not a trace elsewhere")
        size = path.stat().st_size
        if size:
            file = TraceFile(path, name["node"], int(name["incarnation"]), size)
            found.setdefault(file.node, []).append(file)
    if not found:
        raise UnreadableTrace(f"{directory} holds no traces: start the servers with -trace {directory}")
    for files in found.values():
        files.sort(key=lambda file: file.incarnation)
    return found


def reconfigurations(files: Iterable[TraceFile]) -> Iterator[Step]:
    """The membership changes in trace files: one look at all bytes, which decodes no other line."""
    for file in files:
        with file.path.open("rb") as stream:
            for text in stream:
                if b'"change_configuration"' in text and text.endswith(b"\n"):
                    try:
                        line = _decode(text)
                    except (msgspec.MsgspecError, UnicodeDecodeError):
                        continue  # the replay reports it, with its place
                    if isinstance(line, Step) and line.action == "change_configuration":
                        yield line


class Reader:
    """The lines of one file, in order and numbered from 1; `cut` is set if the last one was not whole."""

    def __init__(self, file: TraceFile) -> None:
        self.file = file
        self.lines = 0
        self.cut = ""
        """What was cut off at the end of the file, for people; empty if nothing was."""

    def __iter__(self) -> Iterator[tuple[int, Line]]:
        """Raises UnreadableTrace at a line that is not one, unless it is the last and has no line end."""
        with self.file.path.open("rb") as stream:
            for number, text in enumerate(stream, 1):
                try:
                    line = _decode(text)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    if text.endswith(b"\n"):
                        raise UnreadableTrace(f"{self.file.path}:{number}: not a line of a trace: {error}") from error
                    self.cut = f"{self.file.path.name}:{number}: {len(text)} bytes without a line end"
                    return
                if number == 1:
                    self._check_header(line)
                elif isinstance(line, Header):
                    raise UnreadableTrace(f"{self.file.path}:{number}: a second header: two processes wrote this file")
                self.lines = number
                yield number, line

    def _check_header(self, line: Line) -> None:
        where = f"{self.file.path}:1"
        if not isinstance(line, Header):
            raise UnreadableTrace(f"{where}: the first line is not a header: the file's beginning is missing")
        if line.format != FORMAT:
            why = f"format {line.format}, this program reads {FORMAT}"
            raise UnreadableTrace(f"{where}: {why}: use the version of Comitia that wrote it")
        if (line.node, line.incarnation) != (self.file.node, self.file.incarnation):
            writer = f"{line.node}, incarnation {line.incarnation}"
            raise UnreadableTrace(f"{where}: written by {writer}: the file was renamed")


def last_lines(path: Path, number: int, most: int = 10) -> list[str]:
    """Up to `most` lines of a file that end with line `number`, each with its number."""
    with path.open("rb") as stream:
        wanted = islice(stream, max(0, number - most), number)
        first = max(1, number - most + 1)
        return [f"{at}: {text.decode(errors='replace').strip()}" for at, text in enumerate(wanted, first)]
