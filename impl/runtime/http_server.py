"""Serves an ASGI application with uvicorn, in the agent's own loop and on sockets of our own.

uvicorn would take the process's signals, its logging and its loop; it gets none of them. Import this before the loop
runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Generator
from typing import Any

import uvicorn

from impl.runtime.http_connections import Connections
from impl.runtime.http_protocol import protocol_for
from impl.runtime.interfaces import Address, Direct

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 300
SHUTDOWN_SECONDS = 1


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class HttpServer:
    """A listening HTTP server. Made by `listen`."""

    def __init__(
        self, listener: socket.socket, app: Callable[..., Any], direct: Direct | None, connections: Connections
    ) -> None:
        """Not for callers: use `listen`."""
        config = uvicorn.Config(
            app,
            loop="none",
            http=protocol_for(connections, direct),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).disabled = True
        name = listener.getsockname()
        self.address: Address = (name[0], name[1])
        """Where it listens: with the real port if 0 was asked for."""
        self._server = _Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listener]), name="http")

    @classmethod
    def listen(
        cls,
        address: Address,
        app: Callable[..., Any],
        direct: Direct | None = None,
        connections: Connections | None = None,
    ) -> HttpServer:
        """Bind and begin to serve. Must be called on the loop.

        `direct` is offered plain requests first; `connections` says how many one client may have (default: any number).

        Raises:
            OSError: the address is not available.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        return cls(listener, app, direct, connections or Connections())

    async def close(self) -> None:
        """Stop accepting, give requests under way a moment, close."""
        self._server.should_exit = True
        await self._task
