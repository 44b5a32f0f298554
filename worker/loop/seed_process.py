"""A process that runs one seed of the loop: Django is set up in it on a data directory of its own."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import django
from django.core.management import call_command

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


def run_seed(seed: int, quick: bool, data_dir: Path, started: float) -> "Outcome":
    """One seed from beginning to end, in a process that did nothing before.

    `started` is when the loop began, for the times printed.
    """
    open_data_dir(data_dir)
    call_command("migrate", verbosity=0)
    from worker.loop.cycle import Cycle
    from worker.loop.scale import FULL, QUICK

    def say(message: str) -> None:
        print(f"{time.time() - started:5.0f} s  seed {seed}: {message}", flush=True)

    return Cycle(seed, QUICK if quick else FULL, say).run()
