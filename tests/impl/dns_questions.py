"""Questions asked of a responder over a registry that the test fills, and answers read with a real DNS library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import dns.message
import dns.rdatatype
import pytest

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Check, Node, Service
from impl.dns.directory import NoPath
from impl.dns.responder import Responder
from impl.dns.settings import Settings

Mutant = tuple[Any, str, Any, Callable[[], None]]
"""What is replaced, its name, by what; the sentence that does not hold then."""


N1 = Node("n1", "10.0.0.1", datacenter="dc1", meta={"os": "linux", "rfc1035-x": "plain"})


N2 = Node("N2", "10.0.0.2", datacenter="dc1")


EXTERNAL = Node("ext", "example.com", datacenter="dc1")


V6 = Node("six", "2001:db8::1", datacenter="dc1")


def web(node: Node, status: str = "passing", **fields: Any) -> Instance:
    return Instance(
        node,
        Service(node.node, "web", "web", port=80, weights=(10, 1), **fields),
        (Check(node.node, "c", status=status),),
    )


class FakeDirectory:
    def __init__(self) -> None:
        self.nodes = [N1, N2, EXTERNAL, V6]
        self.instances: list[Instance] = [web(N1), web(N2, tags=("v1",))]
        self.server_instances = [web(N1), web(N2)]
        self.failure: Exception | None = None
        self.lookups = 0

    def _check(self, datacenter: str) -> None:
        if self.failure is not None:
            raise self.failure
        if datacenter != "dc1":
            raise NoPath(datacenter)

    async def node(self, name: str, datacenter: str) -> Node | None:
        self._check(datacenter)
        self.lookups += 1
        return next((node for node in self.nodes if node.node.lower() == name), None)

    async def service(self, name: str, tag: str, datacenter: str) -> Sequence[Instance]:
        self._check(datacenter)
        self.lookups += 1
        found = [each for each in self.instances if each.service.service == name]
        return [each for each in found if not tag or tag in each.service.tags]

    async def servers(self) -> Sequence[Instance]:
        return self.server_instances

    async def holders(self, address: str) -> tuple[Sequence[Node], Sequence[Instance]]:
        nodes = [node for node in self.nodes if node.address == address]
        return nodes, [each for each in self.instances if each.service.address == address]


def serving(*addresses: str, node: Node = N1, service: str = "web") -> FakeDirectory:
    """Instances of a service at these addresses."""
    directory = FakeDirectory()
    directory.instances = [
        Instance(node, Service("n1", f"{service}{number}", service, address=address, port=80), ())
        for number, address in enumerate(addresses)
    ]
    return directory


def many(count: int) -> FakeDirectory:
    directory = FakeDirectory()
    nodes = [Node(f"n{number}", f"10.0.{number >> 8}.{number & 255}", datacenter="dc1") for number in range(count)]
    directory.instances = [web(node) for node in nodes]
    return directory


def respond(wire: bytes, directory: FakeDirectory, datagram: bool, **options: Any) -> bytes | None:
    """Without metadata that nobody asked for, unless the options say otherwise."""
    responder = Responder(directory, Settings(**{"node_meta_txt": False} | options), lambda rows: None, lambda: 7)
    return asyncio.run(responder.respond(wire, datagram=datagram))


def ask(
    name: str,
    kind: str = "A",
    directory: FakeDirectory | None = None,
    *,
    datagram: bool = True,
    edns: int | None = None,
    **options: Any,
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=edns or 0)
    wire = respond(query.to_wire(), directory or FakeDirectory(), datagram, **options)
    assert wire is not None
    return dns.message.from_wire(wire)


def records(message: dns.message.Message, section: str = "answer") -> list[str]:
    return [
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {row}"
        for rrset in getattr(message, section)
        for row in rrset
    ]


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """One element for each call of a function, from now on."""
    made: list[int] = []
    plain = getattr(owner, name)

    def count(*what: Any) -> Any:
        made.append(1)
        return plain(*what)

    monkeypatch.setattr(owner, name, count)
    return made


def mutant_id(mutant: Mutant) -> str:
    """Of the test that the mutant is noticed."""
    return f"{mutant[1]}-{mutant[3].__name__}"


def contradict(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    """The mutant is noticed."""
    owner, name, broken, sentence = mutant
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        sentence()
