"""Many at once over HTTP: is a place given twice, a label lost or stored twice?

    python -m benchmarks.races                      # 10,000 rounds on SQLite and PostgreSQL, about five minutes
    python -m benchmarks.races --rounds 400 --databases sqlite

Our site as people run it (see benchmarks/labeling.py), 20 people logged in. Rounds of five kinds take turns:

* crowd: a few places are open (1, 3 or 8) and all 20 ask at once; who got one hands it in;
* twice: the same submit, with one key, three times at once, as by a double click or a browser that tries again;
* tabs: two tabs of a person hand in different rankings of one task at once;
* asking: three tabs of a person ask for a task at once;
* crash: someone vanishes with a task, its lease runs out, another takes it, the first comes back and both hand in.

Afterwards the database must hold what was acknowledged, each once. Prints JSON; fails unless every count of harm is 0.
A round is one person who asks or hands in beside others.
"""

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.labelers import OurLabeler, at_once, slot_of
from benchmarks.sites import DATABASES, Site, site, with_services

RESULTS = Path(__file__).resolve().parent / ".results"
CROWD = 20
OPEN = (1, 3, 8)


class Race:
    """The people, and what was said to them."""

    def __init__(self, ours: Site) -> None:
        self.site = ours
        self.people = [OurLabeler(ours.url, ours.headers, f"labeler-{n}") for n in range(CROWD)]
        self.acknowledged: Counter[int] = Counter()
        self.harm: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()

    def tab(self, person: OurLabeler) -> OurLabeler:
        """The same session over a connection of its own."""
        other = object.__new__(OurLabeler)
        other.desk, other.address = person.desk, person.address
        other.browser = type(person.browser)(self.site.url, self.site.headers)
        other.browser.cookies = dict(person.browser.cookies)
        return other

    def ask(self, people: list[OurLabeler], kind: str) -> dict[OurLabeler, str]:
        """All ask at once; the address that each was given, where there was one."""
        self.rounds[kind] += len(people)
        given = at_once([person.ask for person in people])
        for error in (one for one in given if isinstance(one, Exception)):
            self.broken(error)
        return {
            who: address for who, address in zip(people, given, strict=True) if address and isinstance(address, str)
        }

    def submit(self, sent: list[tuple[OurLabeler, Any, uuid.UUID]], kind: str) -> list[int]:
        """All hand in at once; the statuses of those that were answered."""
        self.rounds[kind] += len(sent)
        jobs: list[Callable[[], Any]] = [partial(who.send, task, key) for who, task, key in sent]
        answers = at_once(jobs)
        statuses = []
        for (_, task, _), answer in zip(sent, answers, strict=True):
            if isinstance(answer, Exception):
                self.broken(answer)
                continue
            statuses.append(answer.status)
            if answer.status >= 500:
                self.harm["server errors"] += 1
            if answer.status == 200:
                self.acknowledged[slot_of(task)] += 1
        return statuses

    def broken(self, error: Exception) -> None:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        self.harm["server errors"] += 1

    def free(self) -> None:
        """Nobody holds a task, nothing is open."""
        self.site.ask("clear")
        for person in self.people:
            person.address = ""

    # --- The kinds ---------------------------------------------------------------------------------------------------

    def crowd(self, places: int) -> None:
        self.site.ask("fill", "--sets", places, "--labelers", CROWD)
        given = self.ask(self.people, "crowd")
        self.harm["places given twice"] += len(given) - len(set(given.values()))
        self.harm["places not given"] += max(0, places - len(given))
        for who, address in given.items():
            who.address = address
        tasks = [(who, task, uuid.uuid4()) for who, task in self.shown(list(given))]
        if self.submit(tasks, "crowd").count(200) != len(tasks):
            self.harm["labels refused"] += 1
        # Handing in hands out the next: none is left, so nobody holds any.
        for who in self.people:
            who.address = ""

    def prepared(self, people: list[OurLabeler]) -> list[tuple[OurLabeler, Any]]:
        """Each of `people` with the page of a task of their own."""
        for who, address in self.ask(people, "asking").items():
            who.address = address
        return self.shown(people)

    def shown(self, people: list[OurLabeler]) -> list[tuple[OurLabeler, Any]]:
        """The pages of what they hold."""
        pages = at_once([who.page for who in people])
        for error in (one for one in pages if isinstance(one, Exception)):
            self.broken(error)
        return [(who, page) for who, page in zip(people, pages, strict=True) if not isinstance(page, Exception)]

    def twice(self) -> None:
        sent = [(who, task, uuid.uuid4()) for who, task in self.prepared(self.people)]
        statuses = self.submit([(self.tab(who), task, key) for who, task, key in sent for _ in range(3)], "twice")
        self.harm["labels refused"] += 3 * len(sent) - statuses.count(200)
        for _, task, _ in sent:  # acknowledged three times, one label
            self.acknowledged[slot_of(task)] = min(1, self.acknowledged[slot_of(task)])

    def tabs(self) -> None:
        sent = self.prepared(self.people)
        statuses = self.submit([(self.tab(who), task, uuid.uuid4()) for who, task in sent for _ in range(2)], "tabs")
        self.harm["labels refused"] += abs(statuses.count(200) - len(sent)) + abs(statuses.count(409) - len(sent))

    def asking(self) -> None:
        tabs = {self.tab(who): who for who in self.people for _ in range(3)}
        given: dict[OurLabeler, set[str]] = defaultdict(set)
        for tab, address in self.ask(list(tabs), "asking").items():
            given[tabs[tab]].add(address)
        self.harm["two tasks at once"] += sum(len(addresses) != 1 for addresses in given.values())
        everyone = [address for addresses in given.values() for address in addresses]
        self.harm["places given twice"] += len(everyone) - len(set(everyone))

    def crash(self) -> None:
        half = CROWD // 2
        left = self.prepared(self.people[:half])
        self.site.ask("expire")
        taken = self.prepared(self.people[half:])
        self.harm["abandoned places not given"] += {slot_of(task) for _, task in left} != {slot_of(t) for _, t in taken}
        sent = [(who, task, uuid.uuid4()) for who, task in [*left, *taken]]
        statuses = self.submit(sent, "crash")
        # A task that another holds is refused (404, which says no more), and the other's is taken.
        self.harm["labels refused"] += statuses.count(200) != half

    def check(self) -> dict[str, Any]:
        stored = self.site.ask("stored")
        kept = Counter(stored["slots"])
        self.harm["labels lost"] += (self.acknowledged - kept).total()
        self.harm["labels doubled"] += (kept - self.acknowledged).total() + stored["revisions"] - stored["answers"]
        self.harm["tracebacks"] += self.site.errors
        return {"labels": stored["answers"], "rounds": dict(self.rounds), "harm": dict(self.harm)}


def raced(ours: Site, rounds: int) -> dict[str, Any]:
    race, started = Race(ours), time.monotonic()
    while race.rounds.total() < rounds:
        for places in OPEN:
            race.crowd(places)
        # Enough for all to be handed the next one, too.
        ours.ask("fill", "--sets", 8 * CROWD, "--labelers", CROWD)
        for kind in 2 * (race.twice, race.tabs, race.asking):
            kind()
        race.free()
        ours.ask("fill", "--sets", CROWD // 2, "--labelers", CROWD)
        race.crash()
        race.free()
        print(f"{ours.database}: {race.rounds.total()} of {rounds} rounds", file=sys.stderr, flush=True)
    return race.check() | {"seconds": round(time.monotonic() - started, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10_000, help="in all databases together")
    parser.add_argument("--databases", default=",".join(DATABASES))
    options = parser.parse_args()
    databases = options.databases.split(",")
    with_services(databases)
    results = {}
    for database in databases:
        with (
            tempfile.TemporaryDirectory(prefix="nanochatgpt-races-") as folder,
            site(database, Path(folder), sets=0, labelers=CROWD) as ours,
        ):
            results[database] = raced(ours, options.rounds // len(databases))
    from worker.machine import machine

    report = {"machine": machine(), "databases": results}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "races.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return 1 if any(sum(result["harm"].values()) for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
