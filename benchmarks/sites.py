"""Our site for measurements: started as `make run` does (SQLite) or as docker-compose.yml does (PostgreSQL).

The rows are made at once, in a process of its own, as the models' own verbs would leave them.
"""

import argparse
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from webapp.launcher import web_command

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery staple"
DATABASES = ("sqlite", "postgresql")
PROXY = {"X-Forwarded-Proto": "https"}  # what a TLS proxy says, so that production takes plain HTTP from us
STOP_SECONDS = 20


@dataclass
class Site:
    """A web server of ours with a database of its own."""

    database: str
    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    clerk: subprocess.Popen[str] | None = None
    """Does what `ask` wants on the site's database: a process of its own, so that Django's settings are the site's."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.database == "sqlite" else {**PROXY, "Referer": f"https://127.0.0.1:{self.port}/"}

    def ask(self, *words: object) -> Any:
        """One of this module's commands, on the site's database. Returns what it said as JSON."""
        if self.clerk is None:
            command = [sys.executable, "-m", "benchmarks.sites"]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.clerk = subprocess.Popen(command, cwd=ROOT, env=self.environment, **pipes)
        assert self.clerk.stdin and self.clerk.stdout
        print(json.dumps([str(word) for word in words]), file=self.clerk.stdin, flush=True)
        said = self.clerk.stdout.readline()
        if not said:
            raise SystemExit(f"{words} failed on {self.database}")
        return json.loads(said)

    def start(self) -> None:
        self.port = free_port()
        log = (self.folder / f"{self.database}.log").open("ab")
        self.process = subprocess.Popen(
            _command(self.database, self.port),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        until_it_listens(self.port, self.process)

    def stop(self) -> None:
        if self.process:
            stop(self.process)
        if self.clerk and self.clerk.stdin:
            self.clerk.stdin.close()
            self.clerk.wait()

    @property
    def errors(self) -> int:
        """Tracebacks in the server's log."""
        return (self.folder / f"{self.database}.log").read_text().count("Traceback (most recent call last)")


@contextlib.contextmanager
def site(database: str, folder: Path, *, sets: int, labelers: int) -> Iterator[Site]:
    """A site that serves: one project with `sets` open sets of 4, and `labelers` (labeler-0 ...) as its members."""
    made = Site(database, folder, environment=_environment(database, folder))
    manage = [sys.executable, "manage.py"]
    steps = [["migrate", "--verbosity", "0"], ["collectstatic", "--noinput", "--verbosity", "0"]]
    for step in steps[: 1 if database == "sqlite" else 2]:
        subprocess.run([*manage, *step], cwd=ROOT, env=made.environment, check=True)
    made.ask("fill", "--sets", sets, "--labelers", labelers)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def with_services(databases: Sequence[str]) -> None:
    """Start this program anew beside a PostgreSQL and a Redis, where it needs them and has none."""
    if "postgresql" in databases and not os.environ.get("DATABASE_URL"):
        program = [sys.executable, "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]]  # type: ignore[union-attr]
        os.execv(ROOT / ".ci" / "with-services", [".ci/with-services", *program])


def _environment(database: str, folder: Path) -> dict[str, str]:
    data = folder / f"data-{database}"
    data.mkdir(exist_ok=True)
    own = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    own |= {"DATA_DIR": str(data), "XDG_RUNTIME_DIR": str(folder), "LOG_LEVEL": "WARNING"}
    if database == "sqlite":
        return own | {"ENVIRONMENT": "embedded"}
    return own | {
        "ENVIRONMENT": "production",
        "SECRET_KEY": "only for measurements " * 3,
        "ALLOWED_HOSTS": "127.0.0.1",
        "BEHIND_PROXY": "1",
        "CONN_MAX_AGE": str(_service()["environment"]["CONN_MAX_AGE"]),
        "DATABASE_URL": os.environ["DATABASE_URL"],
        "REDIS_URL": os.environ["REDIS_URL"],
    }


def _command(database: str, port: int) -> list[str]:
    if database == "sqlite":
        return web_command("127.0.0.1", port)
    said = [f"127.0.0.1:{port}" if word == "0.0.0.0:8000" else word for word in _service()["command"]]
    return [sys.executable, "-m", *said]


def _service() -> dict[str, Any]:
    """The web server as docker-compose.yml starts it."""
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["web"]
    return service


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until_it_listens(port: int, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with exit code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit(f"{process.args!r} does not listen on port {port}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session of its own, and whatever it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cpu_seconds(process: subprocess.Popen[bytes] | None) -> float:
    """What a process and its children have used until now."""
    import psutil  # type: ignore[import-untyped]

    if process is None:
        return 0.0
    first = psutil.Process(process.pid)
    family = [first, *first.children(recursive=True)]
    return float(sum(sum(one.cpu_times()[:2]) for one in family))


# --- Commands: what `Site.ask` asks for ------------------------------------------------------------------------------


def fill(sets: int, labelers: int) -> int:
    """A project with `sets` open sets more, and `labelers` members. Returns how many open places there are."""
    from django.db import connection

    from labeling.models import Project, Slot
    from labeling.tests.rows import many_open

    project, is_new = Project.objects.get_or_create(
        slug="speed",
        # Without hidden repeats: they are meant for one person alone, and would be counted as places not given.
        defaults={"name": "Speed", "languages": ["en"], "demonstration_overlap": 0, "repeat_percent": 0},
    )
    if is_new:
        Project.objects.filter(pk=project.pk).update(policy_name="tiny-1", policy_languages=["en"])
        project.revise_instructions({"en": "Prefer what is true."}, None)
    _member("curator", is_admin=True)
    for number in range(labelers):
        _member(f"labeler-{number}")
    if sets:
        many_open(project, sets)
    with connection.cursor() as cursor:  # as autovacuum does by and by
        cursor.execute("ANALYZE")
    return Slot.objects.open().count()


def _member(name: str, is_admin: bool = False) -> Any:
    """Someone in the project, made at the first call."""
    from labeling.models import Project, Role, User

    user, is_new = User.objects.get_or_create(
        username=name, defaults={"password": _hashed_password(), "is_superuser": is_admin}
    )
    if is_new:
        user.set_roles([Role.ADMIN if is_admin else Role.LABELER])
        Project.objects.get(slug="speed").members.add(user)
    return user


@functools.cache
def _hashed_password() -> str:
    from django.contrib.auth.hashers import make_password

    return make_password(PASSWORD)


def stored() -> dict[str, Any]:
    """What the database holds of labels: the slot of each answer, answers and revisions."""
    from labeling.models import Answer, Revision, Slot

    answered = Slot.objects.filter(state=Slot.State.ANSWERED)
    return {
        "slots": sorted(Answer.objects.values_list("slot", flat=True)),
        "answered": answered.count(),
        "answers": Answer.objects.count(),
        "revisions": Revision.objects.count(),
    }


def clear() -> int:
    """Nobody holds anything and nothing is open. Returns how many places went."""
    from labeling.models import Slot

    Slot.objects.filter(state=Slot.State.LEASED).update(state=Slot.State.OPEN, labeler=None, lease_until=None)
    count = Slot.objects.open().count()
    Slot.objects.withdraw()
    return count


def expire() -> int:
    """The leases of all run out, as if a quarter of an hour had gone by. Returns how many."""
    from datetime import timedelta

    from django.db.models.functions import Now

    from labeling.models import Slot

    leased = Slot.objects.filter(state=Slot.State.LEASED)
    return leased.update(lease_until=Now() - timedelta(seconds=1))


def grow(open: int, answered: int) -> int:
    """As many open sets, and rankings by a labeler of their own, as asked for. Returns how many sets there are."""
    from django.db import connection

    from labeling.models import CompletionSet, Project, Slot
    from labeling.tests.rows import many_open, many_ranked

    project, author = Project.objects.get(slug="speed"), _member("author")
    there = Slot.objects.filter(project=project)
    many_ranked(project, author, answered - there.answered_by(author).count())
    many_open(project, open - there.open().count())
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return CompletionSet.objects.count()


def asked(pages: list[str]) -> dict[str, int]:
    """How many queries each page makes for an admin."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from labeling.models import User

    client = Client(SERVER_NAME="127.0.0.1", HTTP_X_FORWARDED_PROTO="https")
    client.force_login(User.objects.get(username="curator"))
    counts = {}
    for page in pages:
        with CaptureQueriesContext(connection) as queries:
            client.get(page)
        counts[page] = len(queries)
    return counts


def one(k: int, rates: bool) -> int:
    """Exactly one open set, of `k`, to be rated first or not."""
    from labeling.models import Project
    from labeling.tests.rows import many_open

    clear()
    Project.objects.filter(slug="speed").update(require_ratings=rates)
    many_open(Project.objects.get(slug="speed"), 1, k=k)
    return 1


def last() -> list[int]:
    """The tiers of the newest ranking."""
    from labeling.models import Revision

    tiers: list[int] = Revision.objects.latest("pk").tiers
    return tiers


COMMANDS: dict[str, Callable[..., Any]] = {
    "fill": fill,
    "grow": grow,
    "asked": asked,
    "stored": stored,
    "clear": clear,
    "expire": expire,
    "one": one,
    "last": last,
}


def main() -> None:
    """Answers commands that come as lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    filling = commands.add_parser("fill")
    filling.add_argument("--sets", type=int, required=True)
    filling.add_argument("--labelers", type=int, required=True)
    growing = commands.add_parser("grow")
    growing.add_argument("--open", type=int, required=True)
    growing.add_argument("--answered", type=int, required=True)
    asking = commands.add_parser("asked")
    asking.add_argument("--page", action="append", dest="pages")
    single = commands.add_parser("one")
    single.add_argument("--k", type=int, required=True)
    single.add_argument("--rates", action="store_true")
    for name in ("stored", "clear", "expire", "last"):
        commands.add_parser(name)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    import django

    django.setup()
    for line in sys.stdin:
        options = vars(parser.parse_args(json.loads(line)))
        print(json.dumps(COMMANDS[options.pop("command")](**options)), flush=True)


if __name__ == "__main__":
    main()
