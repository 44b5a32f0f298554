"""The commands of docker-compose.yml, run outside Docker on PostgreSQL and Redis, work together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings

from webapp.tests.test_compose import words

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

ROOT = Path(settings.BASE_DIR)
HOST = "labels.example.org"
DATABASE = "as_in_production"


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


class Deployment:
    """Processes as the containers run them, with one data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        server = os.environ["DATABASE_URL"]
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {DATABASE}")
        secret = folder / "secret"
        secret.write_text("a-long-and-random-key-that-only-this-test-knows-0123456789")
        keep = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        self.environment = keep | {
            "ENVIRONMENT": "production",
            "SECRET_KEY_FILE": str(secret),
            "ALLOWED_HOSTS": HOST,
            "BEHIND_PROXY": "1",
            "CONN_MAX_AGE": "60",
            "DATA_DIR": str(folder / "data"),
            "DATABASE_URL": server.rsplit("/", 1)[0] + f"/{DATABASE}",
            "REDIS_URL": os.environ["REDIS_URL"].rsplit("/", 1)[0] + "/7",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        (folder / "data").mkdir()

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    def start(self, service: str) -> None:
        command = [word.replace("0.0.0.0:8000", f"127.0.0.1:{self.port}") for word in words(service)]
        with (self.folder / f"{service}.log").open("wb") as log:
            self.running[service] = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def said(self, service: str, pattern: str) -> bool:
        assert self.running[service].poll() is None, (self.folder / f"{service}.log").read_text()
        return re.search(pattern, (self.folder / f"{service}.log").read_text()) is not None

    def get(self, path: str, **headers: str) -> Any:
        address = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(address, headers={"Host": HOST, "X-Forwarded-Proto": "https", **headers})
        return urllib.request.urlopen(request, timeout=10)

    def stop(self) -> dict[str, int]:
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        return {service: process.wait(60) for service, process in self.running.items()}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    had_static_files = (ROOT / "staticfiles").exists()
    deployment.manage("migrate", "--noinput")
    deployment.manage("collectstatic", "--noinput")
    for service in ("web", "sampler", "trainer", "beat"):
        deployment.start(service)
    yield deployment
    for process in deployment.running.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not had_static_files:
        shutil.rmtree(ROOT / "staticfiles")


def test_the_web_server_is_ready_by_its_own_healthcheck(deployment: Deployment) -> None:
    check = [sys.executable, "-m", "webapp.healthcheck", f"http://127.0.0.1:{deployment.port}/readyz"]
    until(lambda: subprocess.run(check, cwd=ROOT, env=deployment.environment, capture_output=True).returncode == 0)
    answer = json.load(deployment.get("/readyz"))
    assert (answer["status"], answer["database"], answer["broker"]) == ("ok", "ok", "ok")


def test_pages_and_their_hashed_files_are_served(deployment: Deployment) -> None:
    page = until(lambda: deployment.get("/login/")).read().decode()
    sheet = re.search(r'href="(/static/site\.[0-9a-f]{12}\.css)"', page)
    assert sheet, page
    assert "immutable" in deployment.get(sheet[1]).headers["Cache-Control"]


def test_plain_http_is_sent_to_https(deployment: Deployment) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAIN.format(port=deployment.port, host=HOST)], capture_output=True, text=True
    )
    assert done.stdout.split() == ["301", f"https://{HOST}/login/"], done.stderr


PLAIN = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", {port})
connection.request("GET", "/login/", headers={{"Host": "{host}"}})
answer = connection.getresponse()
print(answer.status, answer.headers["location"])
"""


def test_workers_answer_under_their_names(deployment: Deployment) -> None:
    for service in ("sampler", "trainer"):
        until(lambda service=service: deployment.said(service, r"ready\."))
    ping = [sys.executable, "-m", "celery", "-A", "worker.celery", "inspect", "ping", "--timeout", "20"]
    names = ",".join(f"{service}@{socket.gethostname()}" for service in ("sampler", "trainer"))
    done = subprocess.run([*ping, "-d", names], cwd=ROOT, env=deployment.environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("pong") == 2, done.stdout + done.stderr
    assert json.load(deployment.get("/readyz?workers"))["workers"] == {"sampler": True, "trainer": True}


def test_the_beat_has_jobs_mended(deployment: Deployment) -> None:
    until(lambda: deployment.said("beat", "Sending due task mend jobs"))
    until(lambda: deployment.said("trainer", r"worker\.tasks\.mend.* succeeded"))


def test_all_stop_when_asked_to(deployment: Deployment) -> None:
    assert deployment.stop() == {"web": 0, "sampler": 0, "trainer": 0, "beat": 0}
