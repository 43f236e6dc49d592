"""The answering end of a cluster's control socket. Parses, hands operations to one function, sends what it returns.

A client that sends nonsense or does not read its replies is disconnected; the others do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from jepsen_like.cluster import protocol
from jepsen_like.net.addresses import UnknownNode
from jepsen_like.net.namespaces import Identity
from jepsen_like.net.rules import InvalidRule

REQUEST_BYTES_MAX = 1 << 20
REPLY_TIMEOUT_S = 5.0

Perform = Callable[[protocol.Operation], Awaitable[tuple[protocol.Reply, list[int], bool]]]


class ControlServer:
    """Listens on DIRECTORY/control.sock, for the user that the cluster belongs to."""

    def __init__(self, directory: Path, user: Identity | None, perform: Perform) -> None:
        self._directory, self._user, self._perform = directory, user, perform
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start to accept connections."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        handle = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        path = f"/proc/self/fd/{handle}/control.sock"  # a socket's address holds only 107 bytes
        listener.bind(path)
        os.chmod(path, 0o600)
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)
        os.close(handle)
        listener.listen(64)
        self._keep(self._accept(listener))

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                self._keep(self._converse(connection))

    async def _converse(self, connection: socket.socket) -> None:
        """Read requests, one a line; each is performed on its own, so that a slow one delays no other."""
        loop = asyncio.get_running_loop()
        decoder = msgspec.json.Decoder(protocol.Request)
        lock = asyncio.Lock()
        pending = bytearray()
        with connection:
            try:
                while data := await loop.sock_recv(connection, 1 << 16):
                    pending += data
                    *lines, rest = pending.split(b"\n")
                    pending = bytearray(rest)
                    for line in lines:
                        self._keep(self._answer(connection, lock, decoder.decode(line)))
                    if len(pending) > REQUEST_BYTES_MAX:
                        print("control: a request is too long; disconnecting", flush=True)
                        return
            except (OSError, msgspec.MsgspecError, ValueError) as error:
                print(f"control: {error}; disconnecting", flush=True)

    async def _answer(self, connection: socket.socket, lock: asyncio.Lock, request: protocol.Request) -> None:
        descriptors: list[int] = []
        close_after = False
        try:
            reply, descriptors, close_after = await self._perform(request.do)
        except (protocol.ClusterFailure, UnknownNode, InvalidRule, OSError, TimeoutError) as error:
            reply = protocol.Reply(0, error=str(error) or "the kernel did not report it in time")
        except Exception as error:  # a defect of ours must not leave the client waiting
            traceback.print_exc()
            reply = protocol.Reply(0, error=f"internal error of the supervisor, see its log: {error!r}")
        reply = msgspec.structs.replace(reply, id=request.id, descriptors=len(descriptors))
        try:
            async with lock, asyncio.timeout(REPLY_TIMEOUT_S):
                await _send(connection, msgspec.json.encode(reply) + b"\n", descriptors)
        except (OSError, TimeoutError) as error:
            print(f"control: cannot answer ({error}); disconnecting", flush=True)
            _hang_up(connection)
        finally:
            for descriptor in descriptors if close_after else []:
                os.close(descriptor)

    async def close(self) -> None:
        """Close the listener and all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _hang_up(connection: socket.socket) -> None:
    """End a conversation. Only `_converse` may close it: a descriptor that is closed while the loop watches it is taken
    for the next connection of the same number, which then is never heard.
    """
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


async def _send(connection: socket.socket, line: bytes, descriptors: list[int]) -> None:
    """Send the line; the descriptors travel with its first byte."""
    loop = asyncio.get_running_loop()
    sent = 0
    if descriptors:
        sent = socket.send_fds(connection, [line], descriptors)
    if sent < len(line):
        await loop.sock_sendall(connection, line[sent:])
