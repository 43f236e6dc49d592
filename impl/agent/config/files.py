"""Configuration files, JSON or HCL, as documents: which files of a directory count, and where mistakes are.

Source: Consul, "Agent configuration": files of a directory are read in the order of their names, those that end with
.json or .hcl; others are passed over, unless a format is said for all. *Deviations:* a file that was named and has
neither ending is refused, where Consul passes over it with a warning; `service` and `check` may be given several times.

This module reads no file: callers pass text in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from impl.agent.config import hcl
from impl.agent.config.absent import take
from impl.agent.config.document import Contents, Document
from impl.agent.config.keys import add_weights, invalid_key, strange_keys
from impl.agent.config.validated import ConfigError

FORMATS: Final = ("json", "hcl")
_SEVERAL: Final = {"service": "services", "check": "checks"}
"""Names of single definitions, and of lists of them."""
_LISTS: Final = frozenset(_SEVERAL.values())
_FIELD = re.compile(r"unknown field `([^`]*)`")
_PATH = re.compile(r" - at `([^`]*)`")
_BYTE = re.compile(r"\(byte (\d+)\)")


def format_of(name: str, chosen: str = "") -> str:
    """The format of a file; "" if it does not look like a configuration file. `chosen`: -config-format.

    Raises:
        ConfigError: there is no such format.
    """
    if chosen and chosen not in FORMATS:
        raise ConfigError(f"-config-format must be either 'hcl' or 'json', not {chosen!r}")
    return chosen or next((each for each in FORMATS if name.endswith(f".{each}")), "")


def read_document(
    text: bytes, source: str, form: str = "json", verify: Callable[[str, Any], object] = lambda kind, definition: None
) -> Document:
    """Parse one configuration file.

    Args:
        source: its name, for errors.
        form: one of `FORMATS`.
        verify: raises ConfigError for a definition ("service" or "check") that makes no sense.

    Raises:
        ConfigError: it cannot be read, has an unknown key, or a value of the wrong type or range; names file and line.
    """
    raw, lines = decode(text, source, form)

    def where(key: str) -> str:
        line = _line(f"$.{key}", lines, text)
        return f"{source}: line {line}: " if line else f"{source}: "

    absent = take(raw, where) if isinstance(raw, dict) else {}
    try:
        contents = msgspec.structs.asdict(msgspec.convert(raw, Contents))
        document = Document(absent=absent, places={key: where(key) for key in _keys(raw)}, **contents)
    except msgspec.ValidationError as error:
        place, why = _explained(str(error))
        raise _failure(source, why, _line(place, lines, text)) from error
    for kind, several in _SEVERAL.items():
        for number, definition in enumerate(getattr(document, several) or []):
            path = f"$.{several}[{number}]"
            for way, why in strange_keys(kind, definition):
                raise _failure(source, why, _line(path + way, lines, text))
            try:
                verify(kind, definition)
            except ConfigError as error:
                raise _failure(source, str(error), lines.get(path, 0)) from error
    return document


def _keys(raw: dict[str, Any]) -> Iterator[str]:
    for outer, value in raw.items():
        yield outer
        if isinstance(value, dict):
            yield from (f"{outer}.{name}" for name in value)


def decode(text: bytes, source: str, form: str) -> tuple[Any, dict[str, int]]:
    """What a file says, and on which line each part of it stands, by msgspec's paths; JSON has no lines.

    Raises:
        ConfigError: it is not of that format.
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise _failure(source, "it is not UTF-8", text.count(b"\n", 0, error.start) + 1) from error
    lines: dict[str, int] = {}
    # HCL includes JSON.
    if form == "json" or decoded.lstrip().startswith("{"):
        try:
            document = _shaped(msgspec.json.decode(text))
        except (msgspec.DecodeError, RecursionError) as error:
            found = _BYTE.search(str(error))
            line = text.count(b"\n", 0, int(found[1])) + 1 if found is not None else 0
            raise _failure(source, str(error), line) from error
    else:
        try:
            document = _plain(hcl.parse(decoded), "$", lines)
        except hcl.HclError as error:
            raise _failure(source, str(error)) from error
    add_weights(document)
    return document, lines


def _failure(source: str, why: str, line: int = 0) -> ConfigError:
    return ConfigError(f"failed to parse {source}: {f'line {line}: ' if line else ''}{why}")


def _explained(error: str) -> tuple[str, str]:
    """Where in a document an error of msgspec is, and what it says in the words of Consul, with a remedy."""
    path, unknown = _PATH.search(error), _FIELD.search(error)
    place = path[1] if path is not None else "$"
    if unknown is None:
        return place, error
    place = f"{place}.{unknown[1]}"
    return place, invalid_key(place.removeprefix("$."), Contents.__struct_fields__ if path is None else ())


def _line(place: str, lines: dict[str, int], text: bytes) -> int:
    """The line of a place in a document; 0: it is not known. JSON has no lines: a name that stands there once has."""
    if not lines:
        name = re.escape(place.rpartition(".")[2]).encode()
        found = [named.start() for named in re.finditer(b'"' + name + rb'"\s*:', text)]
        return text.count(b"\n", 0, found[0]) + 1 if len(found) == 1 else 0
    while place and place not in lines:
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return lines.get(place, 0)


def _shaped(document: Any) -> Any:
    """A JSON document with its single definitions among the others."""
    if not isinstance(document, dict):
        return document
    for single, name in _SEVERAL.items():
        if single in document:
            found, several = document.pop(single), document.get(name, [])
            added = found if isinstance(found, list) else [found]
            document[name] = [*several, *added] if isinstance(several, list) else several
    return document


def _plain(found: hcl.Object, path: str, lines: dict[str, int]) -> dict[str, Any]:
    """An object as JSON has it: a block stands for itself, or for a list of one where lists are wanted."""
    plain: dict[str, Any] = {}
    for key, node in found.items.items():
        name = _SEVERAL.get(key, key) if path == "$" else key
        where = f"{path}.{name}"
        lines.setdefault(where, node.line)
        match node.content:
            case hcl.Blocks(objects) if name in _LISTS or len(objects) > 1:
                plain[name] = _listed(objects, where, lines, plain.get(name, []))
            case hcl.Blocks(objects):
                plain[name] = _value(objects[0], where, lines)
            case list(nodes) if name in _LISTS:
                plain[name] = _listed(nodes, where, lines, plain.get(name, []))
            case _:
                plain[name] = _value(node, where, lines)
    return plain


def _listed(nodes: list[hcl.Node], path: str, lines: dict[str, int], before: list[Any]) -> list[Any]:
    found = list(before)
    for node in nodes:
        found.append(_value(node, f"{path}[{len(found)}]", lines))
    return found


def _value(node: hcl.Node, path: str, lines: dict[str, int]) -> Any:
    lines.setdefault(path, node.line)
    match node.content:
        case hcl.Object():
            return _plain(node.content, path, lines)
        case hcl.Blocks(objects):
            return _listed(objects, path, lines, [])
        case list(nodes):
            return _listed(nodes, path, lines, [])
        case content:
            return content
