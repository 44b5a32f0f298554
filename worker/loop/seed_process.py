"""A process that runs seeds of the loop: it opens the loop's own data directory before anything of Django is loaded."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from worker.loop.outcome import Outcome


def open_data_dir(data_dir: Path) -> None:
    """Set Django up on this data directory, whatever the surroundings say: the real one is never touched."""
    os.environ.update(
        DATA_DIR=str(data_dir),
        DATABASE_URL="",
        REDIS_URL="memory://localhost/",  # nobody waits at the other end: the rows are looked at one after the other
        ENVIRONMENT="embedded",
        DJANGO_SETTINGS_MODULE="webapp.settings",
        LOG_LEVEL="WARNING",
        OMP_NUM_THREADS="1",  # two seeds at once with a thread each are faster than one seed with two
    )
    django.setup()


def create_database() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def run_seed(seed: int, quick: bool, started: float) -> "Outcome":
    """One seed from beginning to end. `started` is when the loop began, for the times printed."""
    from worker.loop.cycle import Cycle
    from worker.loop.scale import FULL, QUICK

    def say(message: str) -> None:
        print(f"{time.time() - started:5.0f} s  seed {seed}: {message}", flush=True)

    return Cycle(seed, QUICK if quick else FULL, say).run()
