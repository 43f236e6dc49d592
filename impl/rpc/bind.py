"""Where a server may listen: the RPC port has no authentication yet, so by default only this machine may reach it.

A network namespace of the harness is as closed as the loopback interface; the harness says so in the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

NAMESPACE_VARIABLE = "COMITIA_NAMESPACE"
"""Set to 1 by whoever starts the agent in a network namespace that nobody else can reach."""


class InsecureBind(Exception):
    """The address can be reached by others."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"refusing to listen for RPC on {address}: it is not a loopback address, and RPC is neither encrypted nor "
            "authenticated. Use -bind 127.0.0.1, or -allow-insecure-rpc if the network is trusted"
        )


def check_bind(address: str, environment: Mapping[str, str], allow_insecure: bool) -> None:
    """Raise InsecureBind unless `address` is a loopback address, the namespace is closed, or the user insists."""
    if allow_insecure or environment.get(NAMESPACE_VARIABLE) == "1" or is_loopback(address):
        return
    raise InsecureBind(address)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address. Names other than localhost could mean anything: no."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
