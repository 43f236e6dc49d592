"""Servers find each other again after restarts, even when those that they are told to join are gone."""

from __future__ import annotations

import pytest

from impl.agent.membership.address_book import NAME, load_addresses, save_addresses
from impl.agent.membership.discovery import Discovery, make_genesis
from impl.agent.requests.protocol import ServerInfo
from impl.runtime.virtual_disk import VirtualDisk

S2, S3 = (ServerInfo(name, f"id-{name}", "127.0.0.1", port) for name, port in (("s2", 2), ("s3", 3)))


@pytest.fixture
def disk() -> VirtualDisk:
    made = VirtualDisk()
    made.make_directories("data")
    return made


def test_what_was_noted_is_there_after_a_power_loss(disk: VirtualDisk) -> None:
    assert load_addresses(disk, "data") == ()
    save_addresses(disk, "data", (S2,))
    save_addresses(disk, "data", (S2, S3))
    disk.power_loss()
    assert load_addresses(disk, "data") == (S2, S3)


@pytest.mark.parametrize("content", [b"", b"{", b'[["s2", 7]]', b'[["\xff", "id", "h", 1]]'])
def test_a_note_that_makes_no_sense_is_as_good_as_none(disk: VirtualDisk, content: bytes) -> None:
    save_addresses(disk, "data", ())
    disk.put(f"data/{NAME}", content)
    assert load_addresses(disk, "data") == ()


def test_a_note_is_a_hint_that_the_servers_themselves_correct() -> None:
    genesis = make_genesis([("s1", "id-s1", ""), ("s2", "id-s2", ""), ("s3", "id-s3", "")])
    discovery = Discovery(ServerInfo("s1", "id-s1", "127.0.0.1", 1), 3, genesis)
    discovery.remember((S2, ServerInfo("s3", "another", "127.0.0.1", 9)))
    assert discovery.addresses(()) == [S2.address], "another server of that name is not the voter"
    moved = ServerInfo("s2", "id-s2", "127.0.0.1", 22)
    discovery.hear(Discovery(moved, 3, genesis).introduction())
    assert discovery.addresses(()) == [moved.address]
