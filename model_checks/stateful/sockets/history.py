"""What was asked and answered, event by event: `history.ndjson`, one JSON object a line.

All that the judge knows comes from here, so a stored history can be judged again. Times are nanoseconds of
CLOCK_MONOTONIC; `applied` and `leader` are the leader's position, observed after the event.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_never

import msgspec

from model_checks.catalog.http_answers import HttpReply
from model_checks.catalog.http_requests import Asked, Mode, Read, ReadTransaction, Renew, Write, http_request
from model_checks.catalog.payloads import Malformed, decoded, encoded
from model_checks.catalog.records import decoded_request, described_request
from spec.catalog.commands import Transaction
from spec.catalog.state import Index

FORMAT = 1
HEADERS = ("x-consul-index", "x-consul-knownleader", "x-consul-lastcontact", "x-consul-effective-consistency")
"""The headers that are kept."""


class BadHistory(Exception):
    """A history that cannot be read; the text says where and why."""


class Answered(msgspec.Struct, frozen=True):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: str

    def reply(self) -> HttpReply:
        """For the decoder."""
        return HttpReply(self.status, self.headers, self.body.encode())


def answered(reply: HttpReply) -> Answered:
    """The answer, with the headers that matter. What is not UTF-8 is no answer that anybody could accept."""
    headers = {name: value for name, value in reply.headers.items() if name in HEADERS}
    return Answered(reply.status, headers, reply.body.decode(errors="backslashreplace"))


class Reading(msgspec.Struct, frozen=True):
    """A consistent read, made to learn what the agents wrote themselves."""

    request: list[Any]
    answer: Answered


class Baseline(msgspec.Struct, frozen=True, tag="baseline", tag_field="kind"):
    """A cluster that was just formed, wholly read while its log stood still."""

    format: int
    seed: int
    servers: tuple[str, ...]
    agents: tuple[str, ...]
    applied: Index
    leader: str
    readings: tuple[Reading, ...]


class RunBegan(msgspec.Struct, frozen=True, tag="run", tag_field="kind"):
    """A run begins: its keys, nodes and sessions have names of their own."""

    run: int


class Exchange(msgspec.Struct, frozen=True, tag="asked", tag_field="kind"):
    """A request and its answer. `answer` None: none came, for the reason `error`; `sent`: it may have arrived."""

    number: int
    agent: str
    asked: list[Any]
    request: str
    """For people: method and target. The judge makes them from `asked`."""
    sent_ns: int
    received_ns: int
    answer: Answered | None
    applied: Index
    leader: str
    error: str = ""
    sent: bool = True
    background: tuple[Reading, ...] = ()
    """If the log grew by more than was asked for: what the agents' own rows are now."""


class WatchBegan(msgspec.Struct, frozen=True, tag="watch", tag_field="kind"):
    """A blocking query was sent, and not waited for."""

    number: int
    agent: str
    asked: list[Any]
    request: str
    sent_ns: int


class WatchEnded(msgspec.Struct, frozen=True, tag="watch-ended", tag_field="kind"):
    """It was answered, or its connection was lost (`answer` None)."""

    number: int
    received_ns: int
    answer: Answered | None
    applied: Index
    leader: str
    error: str = ""
    background: tuple[Reading, ...] = ()


class WatchOverdue(msgspec.Struct, frozen=True, tag="watch-overdue", tag_field="kind"):
    """It had to return, and did not for so long."""

    number: int
    waited_ms: int


class WatchClosed(msgspec.Struct, frozen=True, tag="watch-closed", tag_field="kind"):
    """The client hung up: nothing had changed for it."""

    number: int


class CaughtUp(msgspec.Struct, frozen=True, tag="caught-up", tag_field="kind"):
    """Every server says that it has applied as much as the leader: stale reads cannot be older from now on."""

    applied: dict[str, Index]


class Lagging(msgspec.Struct, frozen=True, tag="lagging", tag_field="kind"):
    """A server has not applied what the leader had, after so long."""

    server: str
    applied: Index
    leader_applied: Index
    waited_ms: int


Event = Baseline | RunBegan | Exchange | WatchBegan | WatchEnded | WatchOverdue | WatchClosed | CaughtUp | Lagging
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def line(event: Event) -> bytes:
    """One line of the file."""
    return _encode(event) + b"\n"


def read(path: Path) -> Iterator[tuple[int, Event]]:
    """The events of a file with the numbers of their lines, from 1. Raises BadHistory."""
    with open(path, "rb") as file:
        for number, text in enumerate(file, 1):
            try:
                yield number, _decode(text)
            except msgspec.MsgspecError as error:
                cut = "" if text.endswith(b"\n") else " (the file breaks off here)"
                raise BadHistory(f"{path}, line {number}: {error}{cut}") from error


# ------------------------------------------------------------------------------------------------------ what was asked


def described(asked: Asked) -> list[Any]:
    """A request, as the history has it."""
    match asked:
        case Write(command):
            return ["write", b64encode(encoded(command)).decode()]
        case Read(request):
            return ["read", described_request(request), asked.mode.value, asked.index, asked.wait_ms, asked.as_list]
        case ReadTransaction(transaction, mode):
            return ["read-transaction", b64encode(encoded(transaction)).decode(), mode.value]
        case Renew(session_id):
            return ["renew", session_id]
        case _:
            assert_never(asked)


def shown(asked: Asked) -> str:
    """Method and target, for people."""
    request = http_request(asked)
    return f"{request.method} {request.target}"


def parsed(fields: list[Any]) -> Asked:
    """The request of an event. Raises BadHistory."""
    try:
        match fields:
            case ["write", str(payload)]:
                return Write(decoded(b64decode(payload)))
            case ["read", list(request), str(mode), int(index), int(wait_ms), bool(as_list)]:
                found = decoded_request(request)
                if not isinstance(found, Transaction):
                    return Read(found, Mode(mode), index, wait_ms, as_list)
            case ["read-transaction", str(payload), str(mode)]:
                transaction = decoded(b64decode(payload))
                if isinstance(transaction, Transaction):
                    return ReadTransaction(transaction, Mode(mode))
            case ["renew", str(session_id)]:
                return Renew(session_id)
    except (Malformed, ValueError) as error:
        raise BadHistory(f"{str(fields)[:200]}: {error}") from error
    raise BadHistory(f"{str(fields)[:200]} is not a request")
