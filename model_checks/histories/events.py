"""The history format: NDJSON, one event a line, in the order in which the test saw them. Reading and writing it.

The order of the lines is the real-time order: an operation whose completion stands before another's invocation happened
before it. `time` is for people. A history may have been cut off by a crash: an unfinished last line is dropped and
reported as `cut`; anything malformed before it is an error with its line number, since no checker may guess.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

NEMESIS = "nemesis"
"""The process name of fault events; they are context, not operations."""


class EventType(enum.StrEnum):
    """An operation starts with invoke; ok happened, fail certainly did not happen, info: nobody knows."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One line. `time` in ns. `value`: the value written; [old, new] of a cas; a read's answer (null when invoked)."""

    process: int | str
    type: EventType
    f: str
    index: int | None = None
    time: int = 0
    key: Any = None
    value: Any = None
    error: Any = None


class MalformedHistory(ValueError):
    """A line that cannot be understood, or events that no sequence of operations produces. Names the line."""

    def __init__(self, line: int, cause: str) -> None:
        super().__init__(f"line {line}: {cause}")
        self.line = line


class History(msgspec.Struct, frozen=True):
    """The events of a file and the line of each; `cut` says what was dropped at its end, empty if nothing was."""

    events: tuple[Event, ...]
    lines: tuple[int, ...]
    cut: str = ""


def parse(data: bytes) -> History:
    """Read a history; blank lines are skipped.

    Raises MalformedHistory for a line that is not an event, or whose index does not grow.
    """
    decoder = msgspec.json.Decoder(Event)
    events: list[Event] = []
    numbers: list[int] = []
    cut = ""
    last_index = -1
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        try:
            event = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                cut = f"line {number} is cut off after {len(line)} bytes and was dropped"
                break
            raise MalformedHistory(number, f"not an event: {error}") from error
        if event.index is not None:
            if event.index <= last_index:
                raise MalformedHistory(number, f"index {event.index} follows index {last_index}: indexes must grow")
            last_index = event.index
        events.append(event)
        numbers.append(number)
    return History(tuple(events), tuple(numbers), cut)


def read(path: Path) -> History:
    """Read the history in the file `path`. Raises MalformedHistory, OSError."""
    return parse(path.read_bytes())


def render(events: Iterable[Event]) -> bytes:
    """The lines of `events`, each ended by a newline; the inverse of `parse`. Events without an index get their
    position.
    """
    encoder = msgspec.json.Encoder()
    lines = []
    for position, event in enumerate(events):
        document: dict[str, Any] = {
            "index": position if event.index is None else event.index,
            "time": event.time,
            "process": event.process,
            "type": event.type.value,
            "f": event.f,
            "key": event.key,
            "value": event.value,
        }
        if event.error is not None:
            document["error"] = event.error
        lines.append(encoder.encode(document))
    return b"".join(line + b"\n" for line in lines)
