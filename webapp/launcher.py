"""Keeps the processes of a site running: starts them in order, restarts those that die, stops them in order.

Each is the leader of a session of its own, so that Ctrl-C reaches only the launcher, and whatever it leaves behind when
it dies (an embedded beat, say) can be swept away by its process group.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MARK = "NANOCHATGPT_LAUNCHED_FOR"
MOST_LOG_BYTES = 10_000_000
PATIENCE = 60.0  # seconds after which a process counts as well again
LONGEST_PAUSE = 30.0


class AlreadyRunning(Exception):
    """Another launcher keeps this data directory; the text holds its process id."""


@dataclass
class Child:
    """One process: how to start it, when it is ready, how long it may take to stop."""

    name: str
    command: list[str]
    log: Path
    ready: Callable[["Child"], bool]
    stop_seconds: float
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    log_start: int = 0

    def start(self, environment: dict[str, str]) -> None:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > MOST_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".1.log"))
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self, words: str) -> bool:
        """Whether its log has these words since it was started."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return words.encode() in log.read()

    def last_words(self, lines: int = 5) -> str:
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            text = log.read()[-20_000:].decode("utf-8", "replace")
        return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        if self.is_running and self.process:
            self.process.terminate()

    def sweep(self) -> None:
        """Kill it, if it runs, and whatever it left behind."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Launcher:
    """Runs children until it is told to stop. They are stopped in the reverse order of `children`."""

    data: Path
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)

    def listen(self) -> None:
        """Take Ctrl-C and SIGTERM as the wish to stop, and the second one as the wish to stop at once."""

        def ask(number: int, frame: object) -> None:
            if self.stopping.is_set():
                self.hurry.set()
            self.stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ask)

    def run(self, *children: Child, timeout: float) -> bool:
        """Start children and wait until all are ready. False where one died or took too long, or we shall stop."""
        for child in children:
            self.children.append(child)
            child.start(self._environment())
        waiting = list(children)
        while waiting and not self.stopping.is_set():
            for child in list(waiting):
                seconds = time.monotonic() - child.started_at
                if not child.is_running or seconds > timeout:
                    self.say(f"{child.name} did not become ready. The end of {child.log}:\n{child.last_words()}")
                    return False
                if child.ready(child):
                    self.say(f"{child.name}: ready after {seconds:.1f} s")
                    waiting.remove(child)
            time.sleep(0.05)
        return not waiting

    def watch(self) -> None:
        """Until told to stop: start again what dies, later each time."""
        while not self.stopping.wait(0.2):
            for child in self.children:
                self._mend(child)

    def _mend(self, child: Child) -> None:
        now = time.monotonic()
        if child.is_running:
            if now - child.started_at > PATIENCE:
                child.failures = 0
        elif child.process is not None:
            code = child.process.returncode
            child.sweep()
            child.process = None
            pause = min(LONGEST_PAUSE, 2.0**child.failures)
            child.failures += 1
            child.start_at = now + pause
            self.say(f"{child.name} ended ({_how(code)}); starting it again in {pause:.0f} s. See {child.log}")
        elif now >= child.start_at:
            child.start(self._environment())
            self.say(f"{child.name} started again")

    def stop(self) -> None:
        """Stop all in reverse order; workers side by side, as each may have a checkpoint to write."""
        waiting = [child for child in reversed(self.children) if child.process is not None]
        while waiting:
            together = [child for child in waiting if child.stop_seconds == waiting[0].stop_seconds]
            waiting = [child for child in waiting if child not in together]
            self.say(f"stopping {', '.join(child.name for child in together)}")
            for child in together:
                child.ask_to_stop()
            deadline = time.monotonic() + together[0].stop_seconds
            while any(child.is_running for child in together):
                if self.hurry.is_set() or time.monotonic() > deadline:
                    late = [child.name for child in together if child.is_running]
                    self.say(f"{', '.join(late)} did not stop in time and was ended")
                    break
                time.sleep(0.05)
            for child in together:
                child.sweep()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, MARK: str(self.data), "PYTHONUNBUFFERED": "1"}


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def take_lock(data: Path) -> int:
    """The right to launch for `data`, ours until this process ends, however it ends. Raises AlreadyRunning."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(data / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode().strip()
        os.close(descriptor)
        raise AlreadyRunning(holder or "unknown") from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def leftovers(data: Path) -> list[int]:
    """Processes of an earlier launcher for `data` that was killed and could not stop them. Known on Linux only."""
    mark = f"{MARK}={data}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def stop_leftovers(data: Path, timeout: float = 10.0) -> int:
    """End them, gently first. Returns how many there were."""
    found = leftovers(data)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while leftovers(data) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in leftovers(data):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def web_command(host: str, port: int) -> list[str]:
    """How the web server of one machine is started, as docker-compose.yml starts that of production.

    Its threads live on, so that each keeps its connection to the database.
    """
    command = [sys.executable, "-m", "gunicorn", "webapp.wsgi", "--bind", f"{host}:{port}", "--worker-class", "gthread"]
    command += ["--workers", "2", "--threads", "8", "--graceful-timeout", "5"]
    return [*command, "--env", "CONN_MAX_AGE=60", "--log-level", "warning", "--no-control-socket"]
