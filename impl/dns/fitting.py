"""What of an answer is sent: as much as the client takes, in whole records, and marked if any of the answer is missing.

What does not fit goes in this order: metadata, repetitions, additional records, records of the answer, authority. Pure;
must not look anything up. Source: RFC 1035, section 4.2.1; RFC 2181, section 9; RFC 6891, section 6.2.3.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.rrset

from impl.dns.records import TXT

DATAGRAM_BYTES: Final = 512
"""Of an answer to who does not say that larger ones are welcome (RFC 1035, section 2.3.4)."""
DATAGRAM_BYTES_MAX: Final = 65_535 - 68
"""Consul's: what a datagram carries beside the headers of IP and UDP. The kernel sends none that is larger."""
STREAM_BYTES: Final = 65_535
UDP_ANSWER_LIMIT_MAX: Final = 8
"""Records in an answer of 512 bytes; Consul's, whatever is set."""
RECORDS_MAX: Final = 1024
"""In any answer. Consul's bound of SRV records, beyond which they do not fit; making more would hold up the agent."""
RECORD_BYTES_MIN: Final = 16
"""Of an A record whose name is a pointer; none in an answer about a service is shorter."""
_RECORD_BYTES = 12
"""Of a record beside its data."""
_HEADER_BYTES = 12 + 4
"""Of a message beside its records and the name that was asked for."""


class Room(NamedTuple):
    """What a client takes."""

    bytes_max: int
    """Of the whole message."""
    records_max: int
    """Of the answer section."""

    @property
    def enough(self) -> int:
        """One record more than fit, whatever is in them: it is known to be cut, then."""
        return min(self.bytes_max // RECORD_BYTES_MIN, RECORDS_MAX) + 1


def room_for(query: dns.message.Message, udp_answer_limit: int, *, datagram: bool) -> Room:
    """What who asked this takes."""
    if not datagram:
        return Room(STREAM_BYTES, RECORDS_MAX)
    if query.payload > DATAGRAM_BYTES:  # 0 without EDNS
        return Room(min(query.payload, DATAGRAM_BYTES_MAX), RECORDS_MAX)
    return Room(DATAGRAM_BYTES, min(udp_answer_limit, UDP_ANSWER_LIMIT_MAX))


def fitted(response: dns.message.Message, room: Room, *, mark: bool) -> tuple[bytes, bool]:
    """The response as bytes that the client takes, and whether it was cut; it is if records of the answer are missing.

    `mark`: who asked is told by the flag TC, and may ask again over TCP. The response is changed.
    """
    cut = _cut_to(response, room.records_max)
    while True:
        if cut and mark:
            response.flags |= dns.flags.TC
        try:
            return response.to_wire(max_size=room.bytes_max, want_shuffle=False), cut
        except dns.exception.TooBig:
            cut |= _shortened(response, room.bytes_max)


def _shortened(response: dns.message.Message, bytes_max: int) -> bool:
    """Leave out what is missed least; whether that was a part of the answer."""
    additional = response.additional
    if len(plain := [rrset for rrset in additional if rrset.rdtype != TXT]) < len(additional):
        response.additional = plain
    elif len(once := _once(additional)) < len(additional):
        response.additional = once
    elif additional:
        response.additional = []
    elif response.answer:
        return _cut_to(response, min(_fitting(response, bytes_max), _count(response) - 1))
    else:
        response.authority = []
    return False


def _cut_to(response: dns.message.Message, count: int) -> bool:
    """Keep the first `count` records of the answer, and what belongs to them; whether there were more."""
    if _count(response) <= count:
        return False
    kept: list[dns.rrset.RRset] = []
    for rrset in response.answer:
        rows = list(rrset)[: max(count, 0)]
        count -= len(rows)
        if rows:
            kept.append(dns.rrset.from_rdata_list(rrset.name, rrset.ttl, rows))
    response.answer = kept
    targets = {getattr(row, "target", None) for rrset in kept for row in rrset}
    belonging: list[dns.rrset.RRset] = []
    for rrset in response.additional:  # an alias comes before what it leads to
        if rrset.name in targets:
            belonging.append(rrset)
            targets.update(getattr(row, "target", None) for row in rrset)
    response.additional = _once(belonging)
    return True


def _count(response: dns.message.Message) -> int:
    """Records of the answer."""
    return sum(map(len, response.answer))


def _once(additional: list[dns.rrset.RRset]) -> list[dns.rrset.RRset]:
    """Each record once."""
    return list({(rrset.name, rrset.rdtype, rrset[0]): rrset for rrset in additional}.values())


def _fitting(response: dns.message.Message, bytes_max: int) -> int:
    """How many records of the answer about fit, the question and EDNS beside them."""
    left = bytes_max - _HEADER_BYTES - len(response.question[0].name.to_wire() or b"")
    count = 0
    for rrset in response.answer:
        for record in rrset:
            left -= _RECORD_BYTES + len(record.to_wire() or b"")
            if left < 0:
                return count
            count += 1
    return count
