"""The history format and `comitia check history`, as the README documents them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from model_checks.histories.check import check_history
from model_checks.histories.command import command
from model_checks.histories.events import Event, EventType, MalformedHistory, parse, render
from model_checks.histories.operations import pair
from model_checks.histories.register import Model

GOOD = [
    Event(0, EventType.INVOKE, "write", key="a", value=1),
    Event("nemesis", EventType.INFO, "partition", value="s1 | s2 s3"),
    Event(0, EventType.OK, "write", key="a", value=1),
    Event(1, EventType.INVOKE, "read", key="a"),
    Event(1, EventType.OK, "read", key="a", value=1),
]
STALE = [*GOOD, Event(2, EventType.INVOKE, "read", key="a"), Event(2, EventType.OK, "read", key="a")]


def run(*arguments: str) -> tuple[int, list[dict[str, object]]]:
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    assert isinstance(done.return_value, int)
    return done.return_value, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_one_json_object_a_file_and_the_worst_exit_code(tmp_path: Path) -> None:
    good, stale, broken = (tmp_path / name for name in ("good", "stale", "broken"))
    good.write_bytes(render(GOOD))
    stale.write_bytes(render(STALE))
    broken.write_bytes(b"{}\n" + render(GOOD))
    assert run("--model", "register", "--json", str(good))[0] == 0
    code, reports = run("--model", "register", "--json", str(good), str(broken), str(stale))
    assert code == 1
    assert [(report["file"], report["verdict"]) for report in reports] == [
        (str(good), "VALID"),
        (str(broken), "UNKNOWN"),
        (str(stale), "INVALID"),
    ]
    assert reports[0]["operations"] == 2
    assert isinstance(reports[0]["seconds"], float)
    assert "line 1: not an event" in str(reports[1]["reason"])
    assert run("--model", "register", "--json", str(broken))[0] == 2


def test_a_cut_off_last_line_is_dropped_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "history.ndjson"
    path.write_bytes(render(STALE)[:-20])
    code, reports = run("--model", "register", "--json", str(path))
    assert (code, reports[0]["verdict"]) == (0, "VALID")
    assert str(reports[0]["cut"]).startswith("line 7 is cut off")


def test_every_cut_of_a_history_is_read_up_to_its_last_whole_line() -> None:
    whole = render(STALE)
    for length in range(len(whole)):
        lines = whole[:length].count(b"\n")
        found = parse(whole[:length])
        assert len(found.events) in (lines, lines + 1)  # the last line may be whole but for its newline
        assert bool(found.cut) == (len(found.events) == lines and not whole[:length].endswith(b"\n") and length > 0)


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (b'{"process":0,"type":"invoke","f":"read"}\nnonsense\n\n', "line 2: not an event"),
        (b'{"process":0,"type":"begin","f":"read"}\n\n', "line 1: not an event"),
        (b'{"index":4,"process":0,"type":"invoke","f":"read"}\n{"index":4,"process":1,"type":"invoke","f":"read"}\n',
         "line 2: index 4 follows index 4"),
        (b'\n{"process":0,"type":"ok","f":"read"}\n', "line 2: process 0 completes 'read' but has invoked nothing"),
        (b'{"process":0,"type":"invoke","f":"read"}\n{"process":0,"type":"ok","f":"write"}\n',
         "line 2: process 0 completes 'write' but has invoked 'read'"),
        (b'{"process":0,"type":"invoke","f":"read"}\n{"process":0,"type":"invoke","f":"read"}\n',
         "line 2: process 0 invokes 'read' but its 'read' is still open"),
        (b'{"process":"client","type":"invoke","f":"read"}\n', "line 1: process 'client' is neither a number nor"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named(lines: bytes, cause: str) -> None:
    with pytest.raises(MalformedHistory) as error:
        pair(parse(lines))
    assert cause in str(error.value)


def test_a_counterexample_is_small_and_drawn(tmp_path: Path) -> None:
    """Hundreds of innocent operations around one stale read: what is shown are the two writes and the read."""
    noise = []
    for number in range(300):
        noise += [Event(0, EventType.INVOKE, "write", key="a", value=number)]
        noise += [Event(0, EventType.OK, "write", key="a", value=number)]
    stale = [Event(1, EventType.INVOKE, "read", key="a"), Event(1, EventType.OK, "read", key="a", value=100)]
    path = tmp_path / "history.ndjson"
    path.write_bytes(render([*noise, *stale, *noise[:0]]))
    page = tmp_path / "timeline.html"
    code, reports = run("--model", "register", "--json", "--timeline", str(page), str(path))
    assert code == 1
    details = str(reports[0]["details"])
    assert "no order of these 3 operations (of 301)" in details
    assert "write 100" in details
    assert "read -> 100" in details
    text = page.read_text()
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_keys_are_judged_apart() -> None:
    events = [
        Event(0, EventType.INVOKE, "write", key="a", value=1),
        Event(0, EventType.OK, "write", key="a", value=1),
        Event(0, EventType.INVOKE, "read", key="b"),
        Event(0, EventType.OK, "read", key="b"),
    ]
    assert check_history(parse(render(events)), Model.REGISTER).result.verdict == "VALID"


def test_an_empty_history_is_unknown() -> None:
    found = check_history(parse(b""), Model.REGISTER).result
    assert (found.verdict, found.reason) == ("UNKNOWN", "the history has no operations")


def test_a_register_has_no_cas_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "history.ndjson"
    path.write_bytes(render([Event(0, EventType.INVOKE, "cas", value=[1, 2])]))
    code, reports = run("--model", "register", "--json", str(path))
    assert code == 2
    assert "the model register has no operation 'cas'" in str(reports[0]["reason"])
    path.write_bytes(render([Event(0, EventType.INVOKE, "cas", value=7)]))
    code, reports = run("--model", "cas-register", "--json", str(path))
    assert "the value of a cas is [old, new], not 7" in str(reports[0]["reason"])


def test_the_limit_makes_unknown_with_a_remedy(tmp_path: Path) -> None:
    events = [Event(99, EventType.INVOKE, "write", value=0), Event(99, EventType.OK, "write", value=0)]
    swaps = [[n % 4, n * 7 % 5 % 4] for n in range(40)]
    events += [Event(process, EventType.INVOKE, "cas", value=swap) for process, swap in enumerate(swaps)]
    events += [Event(process, EventType.OK, "cas", value=swap) for process, swap in enumerate(swaps)]
    path = tmp_path / "history.ndjson"
    path.write_bytes(render(events))
    code, reports = run("--model", "cas-register", "--json", "--max-configurations", "5", str(path))
    assert code == 2
    assert "raise --max-configurations" in str(reports[0]["reason"])
