"""What docker-compose.yml and the Dockerfile name is there: commands, queues, settings, stages."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from labeling.models import SamplingJob
from rlhf.models import TrainingRun
from webapp.tests.test_docs import documented_settings

ROOT = Path(settings.BASE_DIR)
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = [name for name, service in SERVICES.items() if "build" in service]
# What the images of PostgreSQL and Redis understand, and compose itself.
THEIRS = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "BIND", "PORT"}


def words(name: str) -> list[str]:
    return [str(word) for word in SERVICES[name]["command"]]


def option(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_every_part_of_a_site_is_there() -> None:
    assert set(SERVICES) == {"web", "setup", "sampler", "trainer", "beat", "postgres", "redis"}


def test_stages_that_are_built_stand_in_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    assert {SERVICES[name]["build"]["target"] for name in OURS} <= stages


def test_files_that_are_copied_are_there() -> None:
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_the_web_image_has_no_torch() -> None:
    web = DOCKERFILE.split("AS web")[1].split("FROM")[0]
    assert "requirements/web.txt" in web and "torch" not in web and "worker.txt" not in web
    lock = (ROOT / "requirements" / "web.txt").read_text()
    assert not re.search(r"^(torch|sentencepiece|tokenizers|numpy)==", lock, re.MULTILINE)


def test_no_image_runs_as_root() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]:
        assert "\nUSER nanochatgpt\n" in stage


@pytest.mark.parametrize("name", ["sampler", "trainer", "beat"])
def test_workers_start_the_celery_app_that_is_there(name: str) -> None:
    command = words(name)
    assert command[0] == "celery" and option(command, "-A") == "worker.celery"
    assert (ROOT / "worker" / "celery.py").exists()


def test_between_them_the_workers_listen_to_every_queue() -> None:
    heard = {queue for name in ("sampler", "trainer") for queue in option(words(name), "-Q").split(",")}
    assert heard == {SamplingJob.QUEUE, TrainingRun.QUEUE, settings.CELERY_TASK_DEFAULT_QUEUE}


def test_the_web_server_starts_the_application_that_is_there() -> None:
    assert words("web")[:2] == ["gunicorn", "webapp.wsgi"]
    assert settings.WSGI_APPLICATION == "webapp.wsgi.application"
    assert shlex.join(words("web")) in shlex.join(re.findall(r'"([^"]+)"', DOCKERFILE.split("CMD ")[1].split("\n")[0]))


def test_setup_runs_commands_that_are_there() -> None:
    called = re.findall(r"manage\.py (\w+)", " ".join(words("setup")))
    assert called == ["migrate", "setup_site"]
    assert set(called) <= set(get_commands())


def test_every_variable_is_a_documented_setting() -> None:
    known = set(documented_settings())
    for name in OURS:
        given = {variable.removesuffix("_FILE") for variable in SERVICES[name]["environment"]}
        assert given <= known, name
    interpolated = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert interpolated <= known | THEIRS


def test_production_is_given_all_that_it_asks_for() -> None:
    given = {variable.removesuffix("_FILE") for variable in SERVICES["web"]["environment"]}
    asked = set(re.findall(r'_required\("(\w+)"\)', (ROOT / "webapp" / "settings.py").read_text()))
    assert asked and asked <= given


def test_secrets_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"\$\{(SECRET_KEY|POSTGRES_PASSWORD|REDIS_PASSWORD):-", text)
    assert COMPOSE["secrets"]["secret_key"] == {"environment": "SECRET_KEY"}


def test_what_is_waited_for_can_become_ready() -> None:
    for service in SERVICES.values():
        for other, wait in service.get("depends_on", {}).items():
            assert other in SERVICES
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]


def test_all_long_runners_are_watched_and_share_the_data() -> None:
    for name, service in SERVICES.items():
        if name != "setup":
            assert "healthcheck" in service and service["restart"] == "unless-stopped", name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
    assert all(SERVICES[name]["volumes"] == ["data:/data"] for name in OURS)


def test_whoever_needs_a_card_reserves_one() -> None:
    for name in ("sampler", "trainer"):
        (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
