"""A node's link to the switch, made in the network namespace of the caller: a TUN device, or else a virtual cable.

TUN (netdevice(7), the kernel's Documentation/networking/tuntap.rst) needs /dev/net/tun. Where that is missing or
closed to us, a veth(4) pair does, as fast: one end in the node, the other in the switch's own namespace, held by a
packet(7) socket.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

from jepsen_like.net import namespaces, rtnetlink

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU, SIOCETHTOOL = 0x8914, 0x8916, 0x891C, 0x8922, 0x8946
IFF_UP, IFF_RUNNING, IFF_NOARP = 0x1, 0x40, 0x80
ETHTOOL_STXCSUM = 0x17
ETH_P_IP = 0x0800
PACKET_IGNORE_OUTGOING = 23
SOL_PACKET = 263
TX_QUEUE_PACKETS = 10_000
"""A burst must wait for the switch, not be dropped by the device (its default is 500): TCP would stall for 200 ms."""
RECEIVE_BYTES = 64 << 20
HARDWARE_ADDRESS = bytes((2, 0, 0, 0, 0, 1))
"""Of every node's end of a cable. Without ARP the kernel addresses its frames to its own hardware address, so frames
can be forwarded as they are if all nodes have the same."""
ETHERNET_HEADER = HARDWARE_ADDRESS * 2 + struct.pack("!H", ETH_P_IP)


def _ioctl(request: int, name: str, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, request, struct.pack("16s16s8x", name.encode(), payload))


def set_up(name: str, flags: int = 0) -> None:
    """Bring an interface up, with further flags."""
    _ioctl(SIOCSIFFLAGS, name, struct.pack("=H", IFF_UP | IFF_RUNNING | flags))


def set_address(name: str, address: str, prefix_bits: int) -> None:
    """Give an interface its IPv4 address and network."""
    netmask = (0xFFFFFFFF << (32 - prefix_bits)) & 0xFFFFFFFF
    _ioctl(SIOCSIFADDR, name, struct.pack("=H2x4s", socket.AF_INET, socket.inet_aton(address)))
    _ioctl(SIOCSIFNETMASK, name, struct.pack("=H2x4s", socket.AF_INET, struct.pack("!I", netmask)))


def may_open_tun() -> bool:
    """Whether this process may make TUN devices."""
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def open_tun(name: str, address: str, prefix_bits: int, mtu: int) -> int:
    """Make a TUN device in this namespace, up, with an address; returns its non-blocking descriptor. Raises OSError.

    read(2) yields one IP packet that a process here sent, write(2) delivers one. The device goes with the descriptor.
    """
    descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        _ioctl(SIOCSIFMTU, name, struct.pack("=i", mtu))
        rtnetlink.set_queue_length(name, TX_QUEUE_PACKETS)
        set_address(name, address, prefix_bits)
        set_up(name)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_cable(name: str, address: str, prefix_bits: int, mtu: int, peer: str, switch_net: int) -> int:
    """Make a veth pair from this namespace to the switch's, both ends up; a non-blocking descriptor of the far end.

    read(2) yields, and write(2) takes, one IP packet behind an ETHERNET_HEADER. This process is in the switch's
    namespace afterwards. Raises OSError. Checksums are computed before the cable: on it, the kernel would leave them
    open.
    """
    rtnetlink.add_veth(name, HARDWARE_ADDRESS, mtu, peer, switch_net)
    _switch_off_checksum_offload(name)
    rtnetlink.set_queue_length(name, TX_QUEUE_PACKETS)
    set_address(name, address, prefix_bits)
    set_up(name, IFF_NOARP)
    namespaces.enter(switch_net, namespaces.CLONE_NEWNET)
    set_up(peer, IFF_NOARP)
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_IP))
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    for option in (socket.SO_RCVBUF, 33):  # 33: SO_RCVBUFFORCE, beyond the system's limit
        try:
            end.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BYTES)
        except PermissionError:
            print("note: bursts may lose packets: the receive buffer is limited (net.core.rmem_max)", flush=True)
    end.bind((peer, ETH_P_IP))
    return end.detach()


def _switch_off_checksum_offload(name: str) -> None:
    """ethtool(8) -K NAME tx off: ETHTOOL_STXCSUM, behind a pointer."""
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, 0))
    _ioctl(SIOCETHTOOL, name, struct.pack("@P", ctypes.addressof(value)))
