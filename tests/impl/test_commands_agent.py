"""Consul's commands against a real agent: what they print, what they leave in the store, and when programs end."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import comitia
from impl.cli import lock as lock_command
from impl.cli import locks
from impl.cli import maint as maint_command
from impl.cli import registry as registry_commands
from tests.impl.agent_processes import PATIENCE_SECONDS, ROOT, AgentProcess, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


class Console:
    """An agent, and `comitia` to speak with it, in this process or in one of its own."""

    def __init__(self) -> None:
        self.agent = AgentProcess("-dev", "-node", "s1", "-server-port", "0").started()
        self.address = f"127.0.0.1:{self.agent.http_port}"

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        with pytest.raises(SystemExit) as stop:
            comitia.main(list(words))
        found = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, found.out, found.err

    def start(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, str(ROOT / "comitia.py"), *words], text=True, **how)

    def key(self, key: str) -> dict[str, Any] | None:
        status, body = self.agent.request("GET", f"/v1/kv/{key}")
        found: dict[str, Any] | None = json.loads(body)[0] if status == 200 else None
        return found

    def register(self, node: str, **more: Any) -> None:
        body = json.dumps({"Node": node, "Address": "10.0.0.1", **more}).encode()
        assert self.agent.request("PUT", "/v1/catalog/register", body) == (200, b"true\n")


@pytest.fixture(scope="module")
def one_console() -> Iterator[Console]:
    console = Console()
    # A session depends on the node's health, which the leader registers.
    eventually(lambda: b"serfHealth" in console.agent.request("GET", "/v1/health/node/s1")[1], "s1 is registered")
    yield console
    assert console.agent.terminate() == 0


@pytest.fixture
def console(one_console: Console, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", one_console.address)
    monkeypatch.setenv("SHELL", "/bin/sh")
    return one_console


@pytest.fixture
def session(console: Console, capsys: pytest.CaptureFixture[str]) -> str:
    code, out, _ = console.run(capsys, "session", "create", "-name=mine", "-ttl=30s", "-node=s1")
    assert code == 0
    return out.strip()


def test_a_tree_of_keys_survives_export_and_import(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    for key, value in (("tree/a", "1"), ("tree/b/c", "\n two")):
        assert console.run(capsys, "kv", "put", "-flags=7", key, value)[0] == 0
    exported = console.run(capsys, "kv", "export", "tree/")[1]
    assert console.run(capsys, "kv", "delete", "-recurse", "tree/")[0] == 0
    assert console.run(capsys, "kv", "import", exported) == (0, "Imported: tree/a\nImported: tree/b/c\n", "")
    assert console.run(capsys, "kv", "export", "tree/")[1] == exported
    assert console.run(capsys, "kv", "get", "-keys", "/tree/") == (0, "tree/a\ntree/b/\n", "")


def test_keys_are_shown_in_detail(console: Console, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    put = ("kv", "put", "-cas", "-flags=0x10")
    for key in ("shown/a", "shown/b"):
        assert console.start(*put, key, "text").wait(PATIENCE_SECONDS) == 0
    row = console.key("shown/a")
    assert row is not None
    capfdbinary.readouterr()
    assert console.start("kv", "get", "-detailed", "shown/a").wait(PATIENCE_SECONDS) == 0
    index = row["ModifyIndex"]
    fields = (("CreateIndex", index), ("Flags", 16), ("Key", "shown/a"), ("LockIndex", 0), ("ModifyIndex", index))
    head = "".join(f"{name:<17}{value}\n" for name, value in (*fields, ("Session", "-")))
    assert capfdbinary.readouterr().out.decode() == f"{head}Value            text\n"
    assert console.start("kv", "get", "-keys", "-recurse", "-detailed", "shown/").wait(PATIENCE_SECONDS) == 0
    out = capfdbinary.readouterr().out.decode()
    assert out.startswith(f"{head}\n\nCreateIndex") and "Value" not in out and "shown/b" in out
    assert console.start(*put, "shown/a", "other").wait(PATIENCE_SECONDS) == 1
    why = "CAS performed with index=0 and key already exists."
    assert capfdbinary.readouterr().err.decode() == f"Error! Did not write to shown/a: {why}\n"
    assert console.key("shown/a") == row


def test_a_leading_slash_is_refused_for_writes_and_taken_away_for_the_rest(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.run(capsys, "kv", "put", "slash/a", "1")[0] == 0
    assert console.run(capsys, "kv", "get", "/slash/a") == (0, "1\n", "")
    exported = console.run(capsys, "kv", "export", "/slash/")[1]
    assert [each["key"] for each in json.loads(exported)] == ["slash/a"]
    code, _, error = console.run(capsys, "kv", "put", "/slash/a", "2")
    assert (code, error) == (1, "Error! Failed writing data: Invalid key. Key must not begin with a '/': /slash/a\n")
    mixed = json.dumps([{"key": "slash/new", "value": ""}, {"key": "/slash/a", "value": ""}])
    code, _, error = console.run(capsys, "kv", "import", mixed)
    assert (code, "Failed writing data for key /slash/a: Invalid key" in error) == (1, True)
    assert (console.key("slash/new"), console.key("%2Fslash/a")) == (None, None)
    assert console.run(capsys, "kv", "delete", "/slash/a") == (0, "Success! Deleted key: slash/a\n", "")
    assert console.key("slash/a") is None


def test_all_names_below_a_prefix_are_listed(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    entries = json.dumps([{"key": key, "value": ""} for key in ("a", "b/", "b/c/d")])
    imported = "Imported: deep/a\nImported: deep/b/\nImported: deep/b/c/d\n"
    for prefix in ("deep", "deep/"):
        assert console.run(capsys, "kv", "import", f"-prefix={prefix}", entries) == (0, imported, "")
    assert console.run(capsys, "kv", "get", "-keys", "deep/") == (0, "deep/a\ndeep/b/\n", "")
    assert console.run(capsys, "kv", "get", "-keys", "-recurse", "deep/") == (0, "deep/a\ndeep/b/\ndeep/b/c/d\n", "")
    assert console.run(capsys, "kv", "import", "-prefix=/deep", entries)[0] == 1


def test_a_key_is_locked_and_given_back(console: Console, capsys: pytest.CaptureFixture[str], session: str) -> None:
    acquire = ("kv", "put", "-acquire", f"-session={session}", "mutex", "x")
    assert console.run(capsys, *acquire) == (0, "Success! Lock acquired on: mutex\n", "")
    assert f"Session          {session}\n" in console.run(capsys, "kv", "get", "-detailed", "mutex")[1]
    other = console.run(capsys, "session", "create")[1].strip()
    refused = console.run(capsys, "kv", "put", "-acquire", f"-session={other}", "mutex", "y")
    assert refused == (1, "", "Error! Did not acquire lock\n")
    release = ("kv", "put", "-release", f"-session={session}", "mutex")
    assert console.run(capsys, *release) == (0, "Success! Lock released on: mutex\n", "")
    assert console.run(capsys, *release) == (1, "", "Error! Did not release lock\n")


def test_sessions_are_created_listed_renewed_and_destroyed(
    console: Console, capsys: pytest.CaptureFixture[str], session: str
) -> None:
    listed = console.run(capsys, "session", "list")[1].splitlines()
    assert listed[0].split() == ["ID", "Name", "Node", "TTL", "Behavior"]
    assert [session, "mine", "s1", "30s", "release"] in [line.split() for line in listed]
    assert session in [each["ID"] for each in json.loads(console.run(capsys, "session", "list", "-format=json")[1])]
    assert console.run(capsys, "session", "renew", session) == (0, f"Renewed session: {session}\n", "")
    assert console.run(capsys, "session", "destroy", session) == (0, f"Destroyed session: {session}\n", "")
    code, _, error = console.run(capsys, "session", "renew", session)
    assert (code, "not found" in error) == (1, True)


def test_the_catalog_is_shown(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    console.register("n1", NodeMeta={"env": "prod"}, Service={"Service": "shown", "Tags": ["b", "a"], "Port": 1})
    assert console.run(capsys, "catalog", "datacenters") == (0, "dc1\n", "")
    table = console.run(capsys, "catalog", "nodes", "-node-meta=env=prod")[1].splitlines()
    assert [line.split() for line in table] == [["Node", "ID", "Address", "DC"], ["n1", "10.0.0.1", "dc1"]]
    assert "env=prod" in console.run(capsys, "catalog", "nodes", "-service=shown", "-detailed")[1]
    assert json.loads(console.run(capsys, "catalog", "nodes", "-format=json", "-filter=Node==n1")[1])[0]["Node"] == "n1"
    assert console.run(capsys, "catalog", "services", "-node=n1", "-tags") == (0, "shown      a,b\n", "")
    assert json.loads(console.run(capsys, "catalog", "services", "-format=json")[1])["shown"] == ["a", "b"]
    assert console.run(capsys, "catalog", "nodes", "-node-meta=env=none")[::2] == (
        0,
        "No nodes match the given query - try expanding your search.\n",
    )


def test_services_are_registered_with_the_agent(
    console: Console, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ("-name=flagged", "-id=flagged-1", "-port=8080", "-tag=v1", "-tag=v2", "-meta=a=b=c")
    assert console.run(capsys, "services", "register", *flags) == (0, "Registered service: flagged\n", "")
    instance = json.loads(console.agent.request("GET", "/v1/agent/service/flagged-1")[1])
    assert (instance["Port"], instance["Tags"], instance["Meta"]) == (8080, ["v1", "v2"], {"a": "b=c"})
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text('{"service": {"name": "filed", "port": 81, "check": {"ttl": "30s"}}}')
    two.write_text('{"services": [{"name": "a", "id": "a-1"}, {"Name": "b"}]}')
    code, out, _ = console.run(capsys, "services", "register", str(one), str(two))
    assert (code, out) == (0, "Registered service: filed\nRegistered service: a\nRegistered service: b\n")

    def shown() -> set[str]:
        return set(console.run(capsys, "catalog", "services", "-node=s1")[1].split())

    eventually(lambda: shown() == {"consul", "flagged", "filed", "a", "b"}, "all are in the catalog")
    assert console.run(capsys, "services", "deregister", "-id=flagged-1")[1] == "Deregistered service: flagged-1\n"
    assert console.run(capsys, "services", "deregister", str(one), str(two))[0] == 0
    eventually(lambda: shown() == {"consul"}, "none is left")


def test_the_members_are_shown(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    header, s1 = console.run(capsys, "members")[1].splitlines()
    assert header.split() == ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"]
    assert s1.split()[0] == "s1"
    assert s1.split()[2:5] == ["alive", "server", "1.22.0"]
    assert s1.split()[6:] == ["dc1", "default", "<all>"]
    assert json.loads(console.run(capsys, "members", "-format=json")[1])[0]["Name"] == "s1"
    assert console.run(capsys, "members", "-wan")[1].splitlines()[1].split()[0] == "s1.dc1"
    assert console.run(capsys, "members", "-status=failed") == (registry_commands.NO_MEMBERS, "", "")


def test_the_statistics_are_shown(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = console.run(capsys, "info", "-stale", "-token=any")
    assert code == 0
    assert "\nraft:\n" in out
    assert "\tstate = Leader\n" in out
    assert json.loads(console.run(capsys, "info", "-format=json")[1])["raft"]["state"] == "Leader"


def maintenance_is_begun_shown_and_ended(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        return console.run(capsys, "maint", *words)

    def passing() -> bool:
        return console.agent.request("GET", "/v1/health/service/kept?passing")[1].strip() != b"[]"

    assert run() == (0, "", "")
    assert console.run(capsys, "services", "register", "-name=kept")[0] == 0
    assert passing()
    assert run("-enable", "-service=kept", "-reason=a new disk") == (
        0,
        'Service maintenance is now enabled for "kept"\n',
        "",
    )
    assert not passing()
    assert run("-enable") == (0, "Node maintenance is now enabled\n", "")
    node, service = run()[1].split("\n\n")[:2]
    assert node.startswith("Node:\n  Name:   s1\n  Reason: Maintenance mode is enabled for this node")
    assert service == "Service:\n  ID:     kept\n  Reason: a new disk"
    assert run("-disable") == (0, "Node maintenance is now disabled\n", "")
    assert run("-disable", "-service=kept")[:2] == (0, 'Service maintenance is now disabled for "kept"\n')
    assert passing() and run() == (0, "", "")
    code, _, error = run("-enable", "-service=none")
    assert (code, error.startswith("Error enabling service maintenance: Unexpected response code: 404")) == (1, True)
    assert console.run(capsys, "services", "deregister", "-id=kept")[0] == 0


def test_maintenance_is_begun_shown_and_ended(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    maintenance_is_begun_shown_and_ended(console, capsys)


def test_maintenance_that_is_not_shown_is_noticed(
    console: Console, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maint_command, "SERVICE_CHECK", "maintenance:")
    with pytest.raises((AssertionError, ValueError)):
        maintenance_is_begun_shown_and_ended(console, capsys)
    for words in (("-disable",), ("-disable", "-service=kept")):
        console.run(capsys, "maint", *words)


# --- lock -------------------------------------------------------------------------------------------------------------


def test_a_program_runs_while_the_lock_is_held(console: Console, tmp_path: Path) -> None:
    program = f"echo $CONSUL_LOCK_HELD > {tmp_path}/held; cat"
    first = console.start("lock", "-pass-stdin", "jobs/one", program, stdin=subprocess.PIPE)
    eventually(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text() == "true\n", "the program")
    row = console.key("jobs/one/.lock")
    assert row is not None
    assert (row["Flags"], bool(row["Session"])) == (locks.LOCK_FLAGS, True)
    second = console.start("lock", "-timeout=1s", "jobs/one", f"touch {tmp_path}/twice", stderr=subprocess.PIPE)
    _, error = second.communicate(timeout=PATIENCE_SECONDS)
    assert (second.returncode, error) == (1, "Shutdown triggered or timeout during lock acquisition\n")
    assert not (tmp_path / "twice").exists()
    third = console.start("lock", "-child-exit-code", "jobs/one", f"touch {tmp_path}/next; exit 9")
    first.communicate("", PATIENCE_SECONDS)
    assert first.returncode == 0
    assert third.wait(PATIENCE_SECONDS) == lock_command.CHILD_FAILED
    assert (tmp_path / "next").exists()
    assert console.key("jobs/one/.lock") is None, "who finds nobody waiting removes the key"
    assert [each for each in sessions(console) if each["Name"].startswith("Consul lock")] == []


def sessions(console: Console) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(console.agent.request("GET", "/v1/session/list")[1])
    return found


def a_program_ends_with_its_lock(console: Console, directory: Path, patience: float) -> None:
    """The program would go on after `patience` seconds, if it were let."""
    ended = threading.Event()
    prefix = f"jobs/{directory.name}"  # of its own: a lock that was taken away has its lock-delay

    def take_away() -> None:
        eventually((directory / "begun").exists, "the program has begun")
        row = console.key(f"{prefix}/.lock")
        assert row is not None
        console.agent.request("PUT", f"/v1/session/destroy/{row['Session']}")
        ended.wait(patience)
        (directory / "go").touch()

    thief = threading.Thread(target=take_away)
    thief.start()
    program = f"touch {directory}/begun; until [ -e {directory}/go ]; do sleep 0.02; done; touch {directory}/survived"
    with pytest.raises(SystemExit):
        comitia.main(["lock", prefix, program])
    ended.set()
    thief.join()
    assert not (directory / "survived").exists()


def test_a_program_ends_with_its_lock(console: Console, tmp_path: Path) -> None:
    a_program_ends_with_its_lock(console, tmp_path, PATIENCE_SECONDS)


def test_a_lock_that_nobody_watches_is_noticed(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.Lock, "watch", lambda self: None)
    with pytest.raises(AssertionError):
        a_program_ends_with_its_lock(console, tmp_path, 0.5)


def test_a_key_that_is_no_lock_is_not_taken_for_one(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    console.agent.put("jobs/plain/.lock", "mine")
    code, _, error = console.run(capsys, "lock", "jobs/plain", "true")
    assert (code, error) == (1, "Lock acquisition failed: Existing key does not match lock use\n")
    assert console.agent.get("jobs/plain/.lock") == "mine"


def the_program_gets_the_signal(console: Console, directory: Path) -> None:
    begun, traps = directory / "begun", 'trap "echo INT" INT; trap "echo TERM; exit 4" TERM'
    program = f"exec 2>/dev/null; {traps}; touch {begun}; while :; do sleep 0.02; done"
    prefix = f"jobs/{directory.name}"
    for number, heard in ((signal.SIGTERM, ["TERM"]), (signal.SIGINT, ["INT", "TERM"])):
        words = ("lock", "-verbose", prefix, program)
        with console.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            eventually(begun.exists, "the program has begun")
            begun.unlink()
            process.send_signal(number)
            out, error = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, error) == (0, "Error running handler: exit status 4\n")
        assert [word for word in out.split() if word in ("INT", "TERM")] == heard
        said = [line for line in out.splitlines() if line not in ("INT", "TERM")]
        assert said[:4] == [
            f"Setting up lock at path: {prefix}/.lock",
            "Attempting lock acquisition",
            "Starting handler",
            "Shutdown triggered, killing child",
        ]
        assert re.fullmatch(r"Terminating child pid \d+", said[4])
        assert said[5:] == ["Child terminated", "Cleanup succeeded"]


def test_the_program_gets_the_signal(console: Console, tmp_path: Path) -> None:
    the_program_gets_the_signal(console, tmp_path)


def test_an_interrupt_that_is_not_passed_on_is_noticed(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "sitecustomize.py"
    source.write_text(
        "import impl.cli.children as c; c.Told.number = property(lambda told: 0, lambda told, number: None)"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with pytest.raises(AssertionError):
        the_program_gets_the_signal(console, tmp_path)


def test_a_program_that_fails_or_cannot_start_is_told_of(console: Console, capfd: pytest.CaptureFixture[str]) -> None:
    for flags, program, error, code in (
        ((), "exit 3", "Error running handler: exit status 3\n", 0),
        (("-child-exit-code",), "kill -9 $$", "Error running handler: signal: killed\n", lock_command.CHILD_FAILED),
        (
            ("-shell=false",),
            "no-such",
            'Error starting handler: exec: "no-such": executable file not found in $PATH\n',
            0,
        ),
    ):
        assert console.run(capfd, "lock", *flags, "jobs/failing", program) == (code, "", error)
    assert console.run(capfd, "lock", "-verbose", "-n=2", "jobs/failing", "true")[1].splitlines() == [
        "Setting up semaphore (limit 2) at prefix: jobs/failing",
        "Attempting lock acquisition",
        "Starting handler",
        "Child terminated, releasing lock",
        "Cleanup succeeded",
    ]


def test_a_signal_ends_the_program_and_gives_the_lock_back(console: Console, tmp_path: Path) -> None:
    process = console.start("lock", "jobs/signal", f"touch {tmp_path}/begun; sleep 600")
    eventually((tmp_path / "begun").exists, "the program has begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert console.key("jobs/signal/.lock") is None


# --- watch ------------------------------------------------------------------------------------------------------------


def test_a_watch_without_a_program_prints_once(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    console.agent.put("watched/one", "1")
    shown = json.loads(console.run(capsys, "watch", "-type=key", "-key=watched/one")[1])
    assert (shown["Key"], shown["Value"]) == ("watched/one", b64encode(b"1").decode())
    assert console.run(capsys, "watch", "-type=key", "-key=watched/none") == (0, "null\n", "")
    console.register("n2", Service={"Service": "seen"}, Check={"Name": "c", "Status": "passing", "ServiceID": "seen"})
    for words in (("service", "-service=seen", "-passingonly=true"), ("checks", "-service=seen"), ("nodes",)):
        assert len(json.loads(console.run(capsys, "watch", f"-type={words[0]}", *words[1:])[1])) >= 1
    assert "seen" in json.loads(console.run(capsys, "watch", "-type=services")[1])


def test_a_program_is_given_every_change(console: Console, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = f'cat >> {seen}; echo "$CONSUL_INDEX" >> {tmp_path}/indexes'
    console.agent.put("watched/many/0", "0")
    process = console.start("watch", "-type=keyprefix", "-prefix=watched/many/", program)

    def keys() -> list[int]:
        return [len(json.loads(line)) for line in seen.read_text().splitlines()] if seen.exists() else []

    for number in range(1, 4):
        eventually(partial(lambda count: keys()[-1:] == [count], number), f"{number} keys")
        console.agent.put("elsewhere", "no change of these")
        console.agent.put(f"watched/many/{number}", "x")
    eventually(lambda: keys() == [1, 2, 3, 4], "all changes, each once")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0
    indexes = [int(line) for line in (tmp_path / "indexes").read_text().split()]
    assert indexes == sorted(set(indexes))


def test_a_program_that_fails_ends_the_watch(console: Console) -> None:
    process = console.start("watch", "-type=nodes", "exit 3", stderr=subprocess.PIPE)
    _, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, error) == (1, "Error executing handler: exit status 3\n")


def test_an_agent_raises_its_limit_of_open_files_as_programs_in_go_do() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(hard, soft) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        agent = AgentProcess("-dev", "-server-port", "0").started()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{agent.process.pid}/limits").read_text()
    agent.kill()
    assert re.search(rf"Max open files +{hard} +{hard} ", limits), limits
