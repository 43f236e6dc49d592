"""The root command: exit codes as the README documents them, and lazy loading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import click
import pytest

import comitia


@click.command("probe")
@click.option("--outcome", type=click.Choice(["valid", "invalid", "unknown", "abort", "crash"]), required=True)
def probe(outcome: str) -> int:
    if outcome == "abort":
        raise click.Abort
    if outcome == "crash":
        raise RuntimeError("a bug")
    return {"valid": 0, "invalid": 1, "unknown": 2}[outcome]


def exit_code(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> int:
    monkeypatch.setattr(comitia.LazyGroup, "get_command", lambda self, ctx, name: probe)
    with pytest.raises(SystemExit) as stop:
        comitia.main([command, *arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--outcome", "valid"), 0),
        (("--outcome", "invalid"), 1),
        (("--outcome", "unknown"), 2),
        (("--outcome", "abort"), 2),
        (("--outcome", "nonsense"), 254),
        ((), 254),
        (("--outcome", "crash"), 255),
    ],
)
def test_checks_exit_with_the_documented_codes(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int
) -> None:
    assert exit_code(monkeypatch, "check", *arguments) == code


@pytest.mark.parametrize("arguments", [("--outcome", "nonsense"), ("--outcome", "crash"), ("--outcome", "abort")])
def test_commands_that_consul_has_exit_with_one_on_any_error(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    assert exit_code(monkeypatch, "kv", *arguments) == 1


@click.command("starting")
@click.argument("number", type=int)
def starting(number: int) -> int:
    """An agent that is told to end while it starts."""
    os.kill(os.getpid(), number)
    return 1


def an_agent_that_starts_ends_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comitia.LazyGroup, "get_command", lambda self, ctx, name: starting)
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(SystemExit) as stop:
            comitia.main(["agent", str(int(number))])
        assert stop.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_agent_that_starts_ends_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    an_agent_that_starts_ends_in_order(monkeypatch)


def test_an_agent_that_is_interrupted_as_any_command_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comitia, "_ended_by_signals", nullcontext)
    with pytest.raises(AssertionError):
        an_agent_that_starts_ends_in_order(monkeypatch)


def test_an_unknown_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as stop:
        comitia.main(["no-such-command"])
    assert stop.value.code == 254


@pytest.mark.parametrize("flag", ["-v", "-version", "--version"])
def test_the_version_is_what_the_command_says(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as stop:
        comitia.main([flag])
    asked = capsys.readouterr().out
    with pytest.raises(SystemExit):
        comitia.main(["version"])
    assert (stop.value.code, asked) == (0, capsys.readouterr().out)


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as stop:
        comitia.main([flag])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "force-leave" in shown and "keyring" not in shown


def test_an_agent_loads_neither_a_solver_nor_the_spec_nor_the_harness() -> None:
    program = (
        "import sys, comitia, click\n"
        "context = click.Context(comitia.root)\n"
        "assert comitia.root.get_command(context, 'agent') is not None\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'z3', 'hypothesis', 'numba', 'spec', 'model_checks', 'jepsen_like'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
