"""Asks every server in sight who it is, again and again, and tells it who is asking: the I/O around `discovery`.

One question at a time to each address; quickly until the servers wanted are known, then once a second. The source of
addresses is the configuration and what servers pass on; gossip may become another one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from impl.agent.config import Address
from impl.agent.discovery import Discovery
from impl.agent.logs import Log
from impl.agent.pool import Pool
from impl.agent.protocol import DISCOVER, MALFORMED, Discovered
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import MILLISECONDS, Runtime

QUICK_NS = 50 * MILLISECONDS
CALM_NS = 1_000 * MILLISECONDS
ANSWER_NS_MAX = 500 * MILLISECONDS

encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Discovered] = msgspec.msgpack.Decoder(Discovered)


class Introductions:
    """The rounds of questions of one agent."""

    def __init__(
        self,
        runtime: Runtime,
        pool: Pool,
        discovery: Discovery,
        join: tuple[Address, ...],
        log: Log,
        learned: Callable[[Discovered], None],
        complete: Callable[[], bool],
    ) -> None:
        """`learned` is called after each answer; `complete`: every server that is wanted is known."""
        self._runtime = runtime
        self._pool = pool
        self._discovery = discovery
        self._join = join
        self._log = log
        self._learned = learned
        self._complete = complete
        self._asking: set[Address] = set()
        self._silent: dict[Address, str] = {}

    async def run(self) -> None:
        """Ask for ever; end it by cancelling the task."""
        while True:
            for address in self._discovery.addresses(self._join):
                if address not in self._asking:
                    self._asking.add(address)
                    self._runtime.tasks.spawn(self._ask(address), f"introduction to {address}")
            jitter = 0.5 + self._runtime.random.random()
            await self._runtime.clock.sleep(int((CALM_NS if self._complete() else QUICK_NS) * jitter))

    async def _ask(self, address: Address) -> None:
        try:
            body = encode(self._discovery.introduction())
            reply = _decoder.decode(await self._pool.call(address, DISCOVER, body, ANSWER_NS_MAX))
        except (RpcError, *MALFORMED) as error:
            self._report_silence(address, str(error))
        else:
            if self._silent.pop(address, None) is not None:
                self._log.info("server answers again", address=str(address), server=reply.sender.name)
            self._learned(reply)
        finally:
            self._asking.discard(address)

    def _report_silence(self, address: Address, error: str) -> None:
        if self._silent.get(address) is None:
            self._log.warn("server does not answer", address=str(address), error=error)
        self._silent[address] = error
