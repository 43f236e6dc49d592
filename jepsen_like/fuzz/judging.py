"""What is wrong with an answer: nothing, or one line and the property that it breaks.

An answer must come within a deadline, be of a status, content type, headers and body that the OpenAPI document has, and
be no 5xx that Consul would not give.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import requests
from schemathesis import Case
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

DEADLINE_S: Final = 10.0
"""Longer than requests are held for a leader (7 s) and than any wait that is asked for."""

IN_TIME: Final = "every request is answered in time"
CONFORMS: Final = "every answer is what the OpenAPI document says"
NO_DEFECT: Final = "no 5xx but Consul's own"

SERVER_ERRORS: Final = (
    r"No path to datacenter",
    r"No cluster leader",
    r"No known Consul servers",
    # what Consul's servers refuse in a body
    r"Must provide (node|service name|address if SkipNodeUpdate is not set)",
    r"Must provide service name \(Service\.Service\) when service ID is provided",
    r"\d+ errors? occurred:\n(\t\* (Port|Proxy\.|A Proxy|The Proxy\.)[^\n]*\n)+\n",
    r"no port provided for sidecar_service and none left in the configured range .*",
    r"Connect must be enabled in order to use this endpoint",
    r"Invalid service address",
    r"Bad node ID: .*",
    r"Invalid Behavior setting '.*'",
    r"(Invalid Session TTL|Session TTL) '.*",
    r"failed session lookup: index error: UUID must be 36 characters",
    # what its state machine refuses
    r"(failed inserting (node|service|check) .*: )?Missing (node|service|check) registration",
    r"(failed inserting check .*: )?check node .* does not match node .*",
    r"failed inserting node: Error while renaming Node ID: .*",
    r"Missing check '.*' registration",
    r"Check '.*' is in critical state",
    r'invalid session ".*"',
    r"missing session",
    # what its agents refuse
    r"failed to verify snapshot: .*",
    r"stale not allowed for restore",
    r"agent: No node found with name '.*'",
    r"this agent has no WAN pool: .*",
    r'ServiceID ".*" does not exist',
    r'CheckID ".*" does not have associated TTL',
    # Comitia's own refusals of changes to the cluster
    r".* is alive, and stays a member: only it can leave",
    r"(cannot (add|remove|promote|demote|transfer leadership)|leadership (cannot be|was not) transferred).*",
    r".* (was not found in the Raft configuration: its servers are .*|is (already|not) .*)",
    r".* would (change|leave)\b.*",
    r"the cluster would lose its quorum: .*",
    r".* is the last voter, and nothing could be committed without it; .*",
)
"""Bodies of a 500 that are answers. Anything else is a defect."""
_ANSWERS = re.compile("|".join(f"(?:{each})" for each in SERVER_ERRORS), re.DOTALL)

_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass(frozen=True)
class Objection:
    """Why an answer is wrong."""

    property: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """One request: the status of its answer, 0 if there was none, and what is wrong with it."""

    status: int
    text: str
    objection: Objection | None


def ask(case: Case[Any], base_url: str, session: requests.Session) -> Judged:
    """Send one case and judge the answer."""
    try:
        response = case.call(base_url=base_url, session=session, timeout=DEADLINE_S)
    except requests.Timeout:
        return Judged(0, "", Objection(IN_TIME, f"no answer within {DEADLINE_S:g} s"))
    except requests.RequestException as error:
        return Judged(0, "", Objection(IN_TIME, f"no answer: {error}"))
    text = response.content.decode(errors="replace")
    return Judged(response.status_code, text, _objection(case, response, text))


def is_answer(text: str) -> bool:
    """Whether the body of a 500 is one of `SERVER_ERRORS`."""
    return _ANSWERS.fullmatch(text) is not None


def _objection(case: Case[Any], response: Any, text: str) -> Objection | None:
    status = response.status_code
    unhealthy = status == 503 and "/agent/health/" in case.operation.path
    if status >= 500 and not unhealthy and (status != 500 or not is_answer(text)):
        return Objection(NO_DEFECT, f"{status}: {text[:300]}")
    try:
        case.validate_response(response, checks=_CHECKS)
    except (FailureGroup, Failure) as failure:
        told = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
        return Objection(CONFORMS, "; ".join(f"{each.title}: {each.message}" for each in told)[:1000])
    return None
