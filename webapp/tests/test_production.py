"""Settings of a production site: nothing left to chance, nothing forgotten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "a-long-and-random-key-that-only-this-test-knows-0123456789",
    "DATABASE_URL": "postgresql://nanochatgpt:secret@127.0.0.1:1/nanochatgpt",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "ALLOWED_HOSTS": "labels.example.com",
}


def manage(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**keep, "DATA_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_django_finds_nothing_to_warn_of(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL", "ALLOWED_HOSTS"])
def test_without_a_needed_value_the_site_says_which_and_does_not_start(tmp_path: Path, name: str) -> None:
    environment = {key: value for key, value in PRODUCTION.items() if key != name}
    done = manage(tmp_path, "check", **environment)
    assert done.returncode != 0
    assert f"Set {name}" in done.stderr


def test_a_short_secret_key_is_refused(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", **{**PRODUCTION, "SECRET_KEY": "short"})
    assert done.returncode != 0 and "too short" in done.stderr


def test_secrets_may_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(PRODUCTION["SECRET_KEY"] + "\n")
    environment = {key: value for key, value in PRODUCTION.items() if key != "SECRET_KEY"}
    done = manage(tmp_path, "check", SECRET_KEY_FILE=str(secret), **environment)
    assert done.returncode == 0, done.stderr


def test_the_embedded_site_makes_its_own_key_once_and_keeps_it_to_itself(tmp_path: Path) -> None:
    assert manage(tmp_path, "check").returncode == 0
    key = (tmp_path / "secret_key").read_text()
    assert manage(tmp_path, "check").returncode == 0
    assert (tmp_path / "secret_key").read_text() == key and len(key) >= 50
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_the_web_process_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, django; django.setup(); import webapp.urls, webapp.asgi; "
        "print([m for m in ('torch', 'sentencepiece', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "webapp.settings"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == "[]", done.stderr
