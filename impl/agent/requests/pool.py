"""RPC clients by address, made when first used. Source: Consul's connection pool: one connection to each server."""

from __future__ import annotations

from collections.abc import Callable

from impl.agent.config.validated import Address
from impl.rpc.client import RpcClient
from impl.rpc.handshake import Hello
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Runtime


class Pool:
    """One connection to each server that is asked something. Errors of `call` are those of `RpcClient.call`."""

    def __init__(self, runtime: Runtime, hello: Callable[[], Hello], timings: Timings) -> None:
        self._runtime = runtime
        self._hello = hello
        self._timings = timings
        self._clients: dict[Address, RpcClient] = {}

    async def call(self, address: Address, method: str, body: bytes, timeout_ns: int) -> bytes:
        """Ask the server at `address`; its answer. RpcError knows whether the request may have been taken."""
        client = self._clients.get(address)
        if client is None:
            client = RpcClient(self._runtime, self._hello, (address.host, address.port), self._timings)
            self._clients[address] = client
        return await client.call(method, body, timeout_ns)

    def forget(self, wanted: list[Address]) -> None:
        """Close the connections to addresses that nobody has any more."""
        for address in sorted(self._clients.keys() - set(wanted)):
            self._clients.pop(address).close()

    def close(self) -> None:
        """Close every connection."""
        self.forget([])
