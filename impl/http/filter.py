"""Filters: the boolean expressions of `?filter=`, parsed once and evaluated on each row of an answer.

    Service.Meta.version == "1.2" and not ("canary" in Service.Tags or Checks is empty)

A row is the JSON document of the answer; a selector walks into it by the names of the fields (`Meta.key`,
`Meta["any key"]`). What it finds is compared as a string, a number or a boolean, according to what the field is.
A field that an answer's rows do not have is an error; a key that a map does not have is not: it equals nothing.

Source: Consul, "Filtering"; the grammar of go-bexpr. *Deviation:* `all` and `any` are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import re2

Row = Mapping[str, Any]
Filter = Callable[[Row], bool]

DEPTH_MAX: Final = 64
"""Parentheses and `not` may nest this deep."""
LENGTH_MAX: Final = 16_384
"""Characters of an expression."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator>==|!=|\(|\)|\[|\]|\.)
      | (?P<quoted>"(?:[^"\\]|\\.)*"|`[^`]*`)
      | (?P<number>-?\d+(?:\.\d+)?(?![\w\-]))
      | (?P<word>[A-Za-z_][\w\-/]*)
    )""",
    re.VERBOSE,
)
_PATTERNS = re2.Options()
"""Of users' regular expressions, which have Go's syntax and, unlike Python's, take a time linear in the text: one that
tries everything again (`(a+)+$`) would hold up the agent for hours."""
_PATTERNS.log_errors = False
_PATTERNS.max_mem = 1 << 20
_MISSING: Final = object()
"""What a selector finds where a map has no such key."""


class BadFilter(Exception):
    """The expression cannot be parsed, or asks for a field that the rows do not have. Says where."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> Filter:
    """The filter that an expression describes. Raises BadFilter; so may the filter, for a field that is not there."""
    if len(text) > LENGTH_MAX:
        raise BadFilter(f"the expression has {len(text)} characters; the limit is {LENGTH_MAX}")
    return _Parser(text).expression()


class _Parser:
    """Recursive descent: or < and < not < a match or parentheses."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def expression(self) -> Filter:
        found = self._or()
        if self._peek().kind != "end":
            raise self._unexpected('"and", "or" or the end')
        return found

    def _or(self) -> Filter:
        parts = [self._and()]
        while self._take_word("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda row: any(part(row) for part in parts)

    def _and(self) -> Filter:
        parts = [self._not()]
        while self._take_word("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def _not(self) -> Filter:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise BadFilter(f"the expression nests deeper than {DEPTH_MAX} levels")
        try:
            if self._take_word("not"):
                negated = self._not()
                return lambda row: not negated(row)
            if self._take("operator", "("):
                inner = self._or()
                self._expect("operator", ")")
                return inner
            return self._match()
        finally:
            self._depth -= 1

    def _match(self) -> Filter:
        token = self._peek()
        if token.kind in ("quoted", "number"):
            return self._value_in(self._value())
        mark = self._next
        path = self._selector()
        if self._peek_membership() and len(path) == 1 and token.kind == "word":
            # A bare word before `in` is a value: web in Service.Tags
            self._next = mark
            return self._value_in(self._value())
        return self._compare(path)

    def _peek_membership(self) -> bool:
        following = self._tokens[self._next : self._next + 2]
        words = [token.text for token in following if token.kind == "word"]
        return words[:1] == ["in"] or words == ["not", "in"]

    def _value_in(self, value: str) -> Filter:
        negated = self._take_word("not")
        self._expect("word", "in")
        path = self._selector()
        return _negated(lambda row: _contains(_select(row, path), value), negated)

    def _compare(self, path: tuple[str, ...]) -> Filter:
        if self._take("operator", "=="):
            value = self._value()
            return lambda row: _equal(_select(row, path), value)
        if self._take("operator", "!="):
            value = self._value()
            return lambda row: not _equal(_select(row, path), value)
        if self._take_word("is"):
            negated = self._take_word("not")
            self._expect("word", "empty")
            return _negated(lambda row: _empty(_select(row, path)), negated)
        negated = self._take_word("not")
        if self._take_word("contains"):
            value = self._value()
            return _negated(lambda row: _contains(_select(row, path), value), negated)
        if self._take_word("matches"):
            pattern = self._pattern()
            return _negated(lambda row: _matches(_select(row, path), pattern), negated)
        raise self._unexpected('"==", "!=", "is", "in", "contains" or "matches"')

    def _selector(self) -> tuple[str, ...]:
        names = [self._expect("word").text]
        while True:
            if self._take("operator", "."):
                names.append(self._expect("word").text)
            elif self._take("operator", "["):
                names.append(_unquoted(self._expect("quoted").text))
                self._expect("operator", "]")
            else:
                return tuple(names)

    def _value(self) -> str:
        token = self._peek()
        if token.kind not in ("quoted", "number", "word"):
            raise self._unexpected("a value")
        self._next += 1
        return _unquoted(token.text) if token.kind == "quoted" else token.text

    def _pattern(self) -> Callable[[str], bool]:
        token = self._peek()
        try:
            pattern = re2.compile(self._value(), _PATTERNS)
        except re2.error as error:
            why = error.args[0] if error.args else ""
            shown = why.decode(errors="replace") if isinstance(why, bytes) else why
            raise BadFilter(f"{token.at + 1}: {token.text} is not a regular expression: {shown}") from error
        return lambda text: pattern.search(text) is not None

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, kind: str, text: str) -> bool:
        token = self._peek()
        taken = token.kind == kind and token.text == text
        self._next += taken
        return taken

    def _take_word(self, word: str) -> bool:
        return self._take("word", word)

    def _expect(self, kind: str, text: str = "") -> _Token:
        token = self._peek()
        if token.kind != kind or (text and token.text != text):
            raise self._unexpected(f'"{text}"' if text else {"word": "a name", "quoted": "a quoted string"}[kind])
        self._next += 1
        return token

    def _unexpected(self, expected: str) -> BadFilter:
        token = self._peek()
        found = "the end" if token.kind == "end" else f'"{token.text}"'
        return BadFilter(f"{token.at + 1}: expected {expected}, found {found}")


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise BadFilter(f'{at + 1}: "{text[at]}" begins nothing that an expression may hold')
        tokens.append(_Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
        at = found.end()
    return [*tokens, _Token("end", "", len(text))]


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])


def _negated(found: Filter, negated: bool) -> Filter:
    return (lambda row: not found(row)) if negated else found


def _select(row: Row, path: Sequence[str]) -> Any:
    """What stands at `path`. Names of fields are found as they are; in a map of the user's any key may be missing."""
    value: Any = row
    for depth, name in enumerate(path):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, Mapping) and depth and path[depth - 1] in _MAPS:
            return _MISSING
        else:
            raise BadFilter(f'selector "{".".join(path)}" is not valid')
    return value


_MAPS: Final = frozenset(("Meta", "NodeMeta", "ServiceMeta", "TaggedAddresses", "ServiceTaggedAddresses"))
"""Fields whose keys are the user's own."""


def _equal(value: Any, wanted: str) -> bool:
    match value:
        case bool():
            return wanted.lower() in (("true", "t", "1") if value else ("false", "f", "0"))
        case int() | float():
            try:
                return value == float(wanted)
            except ValueError as error:
                raise BadFilter(f'"{wanted}" is not a number') from error
        case str():
            return value == wanted
        case _:
            return False


def _contains(value: Any, wanted: str) -> bool:
    if isinstance(value, str | Mapping):
        return wanted in value
    if isinstance(value, list | tuple):
        return any(_equal(element, wanted) for element in value)
    return False


def _empty(value: Any) -> bool:
    return value is _MISSING or value is None or (isinstance(value, str | Mapping | list | tuple) and not value)


def _matches(value: Any, pattern: Callable[[str], bool]) -> bool:
    return isinstance(value, str) and pattern(value)
