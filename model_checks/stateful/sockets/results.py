"""What the answer to a request means: a result, a refusal, or that nothing is known.

A 500 is one of three things, told apart by its text: the state machine refused the command, which stands in the log; an
agent refused to serve it, and nothing was appended; or nobody knows. Source: Consul, "HTTP API structure", and the
texts of its errors.
"""

from __future__ import annotations

from msgspec.structs import replace

from model_checks.catalog.http_answers import HttpReply, outcome, session_id, shown_outcome, truth
from model_checks.catalog.payloads import Malformed
from model_checks.stateful.sockets.history import Answered
from spec.catalog.commands import Command, CreateSession, KvOperation, KvVerb, Lock, Transaction
from spec.catalog.transactions import OperationError, Outcome
from spec.catalog.transitions import Failed, Result

REFUSED = ("No cluster leader", "No known Consul servers", "Not ready to serve consistent reads")
"""Ends of the bodies of 500s that mean: nothing was appended."""
UNKNOWN = "rpc error:"
"""How the body of a 500 begins that says nothing of whether it happened."""
NAMELESS = "of a session that was refused"


def is_refused(answer: Answered) -> bool:
    """An agent's word that nothing was appended."""
    return answer.status in (429, 503) or (answer.status == 500 and answer.body.endswith(REFUSED))


def is_unknown(answer: Answered | None) -> bool:
    """No answer, or one that says nothing of whether it happened."""
    return answer is None or (answer.status == 500 and answer.body.startswith(UNKNOWN))


def is_unserved(answer: Answered | None) -> bool:
    """Of a read: it was not answered."""
    return answer is None or is_unknown(answer) or is_refused(answer)


def result_of(command: Command, reply: HttpReply) -> tuple[Command, Result]:
    """A command as it was carried out (a session has its id now), and what its client was told. Raises Malformed."""
    if reply.status == 500:
        if isinstance(command, CreateSession):  # it had an id that nobody will know
            command = CreateSession(replace(command.session, id=NAMELESS))
        return command, Failed(reply.body.decode())
    if isinstance(command, Transaction) and reply.status in (200, 409):
        return command, outcome(reply)
    if reply.status != 200:
        raise Malformed(f"status {reply.status}: {reply.body[:200]!r}")
    if isinstance(command, CreateSession):
        return CreateSession(replace(command.session, id=session_id(reply))), True
    return command, truth(reply)


def as_shown(result: Result) -> Result:
    """A result of the spec, without what the documents do not show."""
    return shown_outcome(result) if isinstance(result, Outcome) else result


def locked_keys(command: Command) -> tuple[str, ...]:
    """The keys whose locks a command wants."""
    match command:
        case Lock(key):
            return (key,)
        case Transaction(operations):
            return tuple(op.key for op in operations if isinstance(op, KvOperation) and op.verb is KvVerb.LOCK)
        case _:
            return ()


def is_delay(command: Command, result: Result, delayed: list[str]) -> bool:
    """Whether the result is a refusal because of lock-delays of some of these keys."""
    match command, result:
        case Lock(), False:
            return True
        case Transaction(operations), Outcome(errors=(_, *_) as errors):
            return all(
                isinstance(operation := operations[error.position], KvOperation)
                and operation.key in delayed
                and error == OperationError(error.position, delay_text(operation.key))
                for error in errors
            )
        case _:
            return False


def delay_text(key: str) -> str:
    """What a transaction says of a key whose lock-delay lasts."""
    return f'failed to lock key "{key}" due to lock delay'


def text(value: object) -> str:
    """For people."""
    shortened = repr(value)
    return shortened if len(shortened) <= 3000 else f"{shortened[:3000]}..."
