"""The disk: writes become durable, and crashes lose those that are not. `action(...) -> Outcome | None`; see `actions`.

Sources: Ongaro 2014, section 3.8 (persisted state); ARCHITECTURE.md, section 3. *Deviation from raft.tla:* a crash
may lose writes that were issued and not yet confirmed.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.state import farewell, restarted
from spec.raft.types import Constants, Outcome, Server, ServerId, Time


def persist(c: Constants, i: ServerId, s: Server, k: int) -> Outcome | None:
    """The disk confirms the first `k` issued writes (Ongaro 2014, figure 3.1: "updated on stable storage")."""
    if not 1 <= k <= len(s.issued):
        return None
    return Outcome(replace(s, durable=s.issued[k - 1].point, issued=s.issued[k:]))


def crash_restart(c: Constants, i: ServerId, s: Server, k: int, now: Time) -> Outcome | None:
    """Crash and start again from the disk, which had written `k` of the issued points; raft.tla Restart.

    The disk may have written more than it confirmed, but only a prefix of what was asked for, and never less than it
    confirmed. A leader's lease ends with its process.
    """
    if not 0 <= k <= len(s.issued):
        return None
    return Outcome(restarted(s.issued[k - 1].point if k else s.durable, now), sent=farewell(c, i, s))
