"""`manage.py loop`: the whole cycle without a browser, on a toy world whose people have a known preference.

Everything is real but the people: rows, leases, snapshots, trainers in processes of their own. It all happens in a data
directory made for each seed, with a database of its own: the same seed gives the same figures.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from argparse import ArgumentTypeError
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from worker.loop.outcome import Interval, LoopError, Outcome
from worker.loop.seed_process import run_seed


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


class Command(BaseCommand):
    help = "Run the whole loop on a toy world; fail unless the rankings taught the policy what shuffled ones do not."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seeds", type=positive, default=4, help="how often, each time from scratch (default: 4)")
        parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 2, help="seeds at once (default: cores)")
        parser.add_argument("--out", type=Path, default=Path("loop-out"), help="where loop.png and loop.json go")
        parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the data directory here, to look around in")
        parser.add_argument(
            "--quick", action="store_true", help="one small seed: shows that the parts work, proves nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.time()
        out, keep, quick = options["out"], options["keep"], options["quick"]
        if keep and keep.exists():
            raise CommandError(f"{keep} exists already. Name a directory that does not.")
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="nanochatgpt-loop-", ignore_cleanup_errors=True) as folder:
                data_dir = keep.absolute() if keep else Path(folder)
                seeds = [1] if quick else list(range(1, options["seeds"] + 1))
                outcomes = self._outcomes(data_dir, seeds, quick, min(options["jobs"], len(seeds)), started)
        except LoopError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{error}. Free some space, or give --out and TMPDIR elsewhere.") from error
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._report(outcomes, time.time() - started, used.ru_utime + used.ru_stime, out)

    def _outcomes(self, data_dir: Path, seeds: list[int], quick: bool, jobs: int, started: float) -> list[Outcome]:
        self.stdout.write(f"{len(seeds)} seeds, {jobs} at once, in {data_dir}")
        self.stdout.flush()
        spawned = multiprocessing.get_context("spawn")  # a fresh Django each, on another data directory than ours
        with ProcessPoolExecutor(jobs, mp_context=spawned, max_tasks_per_child=1) as pool:
            running = [pool.submit(run_seed, seed, quick, data_dir / f"seed-{seed}", started) for seed in seeds]
            try:
                return [future.result() for future in running]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _report(self, outcomes: list[Outcome], seconds: float, cpu_seconds: float, out: Path) -> None:
        from worker.loop.plot import draw
        from worker.loop.report import table, write_json

        write_json(outcomes, seconds, cpu_seconds, out / "loop.json")
        draw(outcomes, out / "loop.png")
        self.stdout.write(f"\n{table(outcomes)}\n")
        self.stdout.write(
            f"{seconds:.0f} s, {cpu_seconds:.0f} s of processor time; see {out}/loop.png, {out}/loop.json"
        )
        if len(outcomes) < 2:
            self.stdout.write("One seed proves nothing: run several to see whether the gain is real.")
            return
        effect = Interval.of([outcome.effect for outcome in outcomes])
        verdict = (
            f"gain minus the control's gain: {effect.mean:+.2f}, 95% interval {effect.low:+.2f} to {effect.high:+.2f}"
        )
        if effect.low <= 0:
            raise CommandError(f"{verdict}: not above 0, so the rankings taught nothing that is sure.")
        self.stdout.write(f"{verdict}: the gain is real")
