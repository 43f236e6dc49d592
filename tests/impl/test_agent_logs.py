"""Log lines look as Consul's users know them, and one event is one line whatever it says."""

from __future__ import annotations

import json

import pytest

from impl.agent import logs
from impl.agent.logs import Log


def lines(level: str = "INFO", json_form: bool = False) -> tuple[Log, list[str]]:
    written: list[str] = []
    return Log(written.append, lambda: 1136214245.0625, level=level, json=json_form), written


def test_a_line_has_time_level_name_message_and_fields() -> None:
    log, written = lines()
    log.named("raft").info("election won", term=3, leader="s1", why="two votes", votes=["s1", "s2"], alone=False)
    assert written == [
        "2006-01-02T15:04:05.062Z [INFO]  agent.raft: election won: "
        'term=3 leader=s1 why="two votes" votes=[s1, s2] alone=false\n'
    ]


def test_json_has_hclogs_keys() -> None:
    log, written = lines(json_form=True)
    log.warn("lost", peer="s2")
    assert json.loads(written[0]) == {
        "@level": "warn",
        "@message": "lost",
        "@module": "agent",
        "@timestamp": "2006-01-02T15:04:05.062500Z",
        "peer": "s2",
    }


def test_a_level_hides_the_lower_ones() -> None:
    log, written = lines("WARN")
    log.debug("a")
    log.info("b")
    log.warn("c")
    log.error("d")
    assert [line.split(": ")[1] for line in written] == ["c\n", "d\n"]


def an_event_is_one_line() -> None:
    log, written = lines()
    log.error("first\nsecond", error='quoted "text"\r\nINFO forged')
    assert written[0].count("\n") == 1
    assert 'error="quoted \\"text\\"\\\\r\\\\nINFO forged"' in written[0]


def test_an_event_is_one_line() -> None:
    an_event_is_one_line()


def test_a_forged_line_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_one_line", lambda text: text)
    with pytest.raises(AssertionError):
        an_event_is_one_line()
