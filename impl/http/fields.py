"""A JSON document that a client sent, field by field.

Names of fields have no case, as in Go; unknown ones are ignored; `null` is what a missing field is. What has the wrong
type is refused with its name (400). It knows nothing of what the fields mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from impl.agent.config.validated import ConfigError, parse_duration
from impl.http.request import HttpError
from impl.runtime.interfaces import NANOSECONDS

T = TypeVar("T")


class Fields:
    """A JSON object whose names have no case. `where` names it in errors."""

    def __init__(self, document: Any, where: str = "") -> None:
        """Raises HttpError: it is not an object."""
        if not isinstance(document, dict):
            raise refused_type(where or "the body", "an object", document)
        self.document: dict[str, Any] = document
        """As it came."""
        self._values = {name.lower(): value for name, value in document.items()}
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def raw(self, name: str) -> Any:
        """The value as it is; None if it is missing."""
        return self._values.get(name.lower())

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        return self._typed(name, default, str, "a string")

    def number(self, name: str, default: int = 0) -> int:
        """An integer of 64 bits."""
        value = self.raw(name)
        if isinstance(value, bool):
            raise refused_type(self._named(name), "a number", value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise refused_type(self._named(name), "a 64-bit number", value)
        return value if isinstance(value, int) else self._typed(name, default, int, "a number")

    def unsigned(self, name: str) -> int:
        """An index or flags: an integer of [0, 2^64)."""
        value = self.number(name)
        if value < 0:
            raise refused_type(self._named(name), "an unsigned 64-bit number", value)
        return value

    def truth(self, name: str) -> bool:
        """A boolean."""
        return self._typed(name, False, bool, "a boolean")

    def object(self, name: str) -> Fields | None:
        """An object; None if it is missing."""
        value = self.raw(name)
        return None if value is None else Fields(value, self._named(name))

    def duration(self, name: str) -> int:
        """Nanoseconds: a number, or as Go writes a duration. Not below 0."""
        value = self.raw(name)
        if not isinstance(value, str):
            return max(self.number(name), 0)
        return duration_ns(value, lambda why: HttpError(400, f"Request decode failed: {name}: {why}")) if value else 0

    def lists(self, name: str) -> dict[str, list[str]]:
        """A map from strings to lists of strings, sorted, since it will stand in the log."""
        values = self._typed(name, {}, dict, "an object")
        return {key: list(Fields({key: values[key]}, self._named(name)).strings(key)) for key in sorted(values)}

    def strings(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._typed(name, [], list, "a list")
        for value in values:
            if not isinstance(value, str):
                raise refused_type(self._named(name), "a list of strings", value)
        return tuple(values)

    def elements(self, name: str) -> list[Any]:
        """A list of anything."""
        return self._typed(name, [], list, "a list")

    def objects(self, name: str) -> list[Fields]:
        """A list of objects."""
        return [Fields(value, self._named(name)) for value in self.elements(name)]

    def within(self, name: str) -> Fields:
        """An object whose names have neither case nor underscores; an empty one if there is none."""
        return Fields(loose(self.raw(name) or {}), name)

    def named_objects(self, name: str) -> dict[str, Fields]:
        """A map from strings to objects; its keys are the user's own."""
        values = self._typed(name, {}, dict, "an object")
        return {key: Fields(value, f"{self._named(name)}.{key}") for key, value in values.items()}

    def mapping(self, name: str) -> dict[str, str]:
        """A map from strings to strings, sorted, since it will stand in the log."""
        values = self._typed(name, {}, dict, "an object")
        for value in values.values():
            if not isinstance(value, str):
                raise refused_type(self._named(name), "an object of strings", value)
        return dict(sorted(values.items()))

    def _typed(self, name: str, default: T, kind: type[T], called: str) -> T:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise refused_type(self._named(name), called, value)
        return value

    def _named(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name


def refused_type(name: str, wanted: str, found: Any) -> HttpError:
    """The error of a field that has another type than `wanted`."""
    return HttpError(400, f"Request decode failed: {name} must be {wanted}, not {json_type(found)}")


def json_type(value: Any) -> str:
    """What JSON calls the type of a value."""
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def read_json(body: bytes) -> Any:
    """The document in a body. Raises HttpError: 400, with the position."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpError(400, f"Request decode failed: {error}") from None
    except RecursionError:
        raise HttpError(400, "Request decode failed: objects and lists are nested too deep") from None


def duration_ns(text: str, refused: Callable[[str], HttpError]) -> int:
    """Nanoseconds of a Go duration; `refused` makes what is raised of the reason."""
    try:
        return round(parse_duration(text) * NANOSECONDS)
    except ConfigError as error:
        raise refused(str(error)) from None


def loose(document: Any) -> Any:
    """An object whose names have neither case nor underscores (its values are left alone)."""
    if not isinstance(document, dict):
        return document
    # Of two spellings of a name the one that says something counts.
    said = sorted(document.items(), key=lambda item: item[1] is not None)
    return {name.replace("_", "").lower(): value for name, value in said}
