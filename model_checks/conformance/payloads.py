"""Configurations in payloads, and the digest of the state machine that traces of snapshots record.

Written from ARCHITECTURE.md, sections 5 and 7, not from the implementation's codec: what the implementation encodes
wrongly must not decode here. Commands and queries: `model_checks/catalog`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from model_checks.catalog.payloads import Malformed, archived_fields
from spec.catalog.restore import rows_of
from spec.catalog.state import State
from spec.raft.types import Configuration

_decode = msgspec.msgpack.Decoder(list[Any]).decode


def decoded_configuration(payload: bytes) -> Configuration:
    """The configuration in an entry's payload: rows of name, node id, storage id, address, whether it votes (and what
    this checker need not know), sorted by name; then the index that allowed it. Raises Malformed.
    """
    try:
        match _decode(payload):
            case ["configuration", list(rows), int(allowed_by)]:
                votes = {str(name): bool(votes) for name, _, _, _, votes, *_ in rows}
                voters = tuple(sorted(name for name in votes if votes[name]))
                nonvoters = tuple(sorted(name for name in votes if not votes[name]))
                if [row[0] for row in rows] != sorted(votes):
                    raise Malformed(f"the members {[row[0] for row in rows]} are not sorted, or one stands there twice")
                return Configuration(voters, nonvoters, allowed_by)
            case other:
                raise Malformed(f"{str(other)[:80]} is not a configuration")
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"the payload {payload[:40]!r} is not a configuration: {error}") from error


_encode = msgspec.msgpack.Encoder().encode


def state_digest(state: State) -> str:
    """The digest of the state machine that traces of snapshots record: BLAKE2b-128 over its rows in canonical order
    (ARCHITECTURE.md, section 7), then what a restore has left and what is staged.
    """
    digest = blake2b(digest_size=16)
    for row in rows_of(state):
        digest.update(_encode(archived_fields(row)))
    if state.shift:
        digest.update(_encode(["shift", state.shift]))
    if state.staging is not None:
        digest.update(_encode(["staging", state.staging.id, state.staging.chunks]))
        for row in state.staging.rows:
            digest.update(_encode(archived_fields(row)))
    return digest.hexdigest()
