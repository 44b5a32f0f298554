"""Label Studio beside our site: its own default start, sessions and CSRF as its pages have them."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.labelers import Browser, Refused
from benchmarks.peers import peer_python
from benchmarks.sites import PASSWORD, free_port, stop, until_it_listens

VERSION = "1.23.0"
OWNER = "owner@example.com"
# One bucket into which all are dragged, in order: its template "LLM Ranker" without the colours.
CONFIG = """<View><Text name="prompt" value="$prompt"/><List name="answers" value="$items" title="Completions"/>
<Ranker name="rank" toName="answers"><Bucket name="ranked" title="Ranked, the best first"/></Ranker></View>"""


@dataclass
class LabelStudio:
    """Its server with one project of tasks."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    project: int = 0
    token: str = ""

    def stored(self) -> dict[str, Any]:
        """What its database holds of labels, read from the file."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.folder / 'label_studio.sqlite3'}?mode=ro", uri=True)
        ) as db:
            rows = db.execute("SELECT id, task_id FROM task_completion WHERE project_id = ?", [self.project]).fetchall()
        tasks = [task for _, task in rows]
        return {"annotations": sorted(key for key, _ in rows), "labeled_twice": len(tasks) - len(set(tasks))}

    @property
    def errors(self) -> int:
        return (self.folder / "server.log").read_text().count("Traceback (most recent call last)")


@contextlib.contextmanager
def label_studio(folder: Path, *, tasks: int, k: int = 4) -> Iterator[LabelStudio]:
    """`label-studio start` on an empty directory, one project, `tasks` imported through its API."""
    folder.mkdir(exist_ok=True)
    python, port = peer_python(f"label-studio=={VERSION}"), free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DATABASE", "REDIS"))}
    # What it would send to its makers, and ask of them, it does not here.
    own |= {"COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
    command = [python.parent / "label-studio", "start", "--no-browser", "--port", str(port), "--data-dir", folder]
    command += ["--username", OWNER, "--password", PASSWORD]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=own,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until_it_listens(port, process, seconds=300)
        studio = LabelStudio(f"http://127.0.0.1:{port}", folder, process)
        _fill(studio, tasks, k)
        yield studio
    finally:
        stop(process)


def task_data(number: int, k: int) -> dict[str, Any]:
    """The same texts as our rows have (labeling/tests/rows.py: many_open)."""
    words = "rain and wind "
    items = [{"id": str(index), "title": "", "body": f"{index} of {number}: {words * 20}"} for index in range(k)]
    return {"prompt": f"{number}: {words * 5}?", "items": items}


def _fill(studio: LabelStudio, tasks: int, k: int) -> None:
    owner = StudioLabeler.logged_in(studio, OWNER)
    fields = {"title": "Speed", "label_config": CONFIG, "maximum_annotations": 1, "sampling": "Sequential sampling"}
    studio.project = owner.call("POST", "/api/projects/", fields)["id"]
    for start in range(0, tasks, 1000):
        batch = [task_data(number, k) for number in range(start, min(start + 1000, tasks))]
        owner.call("POST", f"/api/projects/{studio.project}/import", batch)
    studio.token = owner.call("GET", "/api/invite")["token"]
    print(f"Label Studio {VERSION}: {tasks} tasks in project {studio.project}", file=sys.stderr, flush=True)


class StudioLabeler:
    """What its labeling stream asks of its server: the next task, then the annotation."""

    def __init__(self, studio: LabelStudio) -> None:
        self.studio, self.browser = studio, Browser(studio.url)

    @classmethod
    def logged_in(cls, studio: LabelStudio, email: str) -> "StudioLabeler":
        person = cls(studio)
        person._enter("/user/login/", email=email)
        return person

    @classmethod
    def signed_up(cls, studio: LabelStudio, number: int) -> "StudioLabeler":
        """A member of the organisation, by its invitation link; once more it logs in."""
        email = f"labeler-{number}@example.com"
        person = cls(studio)
        try:
            person._enter(f"/user/signup/?token={studio.token}", email=email)
        except Refused:
            person = cls.logged_in(studio, email)
        return person

    def _enter(self, path: str, **fields: str) -> None:
        page = self.browser.get(path)
        if found := re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.data):
            fields["csrfmiddlewaretoken"] = found[1].decode()
        entered = self.browser.post_form(path, password=PASSWORD, **fields)
        if entered.status != 302:
            raise Refused(f"{path}: {entered.status}")

    def call(self, method: str, path: str, data: Any = None) -> Any:
        token = self.browser.cookies.get("csrftoken", "")
        body = None if data is None else json.dumps(data).encode()
        answer = self.browser.send(method, path, body, Content_Type="application/json", X_CSRFToken=token)
        if answer.status >= 300:
            raise Refused(f"{path}: {answer.status} {answer.data[:200]!r}")
        return json.loads(answer.data)

    def next(self) -> Any:
        return self.call("GET", f"/api/projects/{self.studio.project}/next/")

    def submit(self, task: Any) -> int:
        ranked = {"ranked": [item["id"] for item in task["data"]["items"]], "_": []}
        result = [{"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": ranked}}]
        made = self.call("POST", f"/api/tasks/{task['id']}/annotations/", {"result": result, "lead_time": 1.5})
        return int(made["id"])
