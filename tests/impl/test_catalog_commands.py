"""The log's payloads are the arrays of ARCHITECTURE.md, section 7, and stay so: they are on disks."""

from __future__ import annotations

import msgspec
import pytest

from impl.catalog.commands import (
    Command,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvSet,
    Noop,
    UnknownCommand,
    Write,
    decode_command,
    describe_write,
    encode_command,
)

PAYLOADS: list[tuple[Command, list[object]]] = [
    (Noop(), ["noop"]),
    (KvSet("k", b"v", 2**64 - 1), ["kv-set", "k", b"v", 2**64 - 1]),
    (KvCas("k", b"v", 3, 4), ["kv-cas", "k", b"v", 3, 4]),
    (KvDelete("k"), ["kv-delete", "k"]),
    (KvDeleteCas("k", 4), ["kv-delete-cas", "k", 4]),
    (KvDeleteTree("p/"), ["kv-delete-tree", "p/"]),
]


@pytest.mark.parametrize(("command", "array"), PAYLOADS)
def test_a_payload_is_an_array_that_names_its_command(command: Command, array: list[object]) -> None:
    payload = encode_command(command)
    assert msgspec.msgpack.decode(payload) == array
    assert decode_command(payload) == command


@pytest.mark.parametrize("array", [["kv-frobnicate", "k"], ["kv-set", "k"], ["kv-set", "k", b"v", -1], [], "noop", 7])
def test_a_payload_of_another_version_is_never_skipped(array: object) -> None:
    with pytest.raises(UnknownCommand, match="run the version that wrote it"):
        decode_command(msgspec.msgpack.encode(array))


@pytest.mark.parametrize(
    ("command", "described"),
    [
        (KvSet("k", b"v", 1), ["kv-set", "k"]),
        (KvCas("k", b"v", 1, 9), ["kv-cas", "k", 9]),
        (KvDelete("k"), ["kv-delete", "k"]),
        (KvDeleteCas("k", 9), ["kv-delete-cas", "k", 9]),
        (KvDeleteTree("p"), ["kv-delete-tree", "p"]),
    ],
)
def test_an_answer_line_names_the_write_without_its_value(command: Write, described: list[object]) -> None:
    assert describe_write(command) == described
