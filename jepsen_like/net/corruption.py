"""Flipping one bit of an IPv4 packet, so that the receiver's kernel notices, or so that it does not.

Pure functions of the packet and a source of randomness. Internet checksum: RFC 1071; its repair after a change: RFC
1624.
"""

from __future__ import annotations

import struct
from random import Random

TCP, UDP = 6, 17


def flip_bit(packet: bytes, first: int, random: Random) -> tuple[bytes, int]:
    """One bit at or behind offset `first` flipped, and the offset of its byte."""
    at = random.randrange(first, len(packet))
    changed = bytearray(packet)
    changed[at] ^= 1 << random.randrange(8)
    return bytes(changed), at


def corrupt_seen(packet: bytes, random: Random) -> bytes:
    """One bit behind the IP header flipped: the kernel that receives it finds a wrong checksum. Nothing behind:
    unchanged."""
    header = (packet[0] & 0x0F) * 4
    return flip_bit(packet, header, random)[0] if len(packet) > header else packet


def corrupt_unseen(packet: bytes, random: Random) -> bytes:
    """One bit of TCP or UDP payload flipped and the checksum repaired: the application gets it. No payload:
    unchanged."""
    header = (packet[0] & 0x0F) * 4
    fragment = struct.unpack_from("!H", packet, 6)[0] & 0x3FFF
    protocol = packet[9]
    if protocol == TCP and not fragment and len(packet) >= header + 20:
        payload, checksum = header + (packet[header + 12] >> 4) * 4, header + 16
    elif protocol == UDP and not fragment and len(packet) >= header + 8:
        payload, checksum = header + 8, header + 6
    else:
        return packet
    if payload >= len(packet):
        return packet
    changed, at = flip_bit(packet, payload, random)
    word = at - (at - header) % 2
    before, after = (_word(packet, word), _word(changed, word))
    old = _word(packet, checksum)
    if protocol == UDP and old == 0:  # no checksum in use
        return changed
    repaired = _repaired(old, before, after)
    if protocol == UDP and repaired == 0:
        repaired = 0xFFFF
    return changed[:checksum] + struct.pack("!H", repaired) + changed[checksum + 2 :]


def _word(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2].ljust(2, b"\0"), "big")


def _repaired(checksum: int, before: int, after: int) -> int:
    """RFC 1624, equation 3: HC' = ~(~HC + ~m + m')."""
    total = (~checksum & 0xFFFF) + (~before & 0xFFFF) + after
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
