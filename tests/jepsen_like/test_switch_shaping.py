"""What a link under a rule does to packets, measured over many and compared with a plain account of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

import pytest

from jepsen_like.net import corruption
from jepsen_like.net.rules import LinkCounters, LinkRule
from jepsen_like.net.shaping import MS, Shaper

SECOND = 1_000_000_000


def packet(payload: bytes = b"hello", *, protocol: int = 17, source: int = 1, target: int = 2) -> bytes:
    """An IPv4 packet with a correct UDP or TCP checksum."""
    addresses = bytes((10, 77, 0, source, 10, 77, 0, target))
    if protocol == 17:
        header, at = struct.pack("!HHHH", 1000, 2000, 8 + len(payload), 0), 6
    else:
        header, at = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 2, 5 << 4, 0x18, 65535, 0, 0), 16
    segment = header + payload
    checksum = internet_checksum(addresses + struct.pack("!BBH", 0, protocol, len(segment)) + segment)
    segment = segment[:at] + struct.pack("!H", checksum) + segment[at + 2 :]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 7, 0x4000, 64, protocol, 0) + addresses
    return ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:] + segment


def internet_checksum(data: bytes) -> int:
    """RFC 1071, the slow way."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data.ljust((len(data) + 1) // 2 * 2, b"\0")))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def kernel_accepts(received: bytes) -> bool:
    """Whether the transport checksum of a received packet is right."""
    segment = received[20:]
    pseudo = received[12:20] + struct.pack("!BBH", 0, received[9], len(segment))
    return internet_checksum(pseudo + segment) == 0


def shaper(rule: LinkRule, seed: int = 1) -> tuple[Shaper, LinkCounters]:
    counters = LinkCounters()
    return Shaper(rule, Random(seed), counters), counters


def arrivals(rule: LinkRule, count: int, gap_ns: int = MS, seed: int = 1) -> list[list[tuple[int, bytes]]]:
    """What becomes of `count` packets sent `gap_ns` apart from time SECOND on."""
    link, _ = shaper(rule, seed)
    return [link.plan(packet(str(n).encode()), SECOND + n * gap_ns) for n in range(count)]


def check_share(happened: int, of: int, probability: float) -> None:
    """Within five standard deviations of what independent draws give."""
    deviation = (of * probability * (1 - probability)) ** 0.5
    assert abs(happened - of * probability) <= 5 * deviation, f"{happened} of {of}, expected {of * probability:.0f}"


def test_a_cut_link_delivers_nothing_and_counts_it() -> None:
    link, counters = shaper(LinkRule(cut=True, duplicate=1.0))
    assert [link.plan(packet(), SECOND) for _ in range(100)] == [[]] * 100
    assert counters.cut == 100


def check_loss() -> None:
    lost = sum(not copies for copies in arrivals(LinkRule(loss=0.3), 10_000))
    check_share(lost, 10_000, 0.3)


def test_loss_is_a_probability_per_packet() -> None:
    check_loss()


def test_a_generator_that_is_not_uniform_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Random, "random", lambda self: self.getrandbits(20) / 2**20 * 0.9)
    with pytest.raises(AssertionError):
        check_loss()


def test_duplicates_arrive_twice() -> None:
    copies = [len(each) for each in arrivals(LinkRule(duplicate=0.2), 10_000)]
    assert set(copies) == {1, 2}
    check_share(copies.count(2), 10_000, 0.2)


def test_delay_is_added_to_the_time_of_sending() -> None:
    for n, copies in enumerate(arrivals(LinkRule(delay_ms=25.0), 100)):
        assert [at for at, _ in copies] == [SECOND + n * MS + 25 * MS]


def check_jitter_keeps_order(rule: LinkRule) -> None:
    times = [copies[0][0] for copies in arrivals(rule, 5_000)]
    assert times == sorted(times)
    delays = [at - (SECOND + n * MS) for n, at in enumerate(times)]
    assert min(delays) >= 15 * MS
    assert max(delays) > 33 * MS, "jitter must reach towards its bound"


def test_jitter_varies_the_wait_but_not_the_order() -> None:
    check_jitter_keeps_order(LinkRule(delay_ms=25.0, jitter_ms=10.0))


def test_a_link_that_reorders_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_jitter_keeps_order(LinkRule(delay_ms=25.0, jitter_ms=10.0, reorder=0.01))


def test_a_reordered_packet_is_overtaken() -> None:
    times = [copies[0][0] for copies in arrivals(LinkRule(reorder=0.1, reorder_ms=5.0), 10_000)]
    late = [n for n, at in enumerate(times) if at != SECOND + n * MS]
    check_share(len(late), 10_000, 0.1)
    assert all(times[n] == SECOND + n * MS + 5 * MS for n in late)


def check_rate() -> None:
    rule = LinkRule(rate_bytes_per_s=100_000, queue_bytes=10_000)
    link, counters = shaper(rule)
    sent = [packet(bytes(972)) for _ in range(100)]  # 1,000 bytes each: 10 ms on the line
    arrived = [at for each in sent for at, _ in link.plan(each, SECOND)]
    assert arrived == [SECOND + (n + 1) * 10 * MS for n in range(10)]
    assert counters.overflowed == 90, "what does not fit the queue is dropped from its tail"
    assert link.plan(sent[0], SECOND + 10 * SECOND) == [(SECOND + 10 * SECOND + 10 * MS, sent[0])], (
        "an idle line saves nothing up"
    )


def test_a_limited_rate_spaces_packets_and_bounds_the_queue() -> None:
    check_rate()


def test_a_line_that_forgets_when_it_is_free_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Shaper.plan

    def mutant(self: Shaper, data: bytes, now_ns: int) -> list[tuple[int, bytes]]:
        self._line_free_ns = 0
        return plan(self, data, now_ns)

    monkeypatch.setattr(Shaper, "plan", mutant)
    with pytest.raises(AssertionError):
        check_rate()


def test_the_same_seed_gives_the_same_run() -> None:
    rule = LinkRule(loss=0.1, duplicate=0.1, jitter_ms=5.0, reorder=0.1, corrupt=0.1)
    assert arrivals(rule, 500, seed=3) == arrivals(rule, 500, seed=3)
    assert arrivals(rule, 500, seed=3) != arrivals(rule, 500, seed=4)


def differing_bits(a: bytes, b: bytes) -> int:
    assert len(a) == len(b)
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("protocol", [6, 17])
def test_a_seen_corruption_is_one_bit_that_the_kernel_rejects(protocol: int) -> None:
    random, sound = Random(1), packet(b"some payload", protocol=protocol)
    assert kernel_accepts(sound)
    for _ in range(500):
        bad = corruption.corrupt_seen(sound, random)
        assert bad[:20] == sound[:20]
        assert differing_bits(bad, sound) == 1
        assert not kernel_accepts(bad)


def check_unseen(corrupt: Callable[[bytes, Random], bytes]) -> None:
    random = Random(1)
    for protocol, headers in ((6, 40), (17, 28)):
        for size in (1, 2, 3, 8, 9, 500):
            sound = packet(random.randbytes(size), protocol=protocol)
            for _ in range(50):
                bad = corrupt(sound, random)
                assert differing_bits(bad[headers:], sound[headers:]) == 1
                assert kernel_accepts(bad), (protocol, size)


def test_an_unseen_corruption_is_one_payload_bit_that_the_kernel_accepts() -> None:
    check_unseen(corruption.corrupt_unseen)


def test_a_corruption_that_does_not_repair_the_checksum_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_unseen(lambda sound, random: corruption.flip_bit(sound, 40, random)[0])


@pytest.mark.parametrize("protocol", [6, 17, 1])
def test_packets_without_a_payload_pass_unseen_corruption(protocol: int) -> None:
    bare = packet(b"", protocol=17 if protocol == 1 else protocol)
    bare = bare[:9] + bytes((protocol,)) + bare[10:]
    assert corruption.corrupt_unseen(bare, Random(1)) == bare


def test_corruption_happens_at_its_rate() -> None:
    changed = sum(
        copies[0][1] != packet(str(n).encode()) for n, copies in enumerate(arrivals(LinkRule(corrupt=0.25), 4_000))
    )
    check_share(changed, 4_000, 0.25)
