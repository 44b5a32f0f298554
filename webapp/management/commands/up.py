"""`manage.py up`: the whole site on one machine: broker, database, web server and workers, until Ctrl-C."""

import http.client
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp import broker
from webapp.launcher import AlreadyRunning, Child, Launcher, stop_leftovers, take_lock, web_command
from webapp.management.commands.setup_site import accounts_file

HOST = "127.0.0.1"


class Command(BaseCommand):
    help = "Start broker, web server and workers, and keep them running until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        os.umask(0o077)  # people's words and password hashes are nobody else's to read
        if Path("/dev/nvidiactl").exists():
            os.environ.setdefault("SHARED_GPU", "gpu")  # sampler and trainer take turns on it
        data, port = Path(settings.DATA_DIR), options["port"]
        lock = self._only_one(data)
        if count := stop_leftovers(data):
            self.say(f"stopped {count} processes that an earlier start left behind")
        require_free_port(port)
        launcher = Launcher(data, self.say)
        launcher.listen()
        known = accounts_file().exists()
        try:
            if self._start(launcher, port):
                self._welcome(port, time.monotonic() - began, new_accounts=not known)
                launcher.watch()
            elif not launcher.stopping.is_set():
                raise CommandError("The site did not start.")
        finally:
            launcher.stop()
            self.say("stopped")
            os.close(lock)

    def say(self, text: str) -> None:
        self.stdout.write(f"{time.strftime('%H:%M:%S')} {text}")
        self.stdout.flush()

    def _only_one(self, data: Path) -> int:
        try:
            return take_lock(data)
        except AlreadyRunning as error:
            raise CommandError(
                f"A site with the data directory {data} is running already (process {error}). Stop it first, or set "
                "DATA_DIR to another directory."
            ) from None

    def _start(self, launcher: Launcher, port: int) -> bool:
        """Everything in order; False where something did not start or Ctrl-C came."""
        if not settings.REDIS_URL and not launcher.run(broker_child(), timeout=20):
            return False
        self.say("database: applying migrations")
        call_command("migrate", verbosity=0, interactive=False)
        if launcher.stopping.is_set():
            return False
        call_command("setup_site", hide_passwords=True, stdout=self.stdout, stderr=self.stderr)
        return not launcher.stopping.is_set() and launcher.run(web_child(port), *worker_children(), timeout=120)

    def _welcome(self, port: int, seconds: float, *, new_accounts: bool) -> None:
        path = accounts_file()
        lines = [
            "",
            f"The site is up after {seconds:.0f} s; Ctrl-C stops it.",
            f"  http://{HOST}:{port}/        labeling",
        ]
        lines += [f"  http://{HOST}:{port}/admin/  admin console", f"  http://{HOST}:{port}/api/    REST API", ""]
        if new_accounts and path.exists():
            lines += ["Accounts and passwords, shown once and kept in " + str(path) + ":"]
            lines += [f"  {line}" for line in path.read_text().splitlines()]
        elif path.exists():
            lines += [f"Accounts stand in {path}"]
        lines += [f"Logs stand in {settings.DATA_DIR}/logs", ""]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()


def require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} cannot be used ({error.strerror}). Stop what uses it, or choose another with --port."
            ) from None


def log(name: str) -> Path:
    return Path(settings.DATA_DIR) / "logs" / f"{name}.log"


def broker_child() -> Child:
    path = settings.BROKER_SOCKET
    try:
        command = broker.command(path, Path(settings.DATA_DIR) / "broker")
        broker.shut_down(path)
    except broker.NoBroker as error:
        raise CommandError(str(error)) from None
    return Child("broker", command, log("broker"), lambda child: broker.answers(path), stop_seconds=10)


def web_child(port: int) -> Child:
    return Child("web", web_command(HOST, port), log("web"), lambda child: serves(port), stop_seconds=8)


def worker_children() -> list[Child]:
    """A sampler that keeps the policy in memory; short jobs beside a training run and an export, with the beat."""
    queues = {"sampler": ["-Q", "sample", "-P", "solo"], "trainer": ["-Q", "default,train", "-P", "threads", "-c", "3"]}
    queues["trainer"] += ["-B"]
    site = settings.BROKER_SOCKET.parent.name
    return [
        Child(
            name,
            [sys.executable, "-m", "celery", "-A", "worker.celery", "worker", *options]
            + ["-n", f"{name}@{site}", "--loglevel", "INFO", "--without-gossip", "--without-mingle"],
            log(name),
            lambda child: child.said("ready."),
            stop_seconds=75,  # longer than a trainer may take for its checkpoint
        )
        for name, options in queues.items()
    ]


def serves(port: int) -> bool:
    """Whether the web server answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/healthz", headers={"Host": f"{HOST}:{port}"})
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()
