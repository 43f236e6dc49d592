"""Judges answers by the OpenAPI document of the agent that gave them: status, content type, headers and body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs


class Conformance:
    """The document, and what an answer must be by it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def operation(self, method: str, endpoint: str) -> dict[str, Any]:
        """The operation of a route: its path is the endpoint, perhaps with one parameter behind it."""
        (path,) = (each for each in self.document["paths"] if each.partition("{")[0] == endpoint)
        found: dict[str, Any] = self.document["paths"][path][method.lower()]
        return found

    def objection(self, method: str, endpoint: str, status: int, headers: Mapping[str, str], body: bytes) -> str:
        """What is wrong with an answer; "": nothing. Names of headers in lower case."""
        said = self.operation(method, endpoint)["responses"].get(str(status))
        if said is None:
            return f"status {status} is not documented"
        for name, header in said["headers"].items():
            if name.lower() not in headers:
                return f"{name} is missing"
            value = headers[name.lower()]
            read = value if header["schema"].get("type", "string") == "string" else json.loads(value)
            if not jsonschema_rs.is_valid(header["schema"], read):
                return f"{name} is {value}"
        content = said.get("content", {})
        kind = headers.get("content-type", "").partition(";")[0]
        if not content:
            return f"a body: {body!r}" if body or kind else ""
        if kind not in content:
            return f"content type {kind!r} is not documented"
        if kind != "application/json":
            return ""
        schema = {**content[kind]["schema"], "components": self.document["components"]}
        try:
            jsonschema_rs.validate(schema, json.loads(body))
        except jsonschema_rs.ValidationError as error:
            return str(error)
        return ""
