"""`manage.py up`, as a person starts and stops it."""

import http.client
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from webapp import broker
from webapp.launcher import MARK, AlreadyRunning, Child, Launcher, leftovers, stop_leftovers, take_lock
from worker.tests.conftest import checkpoint, until

__all__ = ["checkpoint"]


class Site:
    """One run of `manage.py up` and the environment it runs in."""

    def __init__(self, home: Path) -> None:
        self.data = home / "data"
        self.output = home / "up.log"
        self.environment = {
            **os.environ,
            "DATA_DIR": str(self.data),
            "XDG_RUNTIME_DIR": str(home),
            "OMP_NUM_THREADS": "1",
        }
        for name in ("REDIS_URL", "DATABASE_URL"):
            self.environment.pop(name, None)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=settings.BASE_DIR, env=self.environment, capture_output=True, text=True)

    def start(self) -> None:
        command = [sys.executable, "manage.py", "up", "--port", str(self.port)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=settings.BASE_DIR, env=self.environment, stdout=output, stderr=output
            )
        until(lambda: "The site is up" in self.said() or self.process and self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.output.read_text()

    def status_of(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    def count(self, query: str) -> int:
        database = sqlite3.connect(self.data / "db.sqlite3")
        try:
            return int(database.execute(query).fetchone()[0])
        finally:
            database.close()

    def process_of(self, words: str) -> int:
        """The process that a launcher started with these words on its command line, the oldest if there are several."""
        found = [pid for pid in leftovers(self.data) if words in command_line(pid)]
        return min(found, default=0)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
        stop_leftovers(self.data, timeout=0)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def site() -> Iterator[Site]:
    # Not under pytest's own folder: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="up-") as home:
        site = Site(Path(home))
        yield site
        site.end()


def test_up_serves_samples_mends_and_leaves_nothing_behind(site: Site, checkpoint: Path) -> None:
    site.data.mkdir()
    assert site.manage("migrate", "-v0").returncode == 0
    # A tiny model under the starter's name: the real one is large.
    imported = site.manage("import_model", str(checkpoint), "--name", "smollm2-135m-instruct")
    assert "policy, languages en" in imported.stdout, imported.stderr
    site.start()

    accounts = (site.data / "accounts.txt").read_text()
    assert all(line in site.said() for line in accounts.splitlines())
    assert f"http://127.0.0.1:{site.port}/" in site.said()
    assert site.status_of("/healthz") == 200
    until(lambda: site.count("SELECT count(*) FROM labeling_completionset WHERE state = 'ready'") == 12)

    second = site.manage("up", "--port", "1")
    assert second.returncode != 0
    assert "is running already" in second.stderr

    web = until(lambda: site.process_of("gunicorn"))
    os.kill(web, signal.SIGKILL)
    until(lambda: "web ended (killed by SIGKILL); starting it again" in site.said())
    until(lambda: "web started again" in site.said())
    until(lambda: site.process_of("gunicorn"))

    assert site.process is not None
    site.process.send_signal(signal.SIGINT)
    assert site.process.wait(timeout=300) == 0
    order = ["stopping trainer, sampler", "stopping web", "stopping broker", "stopped"]
    assert [line.split(" ", 1)[1] for line in site.said().splitlines() if "stop" in line][-4:] == order
    assert leftovers(site.data) == []
    assert list(site.data.parent.glob("nanochatgpt-*/broker.sock")) == []
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (site.data / "logs").iterdir()}
    assert modes == {"broker.log": 0, "web.log": 0, "sampler.log": 0, "trainer.log": 0}


def test_a_taken_port_is_named_before_anything_starts(site: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.port))
        other.listen()
        refused = site.manage("up", "--port", str(site.port))
    assert refused.returncode != 0
    assert f"Port {site.port} cannot be used" in refused.stderr
    assert leftovers(site.data) == []


def test_only_one_launcher_keeps_a_data_directory(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        take_lock(tmp_path)
    os.close(lock)
    os.close(take_lock(tmp_path))


def sleeper(data: Path, code: str = "import time; time.sleep(600)") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARK: str(data)}, start_new_session=True)


def test_what_a_killed_launcher_left_behind_is_stopped_by_the_next(tmp_path: Path) -> None:
    gentle = sleeper(tmp_path)
    ignore = "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    deaf = sleeper(tmp_path, f"{ignore}; pathlib.Path({str(tmp_path / 'deaf')!r}).touch(); time.sleep(600)")
    foreign = sleeper(tmp_path / "another")
    threading.Thread(target=gentle.wait).start()
    until((tmp_path / "deaf").exists)
    assert set(leftovers(tmp_path)) == {gentle.pid, deaf.pid}
    assert stop_leftovers(tmp_path, timeout=1) == 2
    assert deaf.wait() == -signal.SIGKILL
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()


def test_a_process_that_keeps_dying_is_started_again_ever_later(tmp_path: Path) -> None:
    said: list[str] = []
    launcher = Launcher(tmp_path, said.append)
    crash = Child("crash", [sys.executable, "-c", "exit(7)"], tmp_path / "crash.log", lambda child: False, 1)
    assert launcher.run(crash, timeout=30) is False
    watching = threading.Thread(target=launcher.watch)
    watching.start()
    until(lambda: len(said) >= 4)
    launcher.stopping.set()
    watching.join()
    launcher.stop()
    pauses = [line for line in said if "starting it again" in line]
    assert [line.split(";")[1].split(".")[0] for line in pauses[:2]] == [
        " starting it again in 1 s",
        " starting it again in 2 s",
    ]
    assert "exit code 7" in pauses[0]


def test_a_child_that_ignores_the_wish_to_stop_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sleep', '600']); print('here', flush=True); time.sleep(600)"
    )
    said: list[str] = []
    launcher = Launcher(tmp_path, said.append)
    deaf = Child("deaf", [sys.executable, "-c", code], tmp_path / "deaf.log", lambda child: child.said("here"), 0.5)
    assert launcher.run(deaf, timeout=30)
    launcher.stop()
    assert "deaf did not stop in time and was ended" in said
    until(lambda: leftovers(tmp_path) == [])


def test_a_broker_that_was_left_behind_is_shut_down(tmp_path: Path) -> None:
    path = tmp_path / "b" / "b.sock"
    server = subprocess.Popen(broker.command(path, tmp_path / "data"), stdout=subprocess.DEVNULL)
    until(lambda: broker.answers(path))
    broker.shut_down(path)
    assert server.wait() == 0
    assert not broker.answers(path)
    broker.shut_down(path)  # where there is none


def test_the_directory_of_the_broker_must_be_private(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    with pytest.raises(broker.NoBroker, match="not private"):
        broker.command(shared / "broker.sock", tmp_path / "data")


def test_a_socket_path_that_some_systems_refuse_is_refused_everywhere(tmp_path: Path) -> None:
    with pytest.raises(broker.NoBroker, match="XDG_RUNTIME_DIR"):
        broker.command(tmp_path / ("long" * 30) / "broker.sock", tmp_path / "data")


def test_without_any_server_the_ways_to_get_one_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert broker.find_server().endswith("valkey-server")  # from the wheel
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(broker.NoBroker, match="apt install redis-server"):
        broker.find_server()
