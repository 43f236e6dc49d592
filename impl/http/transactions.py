"""`/v1/txn`: transactions. One that only reads goes past the log, with the consistency that it asks for.

Source: Consul, "Transaction HTTP API".
"""

from __future__ import annotations

from impl.catalog.commands import Transaction
from impl.catalog.queries import ReadTransaction, TransactionAnswer
from impl.catalog.transactions import Outcome, only_reads
from impl.http import bodies, writes
from impl.http.context import Context, Request
from impl.http.documents import outcome_document
from impl.http.request import KV_SIZE_SETTING, read_options
from impl.http.response import Response, json_response, read_headers

BODY_SIZE_FACTOR = 2
"""Values travel in base64, and beside names."""


async def run(context: Context, request: Request) -> Response:
    """PUT /v1/txn: 200 with the results, 409 with the errors."""
    limit = context.kv_max_value_size
    body = await request.body(BODY_SIZE_FACTOR * limit, KV_SIZE_SETTING)
    try:
        operations = bodies.operations(body, context.datacenter, limit)
    except bodies.RefusedOperations as refused:
        return _response(Outcome([], refused.errors), request)
    if not only_reads(operations):
        outcome = await writes.result(context.agent, Transaction(operations))
        assert isinstance(outcome, Outcome)
        return _response(outcome, request)
    options = read_options(request.parameters)
    reply = await context.agent.read(ReadTransaction(operations), options)
    assert isinstance(reply.answer, TransactionAnswer)
    headers = [header for header in read_headers(0, reply, options.consistency) if header[0] != b"X-Consul-Index"]
    return _response(reply.answer.outcome, request, tuple(headers))


def _response(outcome: Outcome, request: Request, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    shown = json_response(outcome_document(outcome), request.pretty, headers)
    return Response(409, shown.headers, shown.body) if outcome.errors else shown
