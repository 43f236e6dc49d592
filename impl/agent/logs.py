"""Structured logs, in the text or the JSON form that Consul's users know.

    2006-01-02T15:04:05.000Z [INFO]  agent.raft: election won: term=3 votes=2

What to log: every election and step-down with its reason, every change of a connection, everything an operator must act
on. Never a line per request. Source: hclog, as Consul configures it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from impl.agent.config.validated import LOG_LEVELS

FOLLOWED_MAX: Final = 512
"""Lines that wait for whoever follows the log; more are lost, and counted (Consul's bound)."""

Value = str | int | float | bool | None | list[str]


class Log:
    """Writes lines of at least one level, under one name; copies go to whoever follows."""

    def __init__(
        self,
        write: Callable[[str], None],
        wall_seconds: Callable[[], float],
        *,
        level: str = "INFO",
        json: bool = False,
        name: str = "agent",
    ) -> None:
        """`write` takes a whole line with its newline; `wall_seconds` is the time since 1970, for the stamp only."""
        self._output = _Output(write, wall_seconds, level, json)
        self._name = name

    def named(self, name: str) -> Log:
        """The log of a part: `agent` -> `agent.raft`. Level and followers are those of the whole."""
        part = Log.__new__(Log)
        part._output, part._name = self._output, f"{self._name}.{name}"
        return part

    def set_level(self, level: str) -> None:
        """Write lines of at least this level from now on."""
        self._output.level = level

    def follow(self, level: str, json: bool, changed: Callable[[], None]) -> Follower:
        """Copy the lines of at least `level` from now on, whatever the level of the log. `changed`: there is one."""
        follower = Follower(level, json, changed)
        self._output.followers.append(follower)
        return follower

    def follower_count(self) -> int:
        """How many follow it now."""
        return len(self._output.followers)

    def unfollow(self, follower: Follower) -> None:
        """Copy no more. Once."""
        self._output.followers.remove(follower)

    def as_line(self, json: bool, level: str, message: str, fields: dict[str, Value]) -> str:
        """A line of now, under this name, that is not written."""
        return self._output.line_of(json, level, self._name, message, fields)

    def end(self) -> None:
        """Nothing more will be said: followers end when they have read what there is."""
        for follower in self._output.followers:
            follower.end()

    def debug(self, message: str, **fields: Value) -> None:
        """For whoever looks into one agent."""
        self._output.line("DEBUG", self._name, message, fields)

    def info(self, message: str, **fields: Value) -> None:
        """What happened, when nothing is wrong."""
        self._output.line("INFO", self._name, message, fields)

    def warn(self, message: str, **fields: Value) -> None:
        """Something is wrong that the agent copes with."""
        self._output.line("WARN", self._name, message, fields)

    def error(self, message: str, **fields: Value) -> None:
        """Something is wrong that needs an operator."""
        self._output.line("ERROR", self._name, message, fields)


class Follower:
    """Lines on their way to somebody who may be slow."""

    def __init__(self, level: str, json: bool, changed: Callable[[], None]) -> None:
        """Not for callers: use `Log.follow`."""
        self.level = level
        self.json = json
        self.changed = changed
        self.ended = False
        self.lost = 0
        """Lines for which there was no room, ever."""
        self._lost_now = 0
        self._lines: deque[str] = deque()

    def add(self, line: str) -> None:
        """One more line, if there is room."""
        if len(self._lines) >= FOLLOWED_MAX:
            self.lost += 1
            self._lost_now += 1
            return
        self._lines.append(line)
        self.changed()

    def end(self) -> None:
        """There will be no more."""
        self.ended = True
        self.changed()

    def leave(self) -> None:
        """Nobody reads them any more."""
        self._lines.clear()
        self._lost_now = 0
        self.end()

    def take(self) -> tuple[list[str], int]:
        """The lines that wait, and how many were lost behind them."""
        lines, lost = list(self._lines), self._lost_now
        self._lines.clear()
        self._lost_now = 0
        return lines, lost


class _Output:
    """Where the lines of an agent go."""

    def __init__(self, write: Callable[[str], None], wall_seconds: Callable[[], float], level: str, json: bool) -> None:
        self.level = level
        self.followers: list[Follower] = []
        self._write = write
        self._wall_seconds = wall_seconds
        self._json = json

    def line(self, level: str, name: str, message: str, fields: dict[str, Value]) -> None:
        rank = LOG_LEVELS.index(level)
        written = rank >= LOG_LEVELS.index(self.level)
        if not (written or self.followers):
            return
        if written:
            self._write(self.line_of(self._json, level, name, message, fields))
        for follower in self.followers:
            if rank >= LOG_LEVELS.index(follower.level):
                follower.add(self.line_of(follower.json, level, name, message, fields))

    def line_of(self, json: bool, level: str, name: str, message: str, fields: dict[str, Value]) -> str:
        stamp = datetime.fromtimestamp(self._wall_seconds(), UTC)
        if json:
            document = {
                "@level": level.lower(),
                "@message": message,
                "@module": name,
                "@timestamp": stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                **fields,
            }
            return msgspec.json.encode(document).decode() + "\n"
        head = f"{stamp.strftime('%Y-%m-%dT%H:%M:%S.')}{stamp.microsecond // 1000:03d}Z {f'[{level}]':7} {name}: "
        tail = " ".join(f"{field}={_text(value)}" for field, value in fields.items())
        return head + _one_line(message) + (f": {tail}" if tail else "") + "\n"


def _text(value: Value) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_one_line(part) for part in value) + "]"
    text = _one_line(str(value))
    if text and not any(char in text for char in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
