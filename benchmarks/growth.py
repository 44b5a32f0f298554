"""How the site grows: the next task and the long pages at 1,000, 10,000 and 100,000 open sets.

    python -m benchmarks.growth                       # both databases, about eight minutes
    python -m benchmarks.growth --sizes 1000,10000 --databases sqlite

Beside the open sets there are a fifth as many rankings handed in (at most 20,000), as a project has that goes on. At
each size one person labels over HTTP (a page and a submit, see benchmarks/labeling.py); then every long page is asked
for as an admin, over HTTP for its milliseconds and once in a process on the same database for its number of queries.
Prints JSON and tables, and says which page makes more queries at the last size than at the first: that fails the run.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.labelers import OurLabeler, drive
from benchmarks.sites import DATABASES, Site, site, with_services

RESULTS = Path(__file__).resolve().parent / ".results"
PAGES = {
    "desk": "/desk/",
    "own work": "/your-work/",
    "answers": "/answers/",
    "projects": "/projects/",
    "overview": "/projects/speed/",
    "prompts": "/projects/speed/prompts/",
    "prompts, searched": "/projects/speed/prompts/?q=777",
    "prompts, by completions": "/projects/speed/prompts/?completions=sampled",
    "review": "/projects/speed/review/",
    "quality": "/projects/speed/quality/",
    "labelers": "/projects/speed/people/",
    "in dispute": "/projects/speed/adjudication/",
    "ready to train": "/projects/speed/readiness/",
    "exports": "/projects/speed/exports/",
    "imports": "/projects/speed/imports/",
    "settings": "/projects/speed/settings/",
    "admin: prompts": "/admin/labeling/prompt/",
    "admin: sets": "/admin/labeling/completionset/",
    "admin: rankings": "/admin/labeling/answer/",
    "admin: demonstrations": "/admin/labeling/demonstration/",
    "API: prompts": "/api/prompts/",
    "API: sets": "/api/completion-sets/",
    "API: rankings": "/api/rankings/",
}
SHOWN = 5  # times a page is asked for


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--databases", default=",".join(DATABASES))
    parser.add_argument("--seconds", type=float, default=15.0, help="of labeling at each size")
    options = parser.parse_args()
    databases, sizes = options.databases.split(","), [int(size) for size in options.sizes.split(",")]
    with_services(databases)
    results: dict[str, dict[int, Any]] = {}
    for database in databases:
        with (
            tempfile.TemporaryDirectory(prefix="nanochatgpt-growth-") as folder,
            site(database, Path(folder), sets=0, labelers=1) as ours,
        ):
            results[database] = grown(ours, sizes, options.seconds)
    from worker.machine import machine

    growing = {database: growing_queries(by) for database, by in results.items()}
    ratios = {
        name: round(by[sizes[-1]]["next_p50_ms"] / by[sizes[0]]["next_p50_ms"], 2) for name, by in results.items()
    }
    report = {"machine": machine(), "databases": results, "next_p50_ratio": ratios, "growing_queries": growing}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "growth.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    print(table(report), file=sys.stderr)
    return 1 if any(growing.values()) else 0


def grown(ours: Site, sizes: list[int], seconds: float) -> dict[int, Any]:
    """What is measured at each size."""
    labeler = OurLabeler(ours.url, ours.headers, "labeler-0")
    curator = OurLabeler(ours.url, ours.headers, "curator")
    found: dict[int, Any] = {}
    for size in sizes:
        started = time.monotonic()
        ours.ask("grow", "--open", size, "--answered", min(size // 5, 20_000))
        print(f"{ours.database} {size}: filled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        labeler.next()  # the first page after the filling warms what is kept
        figures = drive([labeler], seconds).figures()
        asked = ours.ask("asked", *[word for address in PAGES.values() for word in ("--page", address)])
        pages = {}
        for name, address in PAGES.items():
            times, status = shown(curator, address)
            pages[name] = {"status": status, "ms": round(1000 * statistics.median(times), 1), "queries": asked[address]}
        found[size] = {**figures, "pages": pages}
        slowest = max(pages, key=lambda name: pages[name]["ms"])
        print(f"{ours.database} {size}: {figures} slowest {slowest} {pages[slowest]}", file=sys.stderr, flush=True)
    return found


def shown(curator: OurLabeler, address: str) -> tuple[list[float], int]:
    times = []
    for _ in range(SHOWN):
        started = time.perf_counter()
        status = curator.browser.get(address).status
        times.append(time.perf_counter() - started)
        if times[-1] > 5:
            break
    return times, status


def growing_queries(by: dict[int, Any]) -> dict[str, list[int]]:
    """Pages whose queries are more at the last size than at the first where there was a full page of rows."""
    sizes = list(by)
    counts = {name: [by[size]["pages"][name]["queries"] for size in sizes] for name in PAGES}
    return {name: numbers for name, numbers in counts.items() if numbers[-1] > numbers[0]}


def table(report: dict[str, Any]) -> str:
    """Markdown: milliseconds (and queries) by size."""
    lines = []
    for database, by in report["databases"].items():
        lines += [f"| {database} | " + " | ".join(f"{size:,}" for size in by) + " |", "|---" * (len(by) + 1) + "|"]
        for figure in ("next_p50_ms", "next_p95_ms", "submit_p50_ms", "submit_p95_ms", "labels_per_second"):
            lines.append(f"| {figure} | " + " | ".join(f"{one[figure]:g}" for one in by.values()) + " |")
        for name in PAGES:
            cells = [f"{one['pages'][name]['ms']:g} ({one['pages'][name]['queries']})" for one in by.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, f"growing queries: {json.dumps(report['growing_queries'])}"])


if __name__ == "__main__":
    sys.exit(main())
