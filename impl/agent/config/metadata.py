"""What metadata of nodes and of services may be, in Consul's limits and words.

It must not know where they come from. Source: Consul, "Agent configuration" (`node_meta`), "Define services" (`meta`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

PAIRS_MAX: Final = 64
KEY_BYTES_MAX: Final = 128
VALUE_BYTES_MAX: Final = 512
RESERVED: Final = "consul-"
"""How keys begin that are Consul's own."""
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def metadata_problem(meta: Mapping[str, str]) -> str:
    """Why these metadata cannot be kept; "": they can. (Consul's text says "Node" of services, too.)"""
    if len(meta) > PAIRS_MAX:
        return f"Node metadata cannot contain more than {PAIRS_MAX} key/value pairs"
    for key, value in meta.items():
        if why := _pair_problem(key, value):
            return f"Couldn't load metadata pair ('{key}', '{value}'): {why}"
    return ""


def _pair_problem(key: str, value: str) -> str:
    if not key:
        return "Key cannot be blank"
    if _KEY.fullmatch(key) is None:
        return "Key contains invalid characters"
    if len(key) > KEY_BYTES_MAX:
        return f"Key is too long (limit: {KEY_BYTES_MAX} characters)"
    if key.startswith(RESERVED):
        return f"Key prefix '{RESERVED}' is reserved for internal use"
    if len(value.encode()) > VALUE_BYTES_MAX:
        return f"Value is too long (limit: {VALUE_BYTES_MAX} characters)"
    return ""
