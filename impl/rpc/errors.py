"""Errors of calls between agents, by cause; each knows whether the request may have had its effect.

*definite*: the other side did not get the request, or says itself that it had no effect: repeating it is safe.
*indefinite*: it may have had its effect, or may yet have it.
"""

from __future__ import annotations


class RpcError(Exception):
    """A call failed."""

    definite: bool
    """Whether the request certainly had no effect and never will."""


class ConnectFailed(RpcError):
    """No connection, or the handshake was refused. Nothing was sent."""

    definite = True


class NotSent(RpcError):
    """The request was never handed to a connection: time ran out first, it is too large, or the client was closed."""

    definite = True


class ConnectionLost(RpcError):
    """The connection ended after the request was sent and before its answer came."""

    definite = False


class CallTimedOut(RpcError):
    """No answer in time, on a connection that lives."""

    definite = False


class RemoteError(RpcError):
    """The other side answered with an error. `str` of it is exactly the text that the other side gave."""

    def __init__(self, text: str, definite: bool) -> None:
        super().__init__(text)
        self.definite = definite
