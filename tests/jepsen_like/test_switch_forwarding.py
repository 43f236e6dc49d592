"""The switch on pairs of sockets instead of devices: what it forwards, and when a change of rules is in force."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from jepsen_like.net import switch
from jepsen_like.net.addresses import host_number
from jepsen_like.net.rules import CUT, LinkRule
from jepsen_like.net.switch import Answer, Count, Port, RuledLink, SetRules, Switch

NODES = ("s1", "s2", "t1")
SILENCE_S = 0.1


def packet(source: str, target: str, payload: bytes = b"") -> bytes:
    header = bytearray(20)
    header[0] = 0x45
    header[12:16] = (10, 77, 0, host_number(source))
    header[16:20] = (10, 77, 0, host_number(target))
    return bytes(header) + payload


class Bench:
    """A switch in a thread, with a socket to play each node."""

    def __init__(self) -> None:
        pairs = {node: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for node in NODES}
        self.nodes = {node: ours for node, (ours, _) in pairs.items()}
        self._theirs = [its for _, its in pairs.values()]
        for ours, its in pairs.values():
            ours.settimeout(5.0)
            its.setblocking(False)
        self._control, its_control = socket.socketpair()
        self._reader = self._control.makefile("rb")
        ports = tuple(Port(node, its.fileno()) for node, (_, its) in pairs.items())
        self.switch = Switch(ports, its_control, seed=1, mtu=1500)
        self._its_control = its_control
        self._thread = threading.Thread(target=self.switch.run)
        self._thread.start()

    def ask(self, request: SetRules | Count) -> Answer:
        self._control.sendall(msgspec.json.encode(request) + b"\n")
        return msgspec.json.decode(self._reader.readline(), type=Answer)

    def rule(self, source: str, target: str, rule: LinkRule) -> Answer:
        return self.ask(SetRules((RuledLink(source, target, rule),)))

    def received(self, node: str) -> bytes:
        return self.nodes[node].recv(2000)

    def hears_nothing(self, node: str) -> bool:
        self.nodes[node].settimeout(SILENCE_S)
        try:
            self.nodes[node].recv(2000)
        except TimeoutError:
            return True
        finally:
            self.nodes[node].settimeout(5.0)
        return False

    def close(self) -> None:
        self._reader.close()
        self._control.close()
        self._thread.join(5)
        for each in (*self.nodes.values(), *self._theirs, self._its_control):
            each.close()
        assert not self._thread.is_alive()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_packet_reaches_the_node_that_it_is_addressed_to_and_no_other(bench: Bench) -> None:
    bench.nodes["s1"].send(packet("s1", "t1", b"x"))
    assert bench.received("t1") == packet("s1", "t1", b"x")
    assert bench.hears_nothing("s2")


def test_packets_to_nobody_are_counted_as_strays(bench: Bench) -> None:
    stray = bytearray(packet("s1", "s2"))
    for last_octet, network in ((9, 77), (1, 77), (2, 78)):  # no such node; oneself; another network
        stray[19], stray[17] = last_octet, network
        bench.nodes["s1"].send(bytes(stray))
    bench.nodes["s1"].send(b"\x60" + bytes(39))  # IPv6 is not counted: the kernel sends it unasked
    bench.nodes["s1"].send(packet("s1", "s2"))
    assert bench.received("s2") == packet("s1", "s2")
    assert bench.ask(Count()).strays == 3


def check_cut_is_in_force_when_answered(bench: Bench) -> None:
    """Nothing that is sent after the answer passes, however often; the other direction does."""
    for _ in range(20):
        bench.rule("s1", "s2", CUT)
        bench.nodes["s1"].send(packet("s1", "s2"))
        bench.nodes["s2"].send(packet("s2", "s1"))
        assert bench.received("s1") == packet("s2", "s1")
        bench.ask(SetRules(()))
    assert bench.hears_nothing("s2")


def test_a_cut_is_in_force_when_it_is_acknowledged_and_only_one_way(bench: Bench) -> None:
    check_cut_is_in_force_when_answered(bench)


def test_a_switch_that_answers_before_it_obeys_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch._Route, "follow", lambda self, rule: None)
    with pytest.raises(AssertionError):
        check_cut_is_in_force_when_answered(bench)


def test_healing_restores_the_link(bench: Bench) -> None:
    bench.rule("s1", "s2", CUT)
    bench.nodes["s1"].send(packet("s1", "s2", b"lost"))
    bench.ask(Count())
    assert bench.hears_nothing("s2")
    bench.ask(SetRules(()))
    bench.nodes["s1"].send(packet("s1", "s2", b"passes"))
    assert bench.received("s2") == packet("s1", "s2", b"passes")


def check_waiting_packets_die_with_their_link(bench: Bench) -> None:
    bench.rule("s1", "s2", LinkRule(delay_ms=60.0))
    bench.nodes["s1"].send(packet("s1", "s2"))
    while not any(link.counters and link.counters.packets for link in bench.ask(Count()).links):
        pass
    bench.rule("s1", "s2", CUT)
    bench.ask(SetRules(()))
    assert bench.hears_nothing("s2")


def test_packets_that_wait_on_a_link_when_it_is_cut_are_lost(bench: Bench) -> None:
    check_waiting_packets_die_with_their_link(bench)


def test_a_cut_that_spares_waiting_packets_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    follow = switch._Route.follow

    def mutant(self: switch._Route, rule: LinkRule) -> None:
        generation = self.generation
        follow(self, rule)
        self.generation = generation

    monkeypatch.setattr(switch._Route, "follow", mutant)
    with pytest.raises(AssertionError):
        check_waiting_packets_die_with_their_link(bench)


def test_a_delayed_packet_is_not_early_and_passes_other_links_by(bench: Bench) -> None:
    bench.rule("s1", "s2", LinkRule(delay_ms=40.0))
    before = time.monotonic_ns()
    bench.nodes["s1"].send(packet("s1", "s2"))
    bench.nodes["s1"].send(packet("s1", "t1"))
    bench.received("t1")
    bench.received("s2")
    assert time.monotonic_ns() - before >= 40_000_000


def test_counters_tell_what_became_of_each_packet(bench: Bench) -> None:
    bench.ask(SetRules((RuledLink("s1", "s2", LinkRule(duplicate=1.0)), RuledLink("s1", "t1", LinkRule(loss=1.0)))))
    for target in ("s2", "t1", "t1"):
        bench.nodes["s1"].send(packet("s1", target, b"12345"))
    assert bench.received("s2") == bench.received("s2")
    while True:
        counted = {link.target: link.counters for link in bench.ask(Count()).links}
        if counted["t1"] is not None and counted["t1"].packets == 2:
            break
    doubled, lost = counted["s2"], counted["t1"]
    assert doubled is not None
    assert (doubled.packets, doubled.bytes, doubled.delivered, doubled.duplicated) == (1, 25, 2, 1)
    assert (lost.packets, lost.delivered, lost.lost) == (2, 0, 2)


def test_a_device_that_refuses_packets_does_not_stop_the_switch(bench: Bench) -> None:
    bench.nodes["s2"].close()
    for _ in range(3):
        bench.nodes["s1"].send(packet("s1", "s2"))
    bench.nodes["s1"].send(packet("s1", "t1"))
    assert bench.received("t1") == packet("s1", "t1")
