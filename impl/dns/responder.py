"""Messages: a question is read, and its answer written as bytes that whoever asked takes.

Must not do I/O, nor decide what is answered: `answers` does. Source: RFC 1035, section 4.1; RFC 6891.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from impl.dns.answers import Answer, Answers
from impl.dns.counters import Counters
from impl.dns.directory import Directory
from impl.dns.fitting import fitted, room_for
from impl.dns.selection import Selection
from impl.dns.settings import Settings
from impl.dns.zone import Zone

_TRANSFERS: Final = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
"""Of whole zones: the domain is none that another server could serve."""


class Responder:
    """Answers the questions that reach one agent."""

    def __init__(
        self, directory: Directory, settings: Settings, shuffle: Callable[[list[Any]], None], serial: Callable[[], int]
    ) -> None:
        """`shuffle` draws an order in place; `serial` is the SOA's serial number (Consul: seconds since 1970)."""
        self.counters = Counters()
        self._directory = directory
        self._settings = settings
        self._shuffle = shuffle
        self._serial = serial
        self._zone = Zone.of(settings)

    def reconfigure(self, settings: Settings) -> None:
        """From now on; the domain stays."""
        self._settings = settings

    async def respond(self, wire: bytes, *, datagram: bool) -> bytes | None:
        """The answer to a message; None: drop it."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            self.counters.malformed += 1
            return refusal(wire, dns.rcode.FORMERR)
        if query.flags & dns.flags.QR:
            self.counters.malformed += 1
            return None
        settings = self._settings
        response = dns.message.make_response(query, recursion_available=False)
        room = room_for(query, settings.udp_answer_limit, datagram=datagram)
        if query.opcode() != dns.opcode.QUERY or any(each.rdtype in _TRANSFERS for each in query.question):
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            self.counters.malformed += 1
            response.set_rcode(dns.rcode.FORMERR)
        else:
            question = query.question[0]
            answer = await self._answers(settings, room.enough).about(question.name, question.rdtype)
            _write(answer, response)
        self.counters.answered += 1
        answered, cut = fitted(response, room, mark=settings.enable_truncate)
        self.counters.truncated += cut
        return answered

    def _answers(self, settings: Settings, enough: int) -> Answers:
        selection = Selection(self._directory, self._shuffle, only_passing=settings.only_passing)
        return Answers(self._zone, settings, selection, self.counters, self._serial, enough)


def _write(answer: Answer, response: dns.message.Message) -> None:
    """Put an answer into a message, each record with those of its name and type.

    What is additional is repeated for every record that it belongs to, as Consul does: HAProxy takes one for each.
    """
    response.set_rcode(answer.rcode)
    if answer.authoritative:
        response.flags |= dns.flags.AA
    for section, records in ((response.answer, answer.answer), (response.authority, answer.authority)):
        for name, ttl, data in records:
            # The message finds them by an index.
            response.find_rrset(section, name, dns.rdataclass.IN, data.rdtype, create=True).add(data, ttl)
    response.additional = [dns.rrset.from_rdata(name, ttl, data) for name, ttl, data in answer.additional]


def refusal(wire: bytes, rcode: int) -> bytes | None:
    """An answer that says nothing but the code; None if not even the header of a question can be read."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([0x80 | (wire[2] & 0x79), rcode]) + bytes(8)
