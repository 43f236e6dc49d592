"""Network interfaces by ioctl(2): a TUN device with an address, up, in the network namespace of the caller.

netdevice(7), and the kernel's Documentation/networking/tuntap.rst. No ip(8), no netlink: five ioctls suffice.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
SIOCSIFMTU, SIOCSIFTXQLEN = 0x8922, 0x8943
IFF_UP, IFF_RUNNING = 0x1, 0x40
TX_QUEUE_PACKETS = 10_000
"""A burst must wait for the switch, not be dropped by the device (its default is 500 packets): TCP would stall for
200 ms."""


def _ioctl(request: int, name: str, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, request, struct.pack("16s16s8x", name.encode(), payload))


def set_up(name: str) -> None:
    """Bring an interface up."""
    _ioctl(SIOCSIFFLAGS, name, struct.pack("=H", IFF_UP | IFF_RUNNING))


def set_address(name: str, address: str, prefix_bits: int) -> None:
    """Give an interface its IPv4 address and network."""
    netmask = (0xFFFFFFFF << (32 - prefix_bits)) & 0xFFFFFFFF
    _ioctl(SIOCSIFADDR, name, struct.pack("=H2x4s", socket.AF_INET, socket.inet_aton(address)))
    _ioctl(SIOCSIFNETMASK, name, struct.pack("=H2x4s", socket.AF_INET, struct.pack("!I", netmask)))


def open_tun(name: str, address: str, prefix_bits: int, mtu: int) -> int:
    """Make a TUN device in this namespace, up, with an address; returns its non-blocking descriptor: read(2) yields
    one IP packet that a process here sent, write(2) delivers one. The device is gone when the descriptor is
    closed. Raises OSError."""
    descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        _ioctl(SIOCSIFMTU, name, struct.pack("=i", mtu))
        _ioctl(SIOCSIFTXQLEN, name, struct.pack("=i", TX_QUEUE_PACKETS))
        set_address(name, address, prefix_bits)
        set_up(name)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
