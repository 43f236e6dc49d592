"""Calls to one address over one connection, many at a time; it is dialled when a call needs it.

A call is sent at most once. When it fails, the error says what is known: whatever happens before the request is
handed to the connection is definite; afterwards only an answer is. Source: design of Consul's forwarding ("EOF after
send" is retried for reads only), which needs this distinction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from impl.rpc.calls import OVERHEAD_BYTES, Outcome, Request, decode_response, encode
from impl.rpc.channel import BadFrame
from impl.rpc.dialler import Dialler, State
from impl.rpc.errors import CallTimedOut, ConnectFailed, ConnectionLost, NotSent, RemoteError, RpcError
from impl.rpc.framing import FrameKind
from impl.rpc.handshake import Hello, Purpose, Refusal
from impl.rpc.timings import Timings
from impl.runtime.interfaces import MILLISECONDS, Address, Future, Runtime, Timer


class _Call:
    """A call that has not ended."""

    def __init__(self, method: str, body: bytes, answer: Future[bytes]) -> None:
        self.method = method
        self.body = body
        self.answer = answer
        self.timer: Timer | None = None
        self.id = 0
        """0: not sent."""


class RpcClient:
    """Calls to one address."""

    def __init__(self, runtime: Runtime, hello: Callable[[], Hello], address: Address, timings: Timings) -> None:
        self._runtime = runtime
        self._timings = timings
        self._dialler = Dialler(runtime, hello, Purpose.RPC, _anybody, address, timings, self)
        self._waiting: dict[_Call, None] = {}
        """Calls for which the connection is being made, in order."""
        self._sent: dict[int, _Call] = {}
        self._last_id = 0
        self._closed = False
        self.late_answers = 0
        """Answers that came after their call had timed out."""

    @property
    def epoch(self) -> int:
        """Number of the present connection, from 1; 0 before the first."""
        return self._dialler.epoch

    async def call(self, method: str, body: bytes, timeout_ns: int) -> bytes:
        """Ask and wait for the answer.

        Raises ConnectFailed, NotSent (definite); ConnectionLost, CallTimedOut (indefinite); RemoteError (as it says).
        """
        size = len(method) + len(body) + OVERHEAD_BYTES
        if size > self._timings.frame_bytes_max:
            raise NotSent(f"a request of {size} bytes: at most {self._timings.frame_bytes_max}")
        if self._closed:
            raise NotSent("the client was closed")
        answer: Future[bytes] = self._runtime.tasks.future()
        call = _Call(method, body, answer)
        call.timer = self._runtime.clock.call_later(timeout_ns, partial(self._time_out, call, timeout_ns))
        if self._dialler.state is State.UP:
            self._send(call)
        else:
            self._waiting[call] = None
            self._dialler.start(keep=False)
        try:
            return await answer
        finally:
            self._forget(call)

    def close(self) -> None:
        """Hang up. Calls that wait fail: definitely if they were not sent."""
        self._closed = True
        self._dialler.close("the client was closed")
        self._fail_waiting(NotSent("the client was closed"))

    def _send(self, call: _Call) -> None:
        """Hand the request to the connection: from here on only an answer is definite."""
        self._last_id += 1
        request = encode(Request(self._last_id, call.method, call.body))
        if self._dialler.send(FrameKind.REQUEST, request):
            call.id = self._last_id
            self._sent[call.id] = call
        else:
            _end(call, NotSent("the connection is closing"))

    def _time_out(self, call: _Call, timeout_ns: int) -> None:
        waited = f"no answer within {timeout_ns // MILLISECONDS} ms"
        _end(call, CallTimedOut(waited) if call.id else NotSent(f"{waited}: not connected"))

    def _forget(self, call: _Call) -> None:
        """The caller has its answer, or has been cancelled."""
        if call.timer is not None:
            call.timer.cancel()
        self._waiting.pop(call, None)
        self._sent.pop(call.id, None)

    def _fail_waiting(self, error: RpcError) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            _end(call, error)

    def up(self, hello: Hello) -> None:
        """As `dialler.Events.up`."""
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            if not call.answer.done():
                self._send(call)

    def frame(self, kind: FrameKind, payload: bytes, crc: int) -> None:
        """As `dialler.Events.frame`: an answer."""
        if kind is not FrameKind.RESPONSE:
            raise BadFrame(f"{kind.name} instead of an answer")
        response = decode_response(payload)
        if not 0 < response.id <= self._last_id:
            raise BadFrame(f"an answer to request {response.id}, which was never sent")
        call = self._sent.pop(response.id, None)
        if call is None:
            self.late_answers += 1
        elif response.outcome is Outcome.OK:
            if not call.answer.done():
                call.answer.set_result(response.body)
        else:
            text = response.body.decode("utf-8", "replace")
            _end(call, RemoteError(text, response.outcome is Outcome.FAILED))

    def down(self, text: str) -> None:
        """As `dialler.Events.down`: what was sent on this connection will not be answered."""
        sent, self._sent = self._sent, {}
        for call in sent.values():
            _end(call, ConnectionLost(text))

    def failed(self, text: str, refused: bool) -> None:
        """As `dialler.Events.failed`."""
        self._fail_waiting(ConnectFailed(text))


def _anybody(hello: Hello) -> Refusal | None:
    """Calls are for whoever answers at the address."""
    return None


def _end(call: _Call, error: RpcError) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
