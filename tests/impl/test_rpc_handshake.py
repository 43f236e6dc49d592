"""Who may speak with whom: the handshake's rules, and where a server may listen."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.rpc.bind import InsecureBind, check_bind
from impl.rpc.handshake import (
    PROTOCOL,
    AgentRole,
    Hello,
    Purpose,
    Refusal,
    check,
    decode_hello,
    decode_refusal,
    encode,
)

A = Hello(PROTOCOL, "c1", "id-a", "a", "dc1", 3, AgentRole.SERVER, Purpose.RAFT)
B = msgspec.structs.replace(A, node_id="id-b", node_name="b", incarnation=1)


def with_(hello: Hello, **changes: object) -> Hello:
    return msgspec.structs.replace(hello, **changes)


def test_two_servers_of_one_cluster_may_speak() -> None:
    assert check(A, B, Purpose.RAFT) is None
    assert check(A, B, Purpose.RPC) is None


@pytest.mark.parametrize(
    ("changes", "purpose", "cause"),
    [
        ({"protocol": 9}, Purpose.RPC, "protocol"),
        ({"datacenter": "dc2"}, Purpose.RPC, "datacenter"),
        ({"cluster_id": "c2"}, Purpose.RPC, "cluster"),
        ({"cluster_id": "c2"}, Purpose.RAFT, "cluster"),
        ({"cluster_id": ""}, Purpose.RAFT, "unformed"),
        ({"role": AgentRole.CLIENT}, Purpose.RAFT, "role"),
        ({"node_id": "id-a"}, Purpose.RAFT, "same node"),
        ({"node_name": "a"}, Purpose.RAFT, "same name"),
    ],
)
def test_whoever_does_not_fit_is_refused_by_either_side(
    changes: dict[str, object], purpose: Purpose, cause: str
) -> None:
    stranger = with_(B, **changes)
    refusal = check(A, stranger, purpose)
    assert refusal is not None
    assert refusal.cause == cause
    if cause != "protocol":
        mirrored = check(stranger, A, purpose)
        assert mirrored is not None
        assert mirrored.cause == cause


def test_before_a_cluster_has_formed_agents_may_call_each_other() -> None:
    unformed = with_(B, cluster_id="")
    assert check(A, unformed, Purpose.RPC) is None
    assert check(unformed, A, Purpose.RPC) is None
    assert check(A, with_(B, role=AgentRole.CLIENT, cluster_id=""), Purpose.RPC) is None


def test_a_hello_survives_the_wire_and_one_of_another_version_is_named_whatever_its_shape() -> None:
    assert decode_hello(encode(A)) == A
    refusal = decode_hello(msgspec.msgpack.encode([2, {"new": "shape"}]))
    assert isinstance(refusal, Refusal)
    assert (refusal.cause, "same version" in refusal.text) == ("protocol", True)
    assert decode_refusal(encode(refusal)) == refusal


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.one_of(st.binary(max_size=80), st.integers(0, 60).map(lambda n: encode(A)[:n]), st.integers(0, 399)))
def test_no_bytes_make_the_handshake_fail_otherwise_than_by_refusal(noise: bytes | int) -> None:
    if isinstance(noise, int):
        flipped = bytearray(encode(A))
        flipped[noise // 8 % len(flipped)] ^= 1 << noise % 8
        noise = bytes(flipped)
    assert isinstance(decode_hello(noise), Hello | Refusal)
    assert isinstance(decode_refusal(noise), Refusal)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_may_be_bound(address: str) -> None:
    check_bind(address, {}, allow_insecure=False)


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "::", "8.8.8.8", "example.org", ""])
def test_other_addresses_only_in_a_closed_namespace_or_when_the_user_insists(address: str) -> None:
    with pytest.raises(InsecureBind, match=r"Use -bind 127\.0\.0\.1, or -allow-insecure-rpc"):
        check_bind(address, {"COMITIA_NAMESPACE": "0"}, allow_insecure=False)
    check_bind(address, {"COMITIA_NAMESPACE": "1"}, allow_insecure=False)
    check_bind(address, {}, allow_insecure=True)
