"""Labels a second beside Label Studio: the same tasks, the same clients, no time to think.

    python -m benchmarks.labeling                     # all arms, about ten minutes
    python -m benchmarks.labeling --arms sqlite --clients 1,8 --seconds 5

Arms: our site on SQLite as `make run` starts it, on PostgreSQL as docker-compose.yml starts it (with a PostgreSQL and a
Redis of their own through .ci/with-services), and Label Studio as `label-studio start` starts it, in a virtual
environment of its own. Each client is a person of their own, logged in with a session and CSRF tokens as the pages have
them, who asks for a task, sends a ranking of four, and so on. Of ours the task is the whole HTML page, and the submit
hands out the next place too; of Label Studio they are the two requests of its labeling stream (`next`, `annotations`),
without the others that its page makes. The arms take turns; a figure is the median of the turns. Afterwards every label
that was acknowledged must stand in the database exactly once, or the run fails. Prints JSON and a table, and keeps the
JSON in benchmarks/.results/labeling.json.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.label_studio import VERSION, LabelStudio, StudioLabeler, label_studio
from benchmarks.labelers import Labeler, OurLabeler, drive
from benchmarks.sites import Site, cpu_seconds, site, with_services

RESULTS = Path(__file__).resolve().parent / ".results"
STUDIO = "label-studio"
ARMS = ("sqlite", "postgresql", STUDIO)


@dataclass
class Arm:
    """A running server, its people so far, and what it said it has stored."""

    process: subprocess.Popen[bytes] | None
    person: Callable[[int], Labeler]
    stored: Callable[[], dict[str, Any]]
    people: list[Labeler]
    acknowledged: list[Any]

    def crowd(self, size: int) -> list[Labeler]:
        self.people += [self.person(number) for number in range(len(self.people), size)]
        return self.people[:size]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of labeling, for each turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    arms, clients = options.arms.split(","), [int(count) for count in options.clients.split(",")]
    with_services(arms)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nanochatgpt-labeling-")))
        running = {name: started(stack, name, folder, options.tasks, max(clients)) for name in arms}
        results: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for turn in range(options.turns):
            for count in clients:
                for name, arm in running.items():
                    figures = measured(arm, count, options.seconds)
                    print(f"turn {turn + 1} {name} {count}: {json.dumps(figures)}", file=sys.stderr, flush=True)
                    results[name][count].append(figures)
        checks = {name: checked(arm) for name, arm in running.items()}
    report = report_of(results, checks, options)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "labeling.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    print(table(report), file=sys.stderr)
    return 0 if all(check["is_right"] for check in checks.values()) else 1


def started(stack: contextlib.ExitStack, name: str, folder: Path, tasks: int, labelers: int) -> Arm:
    if name == STUDIO:
        studio: LabelStudio = stack.enter_context(label_studio(folder / "studio", tasks=tasks))
        return Arm(studio.process, lambda number: StudioLabeler.signed_up(studio, number), studio.stored, [], [])
    ours: Site = stack.enter_context(site(name, folder, sets=tasks, labelers=labelers))

    def stored() -> dict[str, Any]:
        found: dict[str, Any] = ours.ask("stored")
        return {"annotations": found.pop("slots"), **found, "server_errors": ours.errors}

    return Arm(ours.process, lambda n: OurLabeler(ours.url, ours.headers, f"labeler-{n}"), stored, [], [])


def measured(arm: Arm, clients: int, seconds: float) -> dict[str, Any]:
    people = arm.crowd(clients)
    before = cpu_seconds(arm.process)
    tally = drive(people, seconds)
    arm.acknowledged += tally.acknowledged
    used = cpu_seconds(arm.process) - before
    return tally.figures() | {"server_cpu_share": round(used / tally.seconds, 3), "why_refused": tally.refused[:3]}


def checked(arm: Arm) -> dict[str, Any]:
    """Whether what was acknowledged is what is stored: each once, and nothing besides."""
    stored = arm.stored()
    said, kept = Counter(arm.acknowledged), Counter(stored.pop("annotations"))
    lost, doubled = said - kept, sum(count - 1 for count in (said | kept).values())
    facts = {"acknowledged": said.total(), "lost": lost.total(), "doubled": doubled, "unasked": (kept - said).total()}
    return {**facts, **stored, "is_right": not lost and not doubled}


def report_of(results: Any, checks: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    from worker.machine import machine

    arms = {name: {count: median_of(turns) for count, turns in by.items()} for name, by in results.items()}
    report = {"machine": machine(), "options": vars(options), "label_studio": VERSION, "arms": arms, "checks": checks}
    if STUDIO in arms:
        report["ratios"] = {
            name: {count: ratios(figures, arms[STUDIO][count]) for count, figures in by.items()}
            for name, by in arms.items()
            if name != STUDIO
        }
    return report


def median_of(turns: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name, value in turns[0].items() if isinstance(value, int | float)]
    return {name: round(statistics.median(turn[name] for turn in turns), 3) for name in names} | {
        "range_labels_per_second": sorted(turn["labels_per_second"] for turn in turns)[:: max(1, len(turns) - 1)]
    }


def ratios(ours: dict[str, Any], studio: dict[str, Any]) -> dict[str, float]:
    """How many times Label Studio's throughput, and how much of its time."""
    shares = {f"{name}_{p}": f"{name}_{p}_ms" for name in ("next", "submit") for p in ("p50", "p95")}
    more = {"labels_per_second": round(ours["labels_per_second"] / studio["labels_per_second"], 1)}
    return more | {f"{short}_faster": round(studio[name] / ours[name], 1) for short, name in shares.items()}


def table(report: dict[str, Any]) -> str:
    """Markdown: a row for each arm and number of clients."""
    columns = ("labels_per_second", "next_p50_ms", "next_p95_ms", "submit_p50_ms", "submit_p95_ms", "client_cpu_share")
    lines = [
        "| clients | | labels/s | next p50 ms | p95 | submit p50 ms | p95 | clients' CPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count in next(iter(report["arms"].values())):
        for name, by in report["arms"].items():
            lines.append(f"| {count} | {name} | " + " | ".join(f"{by[count][column]:g}" for column in columns) + " |")
    for name, by in report.get("ratios", {}).items():
        lines += [f"{name} at {count}: {json.dumps(figures)}" for count, figures in by.items()]
    return "\n".join([*lines, json.dumps(report["checks"])])


if __name__ == "__main__":
    sys.exit(main())
