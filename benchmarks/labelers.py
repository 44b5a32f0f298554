"""People who label as fast as a site lets them: sessions, cookies and CSRF as in a browser, no time to think."""

import json
import re
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Protocol
from urllib.parse import urlencode

import urllib3

from benchmarks.sites import PASSWORD

TIMEOUT = 120.0  # seconds, for one request


class Refused(Exception):
    """The server answered other than a browser would expect."""


class Browser:
    """One kept connection and its cookies."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.pool = urllib3.connection_from_url(url, maxsize=1, retries=False, timeout=TIMEOUT)
        self.headers = headers or {}
        self.cookies: dict[str, str] = {}

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**self.headers, "Cookie": cookie, **{name.replace("_", "-"): text for name, text in headers.items()}}
        try:
            response = self.pool.request(method, path, body=body, headers=sent, redirect=False)
        except urllib3.exceptions.ProtocolError:
            # The server closed the kept connection at this very moment: browsers then send once more on a new one.
            response = self.pool.request(method, path, body=body, headers=sent, redirect=False)
        for line in response.headers.getlist("set-cookie"):
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        return response

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self.send("GET", path)

    def post_form(self, path: str, **fields: str) -> urllib3.BaseHTTPResponse:
        body = urlencode({"csrfmiddlewaretoken": self.cookies.get("csrftoken", ""), **fields}).encode()
        return self.send("POST", path, body, Content_Type="application/x-www-form-urlencoded")

    def post_json(self, path: str, data: Any) -> urllib3.BaseHTTPResponse:
        token = self.cookies.get("csrftoken", "")
        return self.send("POST", path, json.dumps(data).encode(), Content_Type="application/json", X_CSRFToken=token)


class Labeler(Protocol):
    """Someone logged in."""

    def next(self) -> Any:
        """The next task, as the page gets it; None where there is none."""

    def submit(self, task: Any) -> Any:
        """Hand in a ranking; the key of what was stored."""


class OurLabeler:
    """What the pages do: the task's page, then its script's submit, which says where the next task is."""

    def __init__(self, url: str, headers: dict[str, str], name: str, slug: str = "speed") -> None:
        self.browser = Browser(url, headers)
        self.browser.get("/login/")
        entered = self.browser.post_form("/login/", username=name, password=PASSWORD)
        if entered.status != 302:
            raise Refused(f"{name} cannot log in: {entered.status}")
        self.desk = f"/desk/{slug}/next/"
        self.address = ""

    def ask(self) -> str:
        """The address of the task at hand, else of a fresh one; nothing where none is left."""
        where = self.browser.post_form(self.desk)
        if where.status != 302:
            raise Refused(f"asking for a task: {where.status}")
        return where.headers["location"] if "/task/" in where.headers["location"] else ""

    def next(self) -> Any:
        self.address = self.address or self.ask()
        return self.page() if self.address else None

    def page(self) -> Any:
        """What the script finds in the page of a task."""
        page = self.browser.get(self.address)
        found = re.search(rb'<script id="task-data" type="application/json">(.*?)</script>', page.data)
        if page.status != 200 or not found:
            raise Refused(f"{self.address}: {page.status}")
        return json.loads(found[1]) | {"k": len(set(re.findall(rb'data-letter="(.)"', page.data)))}

    def submit(self, task: Any) -> int:
        answer = self.send(task, uuid.uuid4())
        if answer.status != 200:
            raise Refused(f"{task['submitUrl']}: {answer.status} {answer.data[:200]!r}")
        following = json.loads(answer.data)["next"]
        self.address = following if "/task/" in following else ""
        return slot_of(task)

    def send(self, task: Any, key: uuid.UUID) -> urllib3.BaseHTTPResponse:
        ratings = [{"overall": 1 + index % 7, "flags": [], "note": ""} for index in range(task["k"])]
        payload: dict[str, Any] = {
            "verdict": "ranked",
            "tiers": list(range(1, task["k"] + 1)),
            "ratings": ratings,
            "note": "",
        }
        payload |= {"active_seconds": 1.5, "instruction_version": task["instructionVersion"]}
        return self.browser.post_json(task["submitUrl"], {"key": str(key), "payload": payload})


def slot_of(task: Any) -> int:
    return int(re.findall(r"\d+", task["submitUrl"])[0])


@dataclass
class Tally:
    """Seconds of each request, what was acknowledged, and what went wrong."""

    next: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    acknowledged: list[Any] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    seconds: float = 0.0
    client_cpu: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Labels a second, milliseconds, and the share of one core that the clients took."""
        return {
            "labels": len(self.acknowledged),
            "labels_per_second": round(len(self.acknowledged) / self.seconds, 2),
            **{
                f"{name}_{point}_ms": round(1000 * value, 1)
                for name, values in (("next", self.next), ("submit", self.submit))
                for point, value in (("p50", percentile(values, 50)), ("p95", percentile(values, 95)))
            },
            "client_cpu_share": round(self.client_cpu / self.seconds, 3),
            "refused": len(self.refused),
        }


def percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def drive(people: Sequence[Labeler], seconds: float) -> Tally:
    """All of `people` label for `seconds`; what was begun in time is finished and counts, with its time."""
    tally, gate = Tally(), threading.Barrier(len(people) + 1)

    def work(labeler: Labeler) -> None:
        gate.wait()
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            try:
                started = time.perf_counter()
                task = labeler.next()
                shown = time.perf_counter()
                if task is None:
                    tally.refused.append("no task is left")
                    return
                key = labeler.submit(task)
            except (Refused, urllib3.exceptions.HTTPError) as error:
                tally.refused.append(str(error))
                continue
            tally.next.append(shown - started)
            tally.submit.append(time.perf_counter() - shown)
            tally.acknowledged.append(key)

    with ThreadPoolExecutor(len(people)) as pool:
        jobs = [pool.submit(work, labeler) for labeler in people]
        gate.wait()
        started, used = time.perf_counter(), time.process_time()
        for job in jobs:
            job.result()
        tally.seconds, tally.client_cpu = time.perf_counter() - started, time.process_time() - used
    return tally


def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run `jobs` in threads that start together; what each returned or raised."""
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))
