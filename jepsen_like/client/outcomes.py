"""The outcome table: what each answer of an agent, or its absence, says about whether the operation happened.

fail is a promise (it certainly did not happen), so it is given only for what is known: refused before it was sent, or
answered by a text that Consul uses before anything is appended. Reads change nothing: a read without an answer is
fail. Everything else is info.
"""

from __future__ import annotations

from jepsen_like.client.http import RequestFailed, Response
from jepsen_like.generator.values import Ending

REFUSED_TEXTS = (
    "No cluster leader",
    "No known Consul servers",
    "Not ready to serve consistent reads",
)
"""Bodies (or the end of bodies, behind "rpc error ...:") with which an agent refuses before the log is touched."""
REFUSED_STATUSES = frozenset({400, 401, 403, 404, 405, 413, 429, 503})
"""Statuses that mean: not accepted. A 404 to a write is an unknown path; to a read it is an answer, handled before."""


def of_failure(failure: RequestFailed, *, changes: bool) -> Ending:
    """No answer at all."""
    return Ending.INFO if failure.sent and changes else Ending.FAIL


def of_error(response: Response, *, changes: bool) -> Ending:
    """An answer that is not the one hoped for: a refusal is fail, anything else may have happened."""
    if not changes or response.status in REFUSED_STATUSES:
        return Ending.FAIL
    text = response.body.decode(errors="replace").strip()
    return Ending.FAIL if text.endswith(REFUSED_TEXTS) else Ending.INFO


def describe(response: Response) -> str:
    """The error in a history: status and the beginning of the text."""
    return f"{response.status} {response.body[:200].decode(errors='replace').strip()}"
