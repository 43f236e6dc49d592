"""Filters: the boolean expressions of `?filter=`, parsed once and evaluated on each row of an answer.

    Service.Meta.version == "1.2" and not ("canary" in Service.Tags or Checks is empty)

A row is the JSON document of the answer; a selector walks into it by the names of the fields (`Meta.key`,
`Meta["any key"]`). What it finds is compared as a string, a number or a boolean, according to what the field is.
A field that an answer's rows cannot have is an error, whether there are rows or not; one that a row does not show is
its type's zero. A key that a map does not have equals nothing, is in nothing and is empty, also where there is no map.
Of a list of objects, one must match: `Checks.Status != passing` finds what has a check that does not pass.

Source: Consul, "Filtering"; the grammar of go-bexpr, and how its version in Consul evaluates. *Deviation:* `all` and
`any` are left out; strings, too, can be asked whether they are empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import re2

Row = Mapping[str, Any]
Filter = Callable[[Row], bool]
Test = Callable[[Any], bool]
"""Of what a selector finds."""

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
    """The expression cannot be parsed, or asks for what the rows cannot have. Says where."""


class Kind(Enum):
    """What a field holds."""

    TEXT = auto()
    NUMBER = auto()
    TRUTH = auto()
    TEXTS = auto()
    MAP = auto()
    """Its keys are the user's own."""
    STRUCT = auto()
    STRUCTS = auto()


class Field(NamedTuple):
    """What can be selected."""

    kind: Kind
    fields: Mapping[str, Field] = {}
    """Of an object, or of each element of a list of them."""
    values: Field | None = None
    """Of a map."""


_SUITS: Final[Mapping[str, tuple[Kind, ...]]] = {
    "==": (Kind.TEXT, Kind.NUMBER, Kind.TRUTH),
    "empty": (Kind.TEXT, Kind.TEXTS, Kind.MAP, Kind.STRUCTS),
    "in": (Kind.TEXT, Kind.TEXTS, Kind.MAP),
    "matches": (Kind.TEXT,),
}
"""What each operator can be asked of."""
_ZEROS: Final[Mapping[Kind, Any]] = {
    Kind.TEXT: "",
    Kind.NUMBER: 0,
    Kind.TRUTH: False,
    Kind.TEXTS: (),
    Kind.MAP: {},
    Kind.STRUCT: {},
    Kind.STRUCTS: (),
}
_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str, rows: Field) -> Filter:
    """The filter that an expression describes, of rows that have these fields. Raises BadFilter."""
    if len(text) > LENGTH_MAX:
        raise BadFilter(f"the expression has {len(text)} characters; the limit is {LENGTH_MAX}")
    return _Parser(text, rows).expression()


class _Parser:
    """Recursive descent: or < and < not < a match or parentheses."""

    def __init__(self, text: str, rows: Field) -> None:
        self._tokens = _tokens(text)
        self._rows = rows
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
        return self._matching(self._selector(), "in", lambda found: _contains(found, value), negated)

    def _compare(self, path: tuple[str, ...]) -> Filter:
        equal = self._take("operator", "==")
        if equal or self._take("operator", "!="):
            wanted = _converted(self._value(), self._field(path, "==").kind)
            return self._matching(path, "==", lambda found: bool(found == wanted), not equal)
        if self._take_word("is"):
            negated = self._take_word("not")
            self._expect("word", "empty")
            return self._matching(path, "empty", _empty, negated)
        negated = self._take_word("not")
        if self._take_word("contains"):
            value = self._value()
            return self._matching(path, "in", lambda found: _contains(found, value), negated)
        if self._take_word("matches"):
            pattern = self._pattern()
            return self._matching(path, "matches", lambda found: isinstance(found, str) and pattern(found), negated)
        raise self._unexpected('"==", "!=", "is", "in", "contains" or "matches"')

    def _matching(self, path: tuple[str, ...], operator: str, test: Test, negated: bool) -> Filter:
        self._field(path, operator)
        found = _negated(test, negated)  # inside the walk: of a list's elements one must match, or differ
        return lambda row: _any(self._rows, row, path, 0, found)

    def _field(self, path: tuple[str, ...], operator: str) -> Field:
        """What is selected. Raises BadFilter: there is no such field, or it cannot be asked this."""
        field: Field | None = self._rows
        for name in path:
            if field is not None:
                field = field.values if field.kind is Kind.MAP else field.fields.get(name)
        if field is None:
            raise BadFilter(f'Selector "{".".join(path)}" is not valid')
        if field.kind not in _SUITS[operator]:
            raise BadFilter(f'"{operator}" cannot be asked of selector "{".".join(path)}"')
        return field

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


def _negated(test: Test, negated: bool) -> Test:
    return (lambda found: not test(found)) if negated else test


def _any(field: Field, value: Any, path: tuple[str, ...], depth: int, test: Test) -> bool:
    """Whether what stands at the path from `depth` on passes the test; the parser knows that all its names are good."""
    while depth < len(path):
        name = path[depth]
        if field.kind is Kind.STRUCTS:
            element = Field(Kind.STRUCT, field.fields)
            return any(_any(element, each, path, depth, test) for each in value)
        if field.kind is Kind.MAP:
            if name not in value:
                return test(_MISSING)
            assert field.values is not None
            field, value = field.values, value[name]
        else:
            field = field.fields[name]
            value = value.get(name)
        if value is None:
            value = _ZEROS[field.kind]
        depth += 1
    return test(value)


def _converted(wanted: str, kind: Kind) -> str | float | bool:
    """The value of an expression, as what it is compared with. Raises BadFilter."""
    if kind is Kind.TRUTH:
        if wanted not in _TRUTHS:
            raise BadFilter(f'"{wanted}" is not a boolean')
        return _TRUTHS[wanted]
    if kind is Kind.NUMBER:
        try:
            return float(wanted)
        except ValueError:
            raise BadFilter(f'"{wanted}" is not a number') from None
    return wanted


def _contains(found: Any, wanted: str) -> bool:
    return found is not _MISSING and wanted in found


def _empty(found: Any) -> bool:
    return found is _MISSING or not found
