"""A small real policy, a project that samples from it, a private broker, and workers in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from django.db import connection

from labeling.models import Project, Prompt, Role, SamplingJob, User
from modelzoo.checkpoint import manifest_hash, save_checkpoint
from modelzoo.config import ModelConfig
from modelzoo.tokenizer import train_sentencepiece
from modelzoo.transformer import Transformer
from rlhf.models import ModelVersion
from webapp import broker as embedded
from worker import leases, sampling
from worker.tests.broker import use_broker

SENTENCE = "the cat sat on a mat and saw good fish in warm sea water while dogs ran over green hills"
WORDS = SENTENCE.split()
LEASE_SECONDS = 4


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something that another process does; returns what the condition returned."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return answer


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test talks to a broker that happens to run on this machine, or sees what an earlier one left in memory."""
    use_broker(f"redis+socket://{tmp_path}/nobody.sock")
    monkeypatch.setattr(sampling, "resident", sampling.Resident())
    leases.stopping.clear()
    torch.set_num_threads(1)
    yield
    leases.stopping.clear()  # tests of other packages run jobs, too


@pytest.fixture
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    return settings.DATA_DIR


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that knows nothing. Greedily it repeats itself and never ends: a set takes as long as its limit says."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = train_sentencepiece([SENTENCE] * 4, 300)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    save_checkpoint(directory, Transformer(config), tokenizer, kind="policy", languages=["en"])
    return directory


@pytest.fixture
def version(db: None, data_dir: Path, checkpoint: Path) -> ModelVersion:
    shutil.copytree(checkpoint, data_dir / "models" / "tiny")
    return ModelVersion.objects.create(
        name="tiny",
        kind="policy",
        directory="models/tiny",
        manifest_hash=manifest_hash(checkpoint),
        languages=["en"],
    )


@pytest.fixture
def curator(db: None) -> User:
    user = User.objects.create_user("carol")
    user.set_roles([Role.CURATOR])
    return user


@pytest.fixture
def project(version: ModelVersion) -> Project:
    project = Project.objects.create(name="Help", slug="help", languages=["en"], k=4, max_new_tokens=6)
    project.set_policy(version.name, version.languages)
    return project


@pytest.fixture
def ask(project: Project, curator: User) -> Callable[..., SamplingJob]:
    """Approve a prompt, which queues the sampling of its set."""

    def ask(text: str, **changes: Any) -> SamplingJob:
        Project.objects.filter(pk=project.pk).update(**changes)
        project.refresh_from_db()
        prompt = Prompt.objects.add(project, [{"role": "user", "content": text}], language="en")
        Prompt.objects.filter(pk=prompt.pk).approve(curator)
        return SamplingJob.objects.get(completion_set__prompt=prompt)

    return ask


class Broker:
    """A real one on a socket of its own, which can be killed and started again."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="broker-"))
        self.socket = self.home / "b.sock"
        self.url = f"redis+socket://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = embedded.command(self.socket, self.home / "data")
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        return embedded.answers(self.socket)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    broker.start()
    use_broker(broker.url)
    yield broker
    broker.kill()
    shutil.rmtree(broker.home)


class Worker:
    """A worker process, as the launcher starts it."""

    def __init__(self, environment: dict[str, str], log: Path, *options: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "celery", "-A", "worker.celery", "worker", *options]
        command += ["-n", f"{log.stem}@test", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self._process.pid
        until(lambda: "ready." in self.said() or self._process.poll() is not None)
        assert self._process.poll() is None, self.said()

    def said(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(timeout=300)

    def clean_up(self) -> None:
        if self._process.poll() is None:
            self.kill()


@pytest.fixture
def start_worker(
    broker: Broker, data_dir: Path, tmp_path: Path, transactional_db: None
) -> Iterator[Callable[..., Worker]]:
    """Start a worker that shares this test's database, data directory and broker."""
    started: list[Worker] = []
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "REDIS_URL": broker.url,
        "DATA_DIR": str(data_dir),
        "JOB_LEASE_SECONDS": str(LEASE_SECONDS),
        "OMP_NUM_THREADS": "1",
    }

    def start(name: str, *options: str) -> Worker:
        started.append(Worker(environment, tmp_path / f"{name}.log", *options))
        return started[-1]

    yield start
    for worker in started:
        worker.clean_up()


def database_url() -> str:
    """The test database as a worker process may find it."""
    chosen = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{chosen['NAME']}"
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**chosen)
