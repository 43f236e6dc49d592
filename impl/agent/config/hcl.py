"""HCL 1, the language of Consul's configuration files, read into plain values with the line of each.

    file    = item*
    item    = key+ ( "=" value | object ) ","?
    key     = identifier | string
    value   = number | string | heredoc | "true" | "false" | "[" ( value "," )* value? "]" | object
    object  = "{" item* "}"

An object that is given again under one key is one more of a list; anything else that is given again is refused
(*Deviation:* HashiCorp's reader takes the last). `${...}` in strings is left as it stands. Source: hashicorp/hcl,
version 1; its heredocs. Ours because pyhcl 0.4.5 loses what it cannot merge: of two `services` blocks the second one's
name and port vanish without a word.

It must not know what the keys mean: `files` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

DEPTH_MAX: Final = 64
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_IDENTIFIER = re.compile(r"[^\W\d][\w.-]*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9A-Fa-f]+|\d+(?P<part>\.\d+)?(?P<exponent>[eE][+-]?\d+)?)(?![\w.])")
_HEREDOC = re.compile(r"<<(-?)([^\W\d]\w*)[ \t]*\r?\n")
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_CODES: Final = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}
"""How many digits follow, and their base."""


class HclError(Exception):
    """Not HCL. The text says where and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")


@dataclass(slots=True)
class Object:
    """Items by key, in order."""

    items: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True)
class Blocks:
    """The objects that were given under one key."""

    objects: list[Node]


Content = str | int | float | bool | list["Node"] | Object | Blocks


@dataclass(slots=True)
class Node:
    """A value, and the line on which it begins."""

    line: int
    content: Content


def parse(text: str) -> Object:
    """The items of a file. Raises HclError."""
    return _Parser(text).file()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text.removeprefix("\ufeff")
        self._at = 0
        self._counted = 0
        """Up to here lines were counted: `_lines`."""
        self._lines = 0
        self._depth = 0

    def file(self) -> Object:
        found = Object()
        self._skip()
        while self._at < len(self._text):
            self._item(found)
        return found

    # --- grammar -----------------------------------------------------------------------------------------------------

    def _item(self, into: Object) -> None:
        line = self._line()
        keys = [self._key()]
        while self._peek() not in ("=", "{", ""):
            keys.append(self._key())
        if not self._peek():
            raise HclError(line, f"{keys[0]!r} has no value: the file ends")
        if self._peek() == "=":
            if len(keys) > 1:
                raise HclError(line, f"{keys[0]!r} and {keys[1]!r} before '=': only a block has several names")
            self._take("=")
            value = self._value()
        else:
            value = self._object()
        for key in reversed(keys[1:]):
            value = Node(line, Object({key: Node(line, Blocks([value]))}))
        self._put(into, keys[0], line, value)
        if self._peek() == ",":
            self._take(",")

    def _put(self, into: Object, key: str, line: int, value: Node) -> None:
        known = into.items.get(key)
        if isinstance(value.content, Object):
            if known is None:
                into.items[key] = Node(line, Blocks([value]))
                return
            if isinstance(known.content, Blocks):
                known.content.objects.append(value)
                return
        if known is not None:
            raise HclError(line, f"{key!r} is given twice, first on line {known.line}")
        into.items[key] = Node(line, value.content)

    def _key(self) -> str:
        if self._peek() == '"':
            return self._string()
        found = _IDENTIFIER.match(self._text, self._at)
        if found is None:
            raise self._unexpected("a name")
        self._move(found.end())
        return found[0]

    def _value(self) -> Node:
        line, first = self._line(), self._peek()
        if first == "{":
            return self._object()
        if first == "[":
            return Node(line, self._list())
        if first == '"':
            return Node(line, self._string())
        if self._text.startswith("<<", self._at):
            return Node(line, self._heredoc())
        for word, value in (("true", True), ("false", False)):
            found = _IDENTIFIER.match(self._text, self._at)
            if found is not None and found[0] == word:
                self._move(found.end())
                return Node(line, value)
        return Node(line, self._number())

    def _object(self) -> Node:
        node, found = Node(self._line(), 0), Object()
        node.content = found
        self._enter(node.line, "{")
        while self._peek() != "}":
            if not self._peek():
                raise HclError(node.line, "this object has no end: '}' is missing")
            self._item(found)
        self._leave("}")
        return node

    def _list(self) -> list[Node]:
        line, found = self._line(), list[Node]()
        self._enter(line, "[")
        while self._peek() != "]":
            if not self._peek():
                raise HclError(line, "this list has no end: ']' is missing")
            found.append(self._value())
            if self._peek() == ",":
                self._take(",")
            elif self._peek() not in ("]", ""):
                raise self._unexpected("',' or ']'")
        self._leave("]")
        return found

    def _enter(self, line: int, opening: str) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise HclError(line, f"more than {DEPTH_MAX} lists and objects within each other")
        self._take(opening)

    def _leave(self, closing: str) -> None:
        self._depth -= 1
        self._take(closing)

    # --- words -------------------------------------------------------------------------------------------------------

    def _number(self) -> int | float:
        found = _NUMBER.match(self._text, self._at)
        if found is None:
            raise self._unexpected("a value")
        word = found[0]
        try:
            number = float(word) if found["part"] or found["exponent"] else _integer(word)
        except ValueError:
            raise HclError(self._line(), f"{word} is no number") from None
        self._move(found.end())
        return number

    def _string(self) -> str:
        line, at, found = self._line(), self._at + 1, list[str]()
        while True:
            char = self._text[at : at + 1]
            if char in ("", "\n"):
                raise HclError(line, "this string has no end: '\"' is missing on its line")
            if char == '"':
                self._move(at + 1)
                return "".join(found)
            if char == "\\":
                shown, at = self._escape(line, at + 1)
                found.append(shown)
            elif self._text.startswith("${", at):
                end = self._interpolation(line, at + 2)
                found.append(self._text[at:end])
                at = end
            else:
                found.append(char)
                at += 1

    def _escape(self, line: int, at: int) -> tuple[str, int]:
        """What an escape stands for, and where it ends."""
        char = self._text[at : at + 1]
        if char in _ESCAPES:
            return _ESCAPES[char], at + 1
        if char.isascii() and char.isdigit():
            digits, base, start = 3, 8, at
        elif char in _CODES:
            (digits, base), start = _CODES[char], at + 1
        else:
            raise HclError(line, f"unknown escape \\{char} in a string")
        code = self._text[start : start + digits]
        try:
            if len(code) < digits or not code.isalnum():
                raise ValueError
            shown = chr(int(code, base))
            shown.encode()
        except (ValueError, OverflowError):
            raise HclError(line, f"\\{char} in a string must be followed by the digits of a character") from None
        return shown, start + digits

    def _interpolation(self, line: int, at: int) -> int:
        """Where `${` that began before `at` ends."""
        depth = 1
        for position in range(at, len(self._text)):
            depth += {"{": 1, "}": -1}.get(self._text[position], 0)
            if not depth:
                return position + 1
        raise HclError(line, "${ in a string has no end: '}' is missing")

    def _heredoc(self) -> str:
        line, start = self._line(), _HEREDOC.match(self._text, self._at)
        if start is None:
            raise HclError(line, "<< must be followed by a name, and the end of the line")
        indented, name = bool(start[1]), start[2]
        lines: list[str] = []
        at = start.end()
        while at < len(self._text):
            end = self._text.find("\n", at)
            end = len(self._text) if end < 0 else end
            content = self._text[at:end].removesuffix("\r")
            if (content.lstrip(" \t") if indented else content) == name:
                self._move(end)
                return _unindented(lines, content.removesuffix(name))
            lines.append(content)
            at = end + 1
        raise HclError(line, f"this text has no end: {name} is missing on a line of its own")

    # --- characters --------------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        """The next character, "" at the end."""
        return self._text[self._at : self._at + 1]

    def _take(self, char: str) -> None:
        if self._peek() != char:
            raise self._unexpected(repr(char))
        self._move(self._at + 1)

    def _move(self, to: int) -> None:
        self._at = to
        self._skip()

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        if self._text.startswith("/*", self._at):
            raise HclError(self._line(), "this comment has no end: '*/' is missing")

    def _line(self) -> int:
        self._lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._lines + 1

    def _unexpected(self, wanted: str) -> HclError:
        word = re.match(r"[\w.-]+|.", self._text[self._at : self._at + 40])
        return HclError(self._line(), f"{wanted} is expected, not {repr(word[0]) if word else 'the end of the file'}")


def _integer(word: str) -> int:
    digits = word.removeprefix("-")
    if digits[:2].lower() == "0x":
        return int(word, 16)
    return int(word, 8) if digits.startswith("0") and len(digits) > 1 else int(word)


def _unindented(lines: list[str], indent: str) -> str:
    """The lines, each with its end; what the last line is indented by is taken from all if all have it."""
    if indent and all(line.startswith(indent) for line in lines):
        lines = [line.removeprefix(indent) for line in lines]
    return "".join(f"{line}\n" for line in lines)
