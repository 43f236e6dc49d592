"""The OpenAPI document of the HTTP API, made of the route table, of `operations` and of the types in `shapes`.

It describes what this agent serves. Consul serves none. Source: OpenAPI 3.1.0; JSON Schema 2020-12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from impl.agent.describe import VERSION
from impl.http import body_shapes
from impl.http.operations import ANY_BYTES, ARCHIVE, EMPTY, OPERATIONS, PARAMETERS, TEXT, Operation

Schema = dict[str, Any]
Routes = Mapping[str, Mapping[str, Any]]
"""Of each endpoint, the handler of each method."""

_REFERENCE: Final = "#/components/schemas/{name}"
_STRING: Final = {"type": "string"}
_BYTES: Final[Mapping[Any, Schema]] = {
    ANY_BYTES: {"application/octet-stream": {"schema": {}}},
    ARCHIVE: {"application/x-gzip": {"schema": {}}},
}
_NO_DOCUMENTS: Final = (ANY_BYTES, ARCHIVE, TEXT, EMPTY)
_ALWAYS: Final[Schema] = {"X-Consul-Default-Acl-Policy": {"required": True, "schema": {"const": "allow"}}}
_INDEXED: Final[Schema] = {
    "X-Consul-Index": {"required": True, "schema": {"type": "integer", "minimum": 1}},
    "X-Consul-Knownleader": {"required": True, "schema": {"type": "boolean"}},
    "X-Consul-Lastcontact": {"required": True, "schema": {"type": "integer", "minimum": 0}},
    "X-Consul-Effective-Consistency": {
        "required": True,
        "schema": {"type": "string", "enum": ["leader", "consistent", "stale"]},
    },
    "X-Consul-Query-Backend": {"required": True, "schema": {"const": "blocking-query"}},
}
_REFUSALS: Final = {
    400: "The request makes no sense; the text says why.",
    413: "The body is too large.",
    500: "It could not be done, or was refused; the text says why.",
}


def document(routes: Routes) -> Schema:
    """The OpenAPI document of these routes. Raises KeyError: `operations` has no entry for one."""
    types = _types()
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = {repr(each): schema for each, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Schema] = {}
    for endpoint, methods in routes.items():
        for method, handler in methods.items():
            operation = OPERATIONS[method, endpoint]
            path = f"{endpoint}{{{operation.rest}}}" if operation.rest else endpoint
            # `/v1/acl/policy/` beside `/v1/acl/policy`: two paths, whose operations need two names.
            named = f"{endpoint}{operation.rest}" if endpoint.removesuffix("/") in routes else endpoint
            said = _operation(method, named, operation, handler.__doc__ or "", schema_of)
            paths.setdefault(path, {})[method.lower()] = said
    return {
        "openapi": "3.1.0",
        "info": {"title": "Comitia: Consul's HTTP API", "version": VERSION, "license": {"name": "MPL-2.0"}},
        "paths": paths,
        "components": {"schemas": {name: _closed(name, schema) for name, schema in sorted(components.items())}},
    }


def _types() -> list[Any]:
    """Every type that an operation names, once."""
    found: dict[str, Any] = {}
    for operation in OPERATIONS.values():
        for each in (*(shape for shapes_ in operation.answers.values() for shape in shapes_), operation.body):
            if each is not None and each not in _NO_DOCUMENTS:
                found[repr(each)] = each
    return list(found.values())


def _closed(name: str, schema: Schema) -> Schema:
    """An answer has no fields but those that its type has; of a body others are ignored."""
    if "properties" not in schema or name in body_shapes.NAMES:
        return schema
    return {**schema, "additionalProperties": False}


def _operation(method: str, endpoint: str, operation: Operation, doc: str, schema_of: Mapping[str, Schema]) -> Schema:
    said: Schema = {
        "operationId": _identifier(method, endpoint),
        "summary": " ".join(doc.split("\n\n")[0].split()),
        "tags": [endpoint.split("/")[2]],
        "parameters": list(_parameters(operation)),
        "responses": {
            **{str(status): _answer(each, operation, schema_of) for status, each in operation.answers.items()},
            **{
                str(status): _text(why)
                for status, why in _REFUSALS.items()
                if status != 413 or operation.body is not None
            },
        },
    }
    if operation.body is not None:
        content = _BYTES.get(operation.body) or {"application/json": {"schema": schema_of[repr(operation.body)]}}
        said["requestBody"] = {"required": operation.body_required, "content": content}
    return said


def _identifier(method: str, endpoint: str) -> str:
    words = endpoint.removeprefix("/v1/").replace(".", "/").replace("-", "/").split("/")
    return method.lower() + "".join(word.capitalize() for word in words)


def _parameters(operation: Operation) -> Iterator[Schema]:
    if operation.rest:
        schema = {**_STRING, "minLength": 1}
        yield {"name": operation.rest, "in": "path", "required": True, "schema": schema}
    for named in operation.parameters:
        name = named.removesuffix("!")
        parameter = PARAMETERS[name]
        schema = {"type": "array", "items": parameter.schema} if parameter.several else dict(parameter.schema)
        shown = {"name": name, "in": "query", "description": parameter.description, "schema": schema}
        yield (
            shown
            | ({"required": True} if named.endswith("!") else {})
            | ({"allowEmptyValue": True} if schema.get("const") == "" else {})
        )


def _answer(bodies: tuple[Any, ...], operation: Operation, schema_of: Mapping[str, Schema]) -> Schema:
    schemas = [schema_of[repr(each)] for each in bodies if each not in _NO_DOCUMENTS]
    content: Schema = dict(_BYTES[ARCHIVE]) if ARCHIVE in bodies else {}
    if schemas:
        content["application/json"] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if TEXT in bodies:
        content["text/plain"] = {"schema": _STRING}
    headers = {**_ALWAYS, **(_INDEXED if operation.indexed else {})}
    return {"description": "The answer.", "headers": headers} | ({"content": content} if content else {})


def _text(description: str) -> Schema:
    return {"description": description, "headers": _ALWAYS, "content": {"text/plain": {"schema": _STRING}}}
