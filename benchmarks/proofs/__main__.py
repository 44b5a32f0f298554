"""`make proofs`: three claims about the trainers, each on a task small enough to know the truth of.

    python -m benchmarks.proofs [exact] [labelers] [overoptimisation]

Prints a table for each, writes its JSON and picture to --out, and fails if a claim does.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.proofs import exact, figures, labelers, overoptimisation, randomwalks
from benchmarks.proofs.claims import Claim, Proof
from benchmarks.proofs.stage import ProofError
from benchmarks.proofs.toy import make_policy
from worker.loop.outcome import LoopError
from worker.machine import machine

PROOFS = {
    "exact": Proof(5, exact.prove, exact.table_of, exact.claims, figures.draw_exact),
    "labelers": Proof(8, labelers.prove, labelers.table_of, labelers.claims, figures.draw_labelers, epochs=4),
    "overoptimisation": Proof(
        5,
        overoptimisation.prove,
        overoptimisation.table_of,
        overoptimisation.claims,
        figures.draw_overoptimisation,
        epochs=1,
    ),
    "randomwalks": Proof(5, randomwalks.prove, randomwalks.table_of, randomwalks.claims, figures.draw_randomwalks),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("proofs", nargs="*", metavar="PROOF", help=f"of {', '.join(PROOFS)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("proofs-out"), help="where JSON and pictures go")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="seeds at once (default: cores)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave models and logs here")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.proofs) - set(PROOFS)):
        parser.error(f"{', '.join(unknown)}: no such proof; there are {', '.join(PROOFS)}")
    if options.keep and options.keep.exists():
        parser.error(f"{options.keep} exists already; name a folder that does not")
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # of each seed: they run side by side
    failed: list[Claim] = []
    with tempfile.TemporaryDirectory(prefix="nanochatgpt-proofs-") as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        try:
            for name in options.proofs or PROOFS:
                failed += prove(name, folder, options.out, options.jobs)
        except (ProofError, LoopError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 1 if failed else 0


def prove(name: str, folder: Path, out: Path, jobs: int) -> list[Claim]:
    """Run a proof on all its seeds and report it; returns the claims that do not hold."""
    started = time.monotonic()
    proof = PROOFS[name]
    inputs: list[Path] = []
    if proof.epochs:
        inputs = [make_policy(folder / f"world-{proof.epochs}", proof.epochs)]
    seeds = range(1, proof.seeds + 1)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, proof.seeds), mp_context=spawned) as pool:
        running = [pool.submit(proof.prove, seed, folder / name / f"seed-{seed}", *inputs) for seed in seeds]
        try:
            outcomes = [future.result() for future in running]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    judged = proof.claims(outcomes)
    seconds = time.monotonic() - started
    report: dict[str, Any] = {"machine": machine(), "seconds": round(seconds, 1), "claims": [asdict(c) for c in judged]}
    report["seeds"] = [asdict(outcome) for outcome in outcomes]
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    proof.draw(outcomes, out / f"{name}.png")
    print(f"\n{name}: {seconds:.0f} s; see {out}/{name}.png, {out}/{name}.json\n{proof.table(outcomes)}")
    for claim in judged:
        print(f"{'holds' if claim.holds else 'FAILS'}: {claim.text}", flush=True)
    return [claim for claim in judged if not claim.holds]


if __name__ == "__main__":
    sys.exit(main())
