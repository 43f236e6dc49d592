"""The two requests to rtnetlink(7) that ioctls cannot make, or not in a user namespace: queue length, veth pairs.

Each acts in the network namespace of the caller. Raises OSError with the kernel's number.
"""

from __future__ import annotations

import os
import socket
import struct

RTM_NEWLINK = 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR = 2
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 13, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
ANSWER_BYTES = 1 << 16


def _attribute(kind: int, payload: bytes) -> bytes:
    size = 4 + len(payload)
    return struct.pack("=HH", size, kind) + payload + bytes(-size % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _name(value: str) -> bytes:
    return _attribute(IFLA_IFNAME, value.encode() + b"\0")


def _link(index: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)


def _request(flags: int, body: bytes) -> None:
    header = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as connection:
        connection.send(header + body)
        answer = connection.recv(ANSWER_BYTES)
    kind = struct.unpack_from("=H", answer, 4)[0]
    number = -struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
    if number:
        raise OSError(number, os.strerror(number))


def set_queue_length(name: str, packets: int) -> None:
    """How many packets may wait to be sent on an interface."""
    _request(0, _link(socket.if_nametoindex(name)) + _number(IFLA_TXQLEN, packets))


def add_veth(name: str, hardware_address: bytes, mtu: int, peer: str, peer_net: int) -> None:
    """A virtual cable: one end here, the other, called `peer`, in the network namespace behind the descriptor."""
    other = _link() + _name(peer) + _number(IFLA_MTU, mtu) + _number(IFLA_NET_NS_FD, peer_net)
    info = _attribute(IFLA_INFO_KIND, b"veth\0") + _attribute(IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, other))
    body = _link() + _name(name) + _attribute(IFLA_ADDRESS, hardware_address) + _number(IFLA_MTU, mtu)
    _request(NLM_F_CREATE | NLM_F_EXCL, body + _attribute(IFLA_LINKINFO, info))
