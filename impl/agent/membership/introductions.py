"""Asks every server in sight who it is, again and again, and tells it who is asking: the I/O around `discovery`.

One question at a time to each address; quickly until the servers wanted are known, then once a second. The source of
addresses is the configuration and what servers pass on; gossip may become another one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.agent.membership.discovery import Conflict, Discovery
from impl.agent.requests.api import DefiniteError
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import DISCOVER, MALFORMED, Discovered, encode
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import MILLISECONDS, Runtime

QUICK_NS = 50 * MILLISECONDS
CALM_NS = 1_000 * MILLISECONDS
ANSWER_NS_MAX = 500 * MILLISECONDS
JOIN_NS_MAX = 5_000 * MILLISECONDS
"""How long a server may take that somebody wants to be joined."""
SILENCE_NS = 2_000 * MILLISECONDS
"""A server that does not answer for so long is worth a line in the log."""

_discovered: msgspec.msgpack.Decoder[Discovered] = msgspec.msgpack.Decoder(Discovered)


async def introduce(pool: Pool, discovery: Discovery, address: Address, timeout_ns: int) -> Discovered:
    """Ask a server who it is, and tell it who asks. Raises RpcError, or one of `MALFORMED`."""
    return _discovered.decode(await pool.call(address, DISCOVER, encode(discovery.introduction()), timeout_ns))


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
        self._silent_since: dict[Address, int] = {}
        self._reported: set[Address] = set()

    async def run(self) -> None:
        """Ask for ever; end it by cancelling the task."""
        while True:
            for address in self._discovery.addresses(self._join):
                if address not in self._asking:
                    self._asking.add(address)
                    self._runtime.tasks.spawn(self._ask(address), f"introduction to {address}")
            jitter = 0.5 + self._runtime.random.random()
            await self._runtime.clock.sleep(int((CALM_NS if self._complete() else QUICK_NS) * jitter))

    async def join(self, address: Address) -> None:
        """Ask this server now; once it has answered it is one of those in sight. Raises DefiniteError."""
        try:
            reply = await introduce(self._pool, self._discovery, address, JOIN_NS_MAX)
            self._discovery.learn(reply, self._runtime.clock.monotonic_ns())
        except (RpcError, Conflict, *MALFORMED) as error:
            raise DefiniteError(f"1 error occurred:\n\t* Failed to join {address}: {error}\n\n") from error
        self._learned(reply)

    async def _ask(self, address: Address) -> None:
        try:
            reply = await introduce(self._pool, self._discovery, address, ANSWER_NS_MAX)
        except (RpcError, *MALFORMED) as error:
            self._report_silence(address, str(error))
        else:
            self._silent_since.pop(address, None)
            if address in self._reported:
                self._reported.discard(address)
                self._log.info("server answers again", address=str(address), server=reply.sender.name)
            self._learned(reply)
        finally:
            self._asking.discard(address)

    def _report_silence(self, address: Address, error: str) -> None:
        """Once for each silence that lasts: servers that start together do not find each other at once."""
        now = self._runtime.clock.monotonic_ns()
        since = self._silent_since.setdefault(address, now)
        if now - since >= SILENCE_NS and address not in self._reported:
            self._reported.add(address)
            self._log.warn("server does not answer", address=str(address), error=error)
