"""DNS over real sockets, asked with a real DNS library; over virtual ones, what is cut is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from errno import EADDRINUSE
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.reversename
import pytest

from impl.agent.requests.api import NoClusterLeader, ReadOptions, ReadReply
from impl.catalog.commands import Register
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import Check, Node, Service
from impl.catalog.store import Store
from impl.dns import agent_directory
from impl.dns import server as server_module
from impl.dns.agent_directory import AgentDirectory
from impl.dns.responder import Responder
from impl.dns.server import DnsServer
from impl.dns.settings import Settings
from impl.runtime.interfaces import NANOSECONDS, Runtime
from impl.runtime.real import run
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk


class Memory:
    """An agent whose cluster is one state store with two instances of `web`, one of which has its own address."""

    def __init__(self) -> None:
        self.store = Store()
        self.failure: Exception | None = None
        for index, (node, address) in enumerate((("n1", ""), ("n2", "192.0.2.7")), 1):
            service = Service(node, "web", "web", address=address, port=80)
            check = Check(node, "c", status="passing")
            self.store.apply(Register(Node(node, f"10.0.0.{index}"), service, (check,)), index)
        consul = Service("n1", "consul", "consul", port=8300)
        self.store.apply(Register(Node("n1", "10.0.0.1"), consul), 3)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        if self.failure is not None:
            raise self.failure
        return ReadReply(answer_query(self.store, query), True, 0)


async def pause() -> None:
    """Nobody else wants to run."""


def responder(memory: Memory) -> Responder:
    agent: Any = memory
    return Responder(AgentDirectory(agent, "dc1", pause), Settings(), lambda rows: None, lambda: 1)


def unexpected(error: Exception) -> None:
    raise AssertionError from error


def served(
    ask: Callable[[str, int, Memory], Coroutine[Any, Any, None]], hears: Callable[[Exception], None] = unexpected
) -> None:
    async def main(runtime: Runtime) -> int:
        memory = Memory()
        server = await DnsServer.listen(runtime, ("127.0.0.1", 0), responder(memory), hears)
        try:
            await asyncio.wait_for(ask(*server.address, memory), 20)
        finally:
            server.close()
        return 0

    assert run(main) == 0


def query(name: str, kind: str = "A") -> dns.message.Message:
    return dns.message.make_query(name, kind)


async def everything(host: str, port: int, memory: Memory) -> None:
    for protocol in (dns.asyncquery.udp, dns.asyncquery.tcp):
        found = await protocol(query("web.service.consul"), host, port=port, timeout=5)
        assert sorted(str(row) for row in found.answer[0]) == ["10.0.0.1", "192.0.2.7"]
        assert (await protocol(query("n2.node.consul"), host, port=port, timeout=5)).answer
        assert (await protocol(query("n3.node.consul"), host, port=port, timeout=5)).rcode() == dns.rcode.NXDOMAIN
        assert (await protocol(query("consul", "NS"), host, port=port, timeout=5)).answer
        for address, name in (("1.0.0.10", "n1.node.dc1.consul."), ("7.2.0.192", "web.service.dc1.consul.")):
            found = await protocol(query(f"{address}.in-addr.arpa", "PTR"), host, port=port, timeout=5)
            assert str(found.answer[0][0]) == name
    memory.failure = NoClusterLeader()
    found = await dns.asyncquery.udp(query("n1.node.consul"), host, port=port, timeout=5)
    assert found.rcode() == dns.rcode.SERVFAIL


def test_questions_are_answered_over_udp_and_tcp() -> None:
    served(everything)


def an_ipv6_address_has_a_name_however_it_was_spelled() -> None:
    memory = Memory()
    memory.store.apply(Register(Node("n6", "2001:DB8:0::6"), Service("n6", "web6", "web6", address="2001:DB8::7")), 4)
    for address, name in (("2001:db8::6", "n6.node.dc1.consul."), ("2001:db8::7", "web6.service.dc1.consul.")):
        wire = query(dns.reversename.from_address(address).to_text(), "PTR").to_wire()
        found = asyncio.run(responder(memory).respond(wire, datagram=True))
        assert found is not None
        assert [str(data) for rrset in dns.message.from_wire(found).answer for data in rrset] == [name]


def test_an_ipv6_address_has_a_name_however_it_was_spelled() -> None:
    an_ipv6_address_has_a_name_however_it_was_spelled()


def test_addresses_that_are_compared_as_texts_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_directory, "_is_at", str.__eq__)
    with pytest.raises(AssertionError):
        an_ipv6_address_has_a_name_however_it_was_spelled()


async def two_questions(host: str, port: int, memory: Memory) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    wires = [query(f"n{number}.node.consul").to_wire() for number in (1, 2)]
    writer.write(b"".join(len(wire).to_bytes(2) + wire for wire in wires))
    for wire in wires:
        length = int.from_bytes(await reader.readexactly(2))
        assert (await reader.readexactly(length))[:2] == wire[:2]
    writer.write(b"\xff\xff")
    assert await reader.read() == b"", "a question of 65,535 bytes ends the connection"
    writer.close()


def test_a_connection_carries_several_questions_and_none_that_is_too_long() -> None:
    served(two_questions)


async def rubbish(host: str, port: int, memory: Memory) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.sendto(b"?", (host, port))
    await everything(host, port, memory)


def test_rubbish_harms_nobody() -> None:
    served(rubbish)


def test_a_datagram_that_crosses_a_cut_is_lost() -> None:
    world = VirtualWorld(1)
    runtimes = {host: world.process(host, VirtualDisk()).runtime for host in ("a", "b")}
    answers: list[bytes] = []

    async def main() -> None:
        server = await DnsServer.listen(runtimes["a"], ("a", 8600), responder(Memory()), unexpected)
        client = await runtimes["b"].network.listen_datagrams(("b", 0), lambda data, sender: answers.append(data))
        world.internet.cut("b", "a")
        client.send(query("n1.node.consul").to_wire(), server.address)
        await runtimes["b"].clock.sleep(NANOSECONDS)
        assert not answers
        world.internet.heal()
        client.send(query("n1.node.consul").to_wire(), server.address)

    runtimes["b"].tasks.spawn(main(), "main")
    assert world.run_until(lambda: answers, 5 * NANOSECONDS)


def test_beyond_a_bound_datagrams_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "WAITING_MAX", 0)

    async def unanswered(host: str, port: int, memory: Memory) -> None:
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(query("n1.node.consul"), host, port=port, timeout=0.3)

    served(unanswered)


@pytest.mark.parametrize("protocol", [dns.asyncquery.udp, dns.asyncquery.tcp])
def test_a_defect_costs_one_answer_and_is_reported(protocol: Any) -> None:
    heard: list[Exception] = []

    async def a_defect_and_a_question(host: str, port: int, memory: Memory) -> None:
        memory.failure = ZeroDivisionError()
        found = await protocol(query("n1.node.consul"), host, port=port, timeout=5)
        assert found.rcode() == dns.rcode.SERVFAIL
        memory.failure = None
        assert (await protocol(query("n1.node.consul"), host, port=port, timeout=5)).answer

    served(a_defect_and_a_question, heard.append)
    assert [type(error) for error in heard] == [ZeroDivisionError]


def test_a_port_that_is_taken_for_udp_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(runtime: Runtime) -> int:
        plain = runtime.network.listen_datagrams
        taken: list[int] = []

        async def once_taken(self: Any, address: Any, received: Any) -> Any:
            if not taken:
                taken.append(address[1])
                raise OSError(EADDRINUSE, "taken")
            return await plain(address, received)

        monkeypatch.setattr(type(runtime.network), "listen_datagrams", once_taken)
        server = await DnsServer.listen(runtime, ("127.0.0.1", 0), responder(Memory()), unexpected)
        assert taken
        (await asyncio.to_thread(socket.create_connection, server.address)).close()
        server.close()
        with pytest.raises(OSError, match="taken"):
            taken.clear()
            await DnsServer.listen(runtime, server.address, responder(Memory()), unexpected)
        return 0

    assert run(main) == 0
