"""Archives on their way between agents, in pieces, each a call: whoever is asked for one passes on what the leader has.

    archive-open    [stale, forwarded]   -> [token, index, known_leader, last_contact_ms]
    archive-read    token                -> the next piece, as bytes; none: that was all
    archive-close   token                -> nothing
    upload-open     forwarded            -> token
    upload-add      [token, bytes]       -> nothing
    upload-finish   token                -> nothing: it was restored
    upload-close    token                -> nothing: forget it

The one who asks has one call under way at a time, so that nothing piles up; a connection that is lost ends the whole.
A server that does not lead keeps nothing itself: each call to it makes one to the leader. Source: Consul, which streams
snapshots over a connection of their own; *Deviation:* calls, since a frame is bounded.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

import msgspec

from impl.agent.requests.api import ArchiveStream, ArchiveUpload, DefiniteError, IndefiniteError, RestoreUnknown
from impl.agent.requests.forwarding import CALL_TIMEOUT_NS, Retriable, judge
from impl.agent.requests.methods import Call
from impl.agent.requests.protocol import decode_answer, encode
from impl.agent.snapshots.archives import HANDED_OUT_BYTES, Idle
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import NANOSECONDS, Runtime, new_uuid
from impl.runtime.off_loop import ignore

ARCHIVE_OPEN: Final = "archive-open"
ARCHIVE_READ: Final = "archive-read"
ARCHIVE_CLOSE: Final = "archive-close"
UPLOAD_OPEN: Final = "upload-open"
UPLOAD_ADD: Final = "upload-add"
UPLOAD_FINISH: Final = "upload-finish"
UPLOAD_CLOSE: Final = "upload-close"
METHODS: Final = (ARCHIVE_OPEN, ARCHIVE_READ, ARCHIVE_CLOSE, UPLOAD_OPEN, UPLOAD_ADD, UPLOAD_FINISH, UPLOAD_CLOSE)
RESTORE_TIMEOUT_NS: Final = 3600 * NANOSECONDS
"""A restore may take so long; a leader that is lost meanwhile is noticed by its connection."""
OPEN_MAX: Final = 16
"""Archives that other agents read from, or send to, one server at a time."""


class OpenArchive(msgspec.Struct, frozen=True, array_like=True):
    """An archive is wanted. `forwarded`: the receiver leads, or refuses."""

    stale: bool
    forwarded: bool


class OpenedArchive(msgspec.Struct, frozen=True, array_like=True):
    """It can be read."""

    token: str
    index: int
    known_leader: bool
    last_contact_ms: int


class AddToUpload(msgspec.Struct, frozen=True, array_like=True):
    """The next piece of an archive that is to be restored."""

    token: str
    data: bytes


_open: msgspec.msgpack.Decoder[OpenArchive] = msgspec.msgpack.Decoder(OpenArchive)
_opened: msgspec.msgpack.Decoder[OpenedArchive] = msgspec.msgpack.Decoder(OpenedArchive)
_add: msgspec.msgpack.Decoder[AddToUpload] = msgspec.msgpack.Decoder(AddToUpload)
_token: msgspec.msgpack.Decoder[str] = msgspec.msgpack.Decoder(str)
_forwarded: msgspec.msgpack.Decoder[bool] = msgspec.msgpack.Decoder(bool)
_piece: msgspec.msgpack.Decoder[bytes] = msgspec.msgpack.Decoder(bytes)


class RemoteArchive:
    """An archive that another server has: `api.ArchiveStream`."""

    def __init__(self, runtime: Runtime, call: Call, opened: OpenedArchive) -> None:
        """`opened`: the server's answer to `archive-open`."""
        self.index = opened.index
        self.known_leader = opened.known_leader
        self.last_contact_ms = opened.last_contact_ms
        self._runtime = runtime
        self._call = call
        self._token = opened.token
        self._closed = False

    async def read(self) -> bytes:
        """The next piece; b"": that was all. Raises AgentError."""
        return decode_answer(_piece, await _asked(self._call, ARCHIVE_READ, encode(self._token), CALL_TIMEOUT_NS))

    def close(self) -> None:
        """Let the server forget it."""
        if not self._closed:
            self._closed = True
            _tell(self._runtime, self._call, ARCHIVE_CLOSE, self._token)


class RemoteUpload:
    """An archive that another server receives and restores: `api.ArchiveUpload`."""

    def __init__(self, runtime: Runtime, call: Call, token: str) -> None:
        """`token`: the server's answer to `upload-open`."""
        self._runtime = runtime
        self._call = call
        self._token = token
        self._closed = False

    async def add(self, data: bytes) -> None:
        """The next piece. Raises AgentError."""
        for start in range(0, len(data), HANDED_OUT_BYTES):
            body = encode(AddToUpload(self._token, data[start : start + HANDED_OUT_BYTES]))
            await _asked(self._call, UPLOAD_ADD, body, CALL_TIMEOUT_NS)

    async def restore(self) -> None:
        """As `ArchiveUpload.restore`."""
        self._closed = True
        try:
            await _asked(self._call, UPLOAD_FINISH, encode(self._token), RESTORE_TIMEOUT_NS, is_write=True)
        except IndefiniteError as error:
            raise RestoreUnknown(str(error)) from error

    def close(self) -> None:
        """Let the server forget it."""
        if not self._closed:
            self._closed = True
            _tell(self._runtime, self._call, UPLOAD_CLOSE, self._token)


async def opened_archive(runtime: Runtime, call: Call, request: OpenArchive) -> RemoteArchive:
    """Open an archive at another server. Raises RpcError, IndefiniteError."""
    reply = await call(ARCHIVE_OPEN, encode(request), CALL_TIMEOUT_NS)
    return RemoteArchive(runtime, call, decode_answer(_opened, reply))


async def opened_upload(runtime: Runtime, call: Call, *, forwarded: bool) -> RemoteUpload:
    """Begin to send an archive to another server. Raises RpcError, IndefiniteError."""
    reply = await call(UPLOAD_OPEN, encode(forwarded), CALL_TIMEOUT_NS)
    return RemoteUpload(runtime, call, decode_answer(_token, reply))


async def _asked(call: Call, method: str, body: bytes, timeout_ns: int, *, is_write: bool = False) -> bytes:
    """One attempt. Raises AgentError."""
    try:
        return await call(method, body, timeout_ns)
    except RpcError as error:
        judged = judge(error, is_write=is_write)
        raise (judged.final if isinstance(judged, Retriable) else judged) from error


def _tell(runtime: Runtime, call: Call, method: str, token: str) -> None:
    async def tell() -> None:
        try:
            await call(method, encode(token), CALL_TIMEOUT_NS)
        except RpcError as error:  # it notices by itself that nobody goes on
            ignore(error)

    runtime.tasks.spawn(tell(), method)


class Asked(Protocol):
    """Who serves this server's users: `Requests`."""

    async def open_archive(self, request: OpenArchive) -> ArchiveStream:
        """An archive of the state. Raises AgentError."""

    async def open_upload(self, *, forwarded: bool) -> ArchiveUpload:
        """An archive that is to be sent and restored. Raises AgentError."""


class ArchiveCalls:
    """What other agents have open here."""

    def __init__(self, runtime: Runtime, asked: Asked) -> None:
        self._runtime = runtime
        self._asked = asked
        self._archives: dict[str, tuple[ArchiveStream, Idle]] = {}
        self._uploads: dict[str, tuple[ArchiveUpload, Idle]] = {}

    async def serve(self, method: str, body: bytes) -> object:
        """Serve a call: what to answer. Raises AgentError, and MALFORMED for a body that makes no sense."""
        match method:
            case "archive-open":
                return await self._open_archive(_open.decode(body))
            case "archive-read":
                archive, idle = _found(self._archives, _token.decode(body))
                idle.touch()
                return await archive.read()
            case "archive-close":
                self._close(_token.decode(body))
            case "upload-open":
                return await self._open_upload(_forwarded.decode(body))
            case "upload-add":
                request = _add.decode(body)
                upload, idle = _found(self._uploads, request.token)
                idle.touch()
                await upload.add(request.data)
            case "upload-finish":
                token = _token.decode(body)
                upload, idle = _found(self._uploads, token)
                del self._uploads[token]
                idle.stop()
                try:
                    await upload.restore()
                finally:
                    upload.close()
            case _:
                self._close(_token.decode(body))
        return None

    async def _open_archive(self, request: OpenArchive) -> OpenedArchive:
        self._refuse_if_full()
        archive, token = await self._asked.open_archive(request), new_uuid(self._runtime.random)
        self._archives[token] = archive, Idle(self._runtime, lambda: self._close(token))
        return OpenedArchive(token, archive.index, archive.known_leader, archive.last_contact_ms)

    async def _open_upload(self, forwarded: bool) -> str:
        self._refuse_if_full()
        upload, token = await self._asked.open_upload(forwarded=forwarded), new_uuid(self._runtime.random)
        self._uploads[token] = upload, Idle(self._runtime, lambda: self._close(token))
        return token

    def _refuse_if_full(self) -> None:
        if len(self._archives) + len(self._uploads) >= OPEN_MAX:
            raise DefiniteError(f"other agents save and restore {OPEN_MAX} snapshots here: try again later")

    def _close(self, token: str) -> None:
        for opened in (self._archives.pop(token, None), self._uploads.pop(token, None)):
            if opened is not None:
                opened[1].stop()
                opened[0].close()


T = TypeVar("T")


def _found(opened: dict[str, tuple[T, Idle]], token: str) -> tuple[T, Idle]:
    found = opened.get(token)
    if found is None:
        raise DefiniteError("nobody went on with this snapshot for too long, or it was closed")
    return found
