"""The asking end of a cluster's control socket: requests out, replies and file descriptors in, on the running event
loop.

Descriptors travel beside the bytes (SCM_RIGHTS), which asyncio's streams cannot receive; so this reads the socket
itself. One connection carries many requests at once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import deque
from pathlib import Path

import msgspec

from jepsen_like.cluster import protocol

READ_BYTES = 1 << 18
DESCRIPTORS_MAX = 16


def dial(directory: Path) -> socket.socket:
    """A blocking connection to the control socket in a cluster's directory; raises OSError if nobody listens.

    The path goes through a directory descriptor: a UNIX socket's address holds only 107 bytes.
    """
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"/proc/self/fd/{handle}/control.sock")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(handle)
    return connection


class ControlConnection:
    """Requests to a supervisor. Make it in a running event loop; close it when done."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[protocol.Reply, list[int]]]] = {}
        self._bytes = bytearray()
        self._descriptors: deque[int] = deque()
        self._decoder = msgspec.json.Decoder(protocol.Reply)
        self._lost: str | None = None
        self._loop.add_reader(connection.fileno(), self._readable)

    async def ask(self, operation: protocol.Operation) -> tuple[protocol.Reply, list[int]]:
        """The supervisor's reply and the descriptors that came with it; raises ClusterFailure if it failed or is
        gone."""
        if self._lost is not None:
            raise protocol.ClusterFailure(self._lost)
        number = next(self._ids)
        future: asyncio.Future[tuple[protocol.Reply, list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        line = msgspec.json.encode(protocol.Request(id=number, do=operation)) + b"\n"
        try:
            await self._loop.sock_sendall(self._socket, line)
            reply, descriptors = await future
        except OSError as error:
            raise protocol.ClusterFailure(f"the cluster's supervisor is gone ({error})") from error
        finally:
            self._waiting.pop(number, None)
        if reply.error is not None:
            raise protocol.ClusterFailure(reply.error)
        return reply, descriptors

    def close(self) -> None:
        """Close the connection; whoever still waits for a reply gets ClusterFailure."""
        self._lose("the connection to the supervisor was closed")

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, READ_BYTES, DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"the cluster's supervisor is gone ({error})")
            return
        self._descriptors.extend(descriptors)
        if not data:
            self._lose("the cluster's supervisor is gone: it closed the connection")
            return
        self._bytes += data
        *lines, rest = self._bytes.split(b"\n")
        self._bytes = bytearray(rest)
        for line in lines:
            try:
                self._deliver(self._decoder.decode(line))
            except (msgspec.MsgspecError, ValueError) as error:
                self._lose(f"the supervisor speaks another language ({error}): was it started by another version?")
                return

    def _deliver(self, reply: protocol.Reply) -> None:
        if len(self._descriptors) < reply.descriptors:  # the kernel drops those that the process has no room for
            self._lose("descriptors were lost on their way: too many open files in this process (ulimit -n)")
            return
        descriptors = [self._descriptors.popleft() for _ in range(reply.descriptors)]
        future = self._waiting.get(reply.id)
        if future is not None and not future.done():
            future.set_result((reply, descriptors))
            return
        for descriptor in descriptors:  # whoever asked was cancelled
            os.close(descriptor)

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(protocol.ClusterFailure(reason))
