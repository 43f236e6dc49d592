"""Conformance: every recorded step of a real process is a step of the spec, taken from the spec's own state.

`trace` reads the files of ARCHITECTURE.md, section 5; `entries` names log entries and keeps their payloads; `server`
replays one server against `spec.raft`, `restarts` says what a process may find on its disk and `guards` what a step
should have waited for; `replay` orders the servers so that every receive comes after its send, which `sent` remembers;
`invariants` evaluates what is proved on the steps, facts and cuts that the replay passes; `payloads` and `answers`
replay `spec.catalog` and judge every answer to a client, `proposals` that no write is applied twice; `check` says VALID
or INVALID; `spec_runs` writes runs of the spec itself as traces. Why checking each server is enough: ARCHITECTURE.md,
section 4.
"""

from model_checks.conformance.check import check_traces
from model_checks.conformance.trace import UnreadableTrace

__all__ = ["UnreadableTrace", "check_traces"]
