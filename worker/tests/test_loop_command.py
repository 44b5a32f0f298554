"""`manage.py loop`, as somebody types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = pytest.mark.once  # its databases are its own

MANAGE = [sys.executable, str(settings.BASE_DIR / "manage.py"), "loop"]


def loop(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*MANAGE, *arguments], env=environment, capture_output=True, text=True, timeout=280)


def test_a_quick_loop_goes_from_the_first_prompt_to_the_promoted_policy(tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = loop("--quick", "--out", str(tmp_path / "out"), "--keep", str(tmp_path / "kept"), data_dir=own)
    assert done.returncode == 0, done.stderr
    assert "promoted loop-1-ppo-3" in done.stdout
    assert "One seed proves nothing" in done.stdout
    [seed] = json.loads((tmp_path / "out" / "loop.json").read_text())["seeds"]
    assert seed["labels"]["rankings"] == 120
    assert seed["labels"]["heldout_pairs"] > 0
    assert len(seed["main"]["rewards"]) == len(seed["control"]["rewards"]) == 2
    assert (tmp_path / "out" / "loop.png").stat().st_size > 10_000
    assert (tmp_path / "kept" / "seed-1" / "db.sqlite3").is_file()
    assert not (own / "db.sqlite3").exists(), "the loop wrote into the real data directory"


def test_it_does_not_write_into_a_directory_that_is_there(tmp_path: Path) -> None:
    done = loop("--quick", "--keep", str(tmp_path), data_dir=tmp_path / "own")
    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_no_seeds_are_refused(tmp_path: Path) -> None:
    done = loop("--seeds", "0", data_dir=tmp_path / "own")
    assert done.returncode == 2
    assert "not a whole number above 0" in done.stderr
