"""Structured logs, in the text or the JSON form that Consul's users know.

    2006-01-02T15:04:05.000Z [INFO]  agent.raft: election won: term=3 votes=2

What to log: every election and step-down with its reason, every change of a connection, everything an operator must act
on. Never a line per request. Source: hclog, as Consul configures it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from impl.agent.config import LOG_LEVELS

Value = str | int | float | bool | None | list[str]


class Log:
    """Writes lines of at least one level, under one name."""

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
        self._write = write
        self._wall_seconds = wall_seconds
        self._level = level
        self._json = json
        self._name = name

    def named(self, name: str) -> Log:
        """The log of a part: `agent` -> `agent.raft`."""
        return Log(self._write, self._wall_seconds, level=self._level, json=self._json, name=f"{self._name}.{name}")

    def debug(self, message: str, **fields: Value) -> None:
        """For whoever looks into one agent."""
        self._line("DEBUG", message, fields)

    def info(self, message: str, **fields: Value) -> None:
        """What happened, when nothing is wrong."""
        self._line("INFO", message, fields)

    def warn(self, message: str, **fields: Value) -> None:
        """Something is wrong that the agent copes with."""
        self._line("WARN", message, fields)

    def error(self, message: str, **fields: Value) -> None:
        """Something is wrong that needs an operator."""
        self._line("ERROR", message, fields)

    def _line(self, level: str, message: str, fields: dict[str, Value]) -> None:
        if LOG_LEVELS.index(level) < LOG_LEVELS.index(self._level):
            return
        stamp = datetime.fromtimestamp(self._wall_seconds(), UTC)
        if self._json:
            document = {
                "@level": level.lower(),
                "@message": message,
                "@module": self._name,
                "@timestamp": stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                **fields,
            }
            self._write(msgspec.json.encode(document).decode() + "\n")
            return
        head = f"{stamp.strftime('%Y-%m-%dT%H:%M:%S.')}{stamp.microsecond // 1000:03d}Z {f'[{level}]':7} {self._name}: "
        tail = " ".join(f"{name}={_text(value)}" for name, value in fields.items())
        self._write(head + _one_line(message) + (f": {tail}" if tail else "") + "\n")


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
