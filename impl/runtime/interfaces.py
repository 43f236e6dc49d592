"""What the rest of `impl` may know of the outside world: a clock, randomness, a disk, a network, tasks and the host.

Everything outside `impl/runtime` gets these as one `Runtime` value, by argument, and imports neither asyncio nor os,
socket, time, random or threading (import-linter enforces it). There are two worlds: `real` (uvloop, sockets, fsync)
and `virtual` (one thread, virtual time, a disk that forgets what was not synced, a network that can be cut), and the
same code runs in both.

Conventions: durations and times are integers in nanoseconds; callbacks run on the loop, one at a time, and must not
block; only `Executor.submit` runs work elsewhere. Disk calls block: after start-up they belong into the executor.

This module must not import anything that does I/O.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import UUID

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Address: TypeAlias = tuple[str, int]
"""Host (a name or an IP address) and TCP port."""

NANOSECONDS = 1_000_000_000
MILLISECONDS = 1_000_000
"""Multiply to get nanoseconds: `250 * MILLISECONDS`."""


class Timer(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Do not run it. Harmless when it has run already."""


class Clock(Protocol):
    """Time that only moves forward, and timers."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC in nanoseconds: the time of traces and of every timeout."""

    def wall_ns(self) -> int:
        """Unix time in nanoseconds: for log lines and what is shown to people; it may jump."""

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the loop once, `delay_ns` from now or later, to the precision of a millisecond."""

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the loop after what is ready now; sockets are polled in between."""

    async def sleep(self, delay_ns: int) -> None:
        """Suspend the calling task."""


class Random(Protocol):
    """A stream of random numbers. `random.Random` is one."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    def randrange(self, start: int, stop: int) -> int:
        """Uniform integer in [start, stop)."""

    def randbytes(self, n: int) -> bytes:
        """`n` random bytes."""


def new_uuid(random: Random) -> str:
    """A random UUID, in lower case."""
    return str(UUID(bytes=random.randbytes(16), version=4))


class File(Protocol):
    """An open file. Every method may raise OSError."""

    @property
    def path(self) -> str:
        """The path that it was opened by."""

    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset` (pwrite, repeated until complete). On an error a prefix may have been
        written."""

    def allocate(self, size: int) -> None:
        """Make the file `size` bytes long, new bytes zero, and reserve their space: ENOSPC comes from here."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""

    def sync(self) -> None:
        """fdatasync: when it returns, everything written is on the disk. When it raises, nothing may be assumed: see
        `FsyncFailed`."""

    def close(self) -> None:
        """Release the descriptor. Says nothing of durability."""


class Lock(Protocol):
    """An exclusive lock on a file, held until `release` or the death of the process."""

    def release(self) -> None:
        """Let another process take it."""


class Locked(Exception):
    """Another process holds the lock.

    `owner` is the text that it left in the file: its process id, or "" if it left none.
    """

    def __init__(self, path: str, owner: str) -> None:
        super().__init__(f"{path} is locked by process {owner or 'unknown'}")
        self.path = path
        self.owner = owner


class Disk(Protocol):
    """A file system, synchronously. Paths are strings with forward slashes. Errors are OSError and its subclasses."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing. `create` makes a new empty file and raises FileExistsError if there is one."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of this name."""

    def names(self, directory: str) -> list[str]:
        """Names in the directory, sorted."""

    def make_directories(self, directory: str) -> None:
        """Create it and its parents where missing, durably."""

    def rename(self, source: str, target: str) -> None:
        """Replace `target` atomically. Durable after `sync_directory`."""

    def remove(self, path: str) -> None:
        """Remove a file. Durable after `sync_directory`."""

    def sync_directory(self, directory: str) -> None:
        """fsync the directory: creations, renames and removals in it are durable when it returns."""

    def lock(self, path: str, owner: str) -> Lock:
        """Take the exclusive lock on `path` (made if missing) and leave `owner` in it; raises `Locked`."""


class Connection(Protocol):
    """One end of a TCP connection."""

    @property
    def local(self) -> Address:
        """Address of this end."""

    @property
    def remote(self) -> Address:
        """Address of the other end."""

    def write(self, data: bytes) -> None:
        """Queue for sending. Never blocks; after `close`, `abort` or a loss it does nothing."""

    def buffered(self) -> int:
        """Bytes written and not yet taken by the kernel: callers bound it."""

    def close(self) -> None:
        """Send what is queued, then close; `connection_lost(None)` follows."""

    def abort(self) -> None:
        """Close at once and drop what is queued; `connection_lost` follows."""


class Receiver(Protocol):
    """What a connection talks to. Called on the loop, in this order: made, data..., lost."""

    def connection_made(self, connection: Connection) -> None:
        """The connection is established."""

    def data_received(self, data: bytes) -> None:
        """Some bytes; borders mean nothing."""

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone: None after an orderly close of either end. Called once; no call follows."""


class Listener(Protocol):
    """A listening socket."""

    @property
    def address(self) -> Address:
        """Where it listens: with the real port if 0 was asked for."""

    def close(self) -> None:
        """Stop accepting. Accepted connections live on."""


class Datagrams(Protocol):
    """A UDP socket."""

    @property
    def address(self) -> Address:
        """Where it receives: with the real port if 0 was asked for."""

    def send(self, data: bytes, to: Address) -> None:
        """Send a datagram: it may be lost, and no error is told."""

    def close(self) -> None:
        """Receive no more."""


class Network(Protocol):
    """TCP, and UDP."""

    def dial(self, address: Address, receiver: Receiver, timeout_ns: int, failed: Callable[[OSError], None]) -> Timer:
        """Connect. Either `receiver.connection_made` or `failed` is called, later, once; neither after `cancel` of
        the result.

        After `timeout_ns` it fails with TimeoutError. Connections have TCP_NODELAY, and TCP_USER_TIMEOUT set to 5 s.
        """

    async def listen(self, address: Address, accept: Callable[[], Receiver]) -> Listener:
        """Listen; `accept` makes the receiver of each connection. OSError when the address is not available."""

    async def listen_datagrams(self, address: Address, received: Callable[[bytes, Address], None]) -> Datagrams:
        """Receive datagrams; `received` is called on the loop. OSError when the address is not available."""


class Future(Awaitable[T_co], Protocol[T_co]):
    """A value that comes later; `asyncio.Future` has this shape. Made by `Tasks.future`."""

    def done(self) -> bool:
        """Whether it has a result or an error, or was cancelled."""

    def result(self) -> T_co:
        """The value; raises the error that was set."""

    def set_result(self, result: Any, /) -> None:
        """Give the value. Once."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Give the error. Once."""

    def cancel(self) -> bool:
        """Nobody waits any more."""

    def __await__(self) -> Generator[Any, None, T_co]:
        """Suspend the calling task until it is done."""


class Task(Protocol):
    """A running coroutine."""

    def cancel(self) -> bool:
        """Raise the loop's cancellation error in it."""

    def done(self) -> bool:
        """Whether it has ended."""


class Tasks(Protocol):
    """Coroutines on the loop."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Task:
        """Run it concurrently. An exception that leaves it is a defect: the process ends, with the exception as its
        reason."""

    def future(self) -> Future[Any]:
        """A new future of this loop."""

    def count(self) -> int:
        """How many tasks have not ended, those of the HTTP server among them."""


class Executor(Protocol):
    """One thread for blocking work, in the order of submission."""

    def submit(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Run `work` off the loop; then `done(result)` or `failed(error)` on the loop, in the order of submission."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process takes of its machine."""

    resident_bytes: int = 0
    virtual_bytes: int = 0
    collections: int = 0
    """Of garbage, so far."""


class Host(Protocol):
    """The process and its machine."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def hostname(self) -> str:
        """Name of the machine: the default node name."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables."""

    def usage(self) -> Usage:
        """What this process takes now."""

    def statistics(self) -> Mapping[str, str]:
        """What `/v1/agent/self` shows as `Stats.runtime`, but for the tasks."""

    def machine(self, path: str) -> Mapping[str, Any]:
        """The machine in the shape of `/v1/agent/host`: `Memory`, `CPU`, `Host`, and the `Disk` that holds `path`.

        Blocks: for the executor. Raises OSError.
        """

    def on_signal(self, name: str, callback: Callable[[], None]) -> None:
        """Call on the loop when the signal ("SIGTERM", "SIGINT", "SIGHUP") arrives."""

    def exit_now(self, code: int) -> None:
        """End the process at once: nothing is flushed, sent or acknowledged any more (a failed fsync)."""


Respond = Callable[[int, bytes, bytes], bool]
"""Answer an HTTP request: status, header lines (in lower case, each ended by CRLF, Content-Length among them), body.
At any time; once: later calls do nothing, and say so by False."""


class Direct(Protocol):
    """Who is offered plain HTTP requests (`http_protocol`)."""

    body_bytes_max: int
    """Requests with longer bodies are not plain."""

    def answer(self, method: bytes, path: bytes, query: bytes, body: bytes, respond: Respond) -> bool:
        """Take the request, and call `respond` now or later; False: it is not for the short way, nothing was done."""
        ...


class ProbeFailed(Exception):
    """What was asked did not answer as it should, or not in time. The text says what happened."""


@dataclass(frozen=True, slots=True)
class Output:
    """The last bytes of what somebody wrote, and how many there were."""

    kept: bytes
    total: int


@dataclass(frozen=True, slots=True)
class Tls:
    """How a TLS connection is opened: whose certificate is expected ("": the host's), and whether it is looked at."""

    server_name: str = ""
    skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and how; `tls` None: in clear."""

    host: str
    port: int
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """An HTTP request. `url` begins with http:// or https://."""

    url: str
    method: str = "GET"
    header: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    tls: Tls = Tls()
    follow_redirects: bool = True


class Prober(Protocol):
    """Asks others whether they are well, for health checks. Times are in nanoseconds and cover all of it."""

    async def http(self, probe: HttpProbe, timeout_ns: int, output_bytes_max: int) -> tuple[int, str, Output]:
        """Status, its phrase, and the body. Raises ProbeFailed."""
        ...

    async def connect(self, endpoint: Endpoint, timeout_ns: int) -> None:
        """Open a TCP connection and close it. Raises ProbeFailed."""
        ...

    async def datagram(self, endpoint: Endpoint, timeout_ns: int) -> None:
        """Send an empty datagram: return when one comes back, or when none did in time.

        Raises ProbeFailed: it cannot be sent, or the host says that nobody is there.
        """
        ...

    async def http2_ping(self, endpoint: Endpoint, timeout_ns: int) -> None:
        """Open an HTTP/2 connection and wait for the answer to a PING. Raises ProbeFailed."""
        ...

    async def grpc_health(self, endpoint: Endpoint, service: str, timeout_ns: int) -> str:
        """The status that a gRPC server says it has ("SERVING", ...), or one of its services. Raises ProbeFailed."""
        ...

    async def command(self, args: tuple[str, ...], timeout_ns: int, output_bytes_max: int) -> tuple[int | None, Output]:
        """Run a command in a process group of its own: exit code, and what it wrote (both streams).

        The code is None if it did not end in time: its whole group was killed. Raises ProbeFailed: it cannot be run.
        """
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """The outside world, handed in by argument."""

    clock: Clock
    random: Random
    disk: Disk
    network: Network
    executor: Executor
    background: Executor
    """Another thread, for what nobody waits for: it may take long."""
    tasks: Tasks
    host: Host
