"""The five journeys of the product, as their people walk them: the site as `make run` starts it, with SmolLM2 and real
workers behind it, in headless Chromium. The journeys build on one another, in this order.

What was done in the browser is read back through the REST API, as another program would see it.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect

from webapp.tests.browser import press

pytestmark = [pytest.mark.browser, pytest.mark.journey, pytest.mark.timeout(900)]

START = 240
SAMPLED = 240
TRAINED = 420
EVENT = "The library closes at six. Books are due on Friday, and the summer reading club meets on Saturday."


class Site:
    """The running site and a browser page for each of its people."""

    def __init__(self, url: str, data: Path, chromium: Browser) -> None:
        self.url, self.data, self.chromium = url, data, chromium
        self.pages: dict[str, Page] = {}
        lines = (line.split() for line in (data / "accounts.txt").read_text().splitlines())
        self.passwords = {words[0]: words[1] for words in lines if len(words) == 2}

    def page(self, name: str) -> Page:
        """The page of `name`, who logs in the first time."""
        if name not in self.pages:
            page = self.chromium.new_context(
                base_url=self.url, locale="en", viewport={"width": 1280, "height": 900}
            ).new_page()
            page.goto("/login/")
            page.get_by_label("Username").fill(name)
            page.get_by_label("Password").fill(self.passwords[name])
            page.locator("main").get_by_role("button", name="Log in").click()
            expect(page.get_by_role("button", name="Log out")).to_be_visible()
            self.pages[name] = page
        return self.pages[name]

    def api(self, name: str, path: str) -> Any:
        response = self.page(name).request.get(f"/api/{path}")
        assert response.ok, f"{path}: {response.status} {response.text()[:300]}"
        answer = response.json()
        return answer["results"] if isinstance(answer, dict) and "results" in answer else answer

    def wait(self, what: str, seconds: float, condition: Callable[[], Any]) -> Any:
        """What `condition` returns once it is true; fails with the ends of the logs."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(1)
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in (self.data / "logs").glob("*.log"))
        pytest.fail(f"{what} did not happen within {seconds} s\n{logs}")


@pytest.fixture(scope="module")
def site(launch: Callable[[], Browser], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("site")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (data / "up.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port)],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DATA_DIR": str(data)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.monotonic() + START
        while "The site is up" not in (said := (data / "up.log").read_text()):
            assert process.poll() is None and time.monotonic() < end, said
            time.sleep(0.5)
        yield Site(f"http://127.0.0.1:{port}", data, launch())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_curator_imports_approves_and_translates(site: Site) -> None:
    page = site.page("curator")
    page.goto("/projects/starter/")
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("longest completion", exact=False).fill("24")
    page.get_by_role("button", name="Save").click()

    page.goto("/projects/starter/imports/")
    rows = (
        f'instruction,input,output\n"Say when the library closes.","{EVENT}","It closes at six."\n"",nothing asked,x\n'
    )
    page.locator("#id_file").set_input_files({"name": "notices.csv", "mimeType": "text/csv", "buffer": rows.encode()})
    page.get_by_role("button", name="Upload prompts").click()
    page.get_by_label("Prompt", exact=True).select_option("instruction")
    page.get_by_label("Input", exact=False).select_option("input")
    page.get_by_label("Demonstration", exact=False).select_option("output")
    expect(page.get_by_text("1 will be taken")).to_be_visible()
    expect(page.get_by_text("1 refused")).to_be_visible()
    page.get_by_role("button", name="Take 1 prompt").click()

    imported = next(
        prompt for prompt in site.api("curator", "prompts/?state=draft") if EVENT in str(prompt["messages"])
    )
    page.goto(f"/prompts/{imported['id']}/")
    expect(page.get_by_text("It closes at six.")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    assert site.api("curator", f"prompts/{imported['id']}/")["state"] == "approved"

    page.goto(f"/prompts/{imported['id']}/translate/ko/")
    page.locator("textarea").last.fill("도서관이 언제 문을 닫는지 알려 주세요.")
    page.get_by_role("button", name=re.compile("finish|review", re.I)).click()
    korean = next(
        prompt
        for prompt in site.api("curator", "prompts/?language=ko&state=in_review")
        if "도서관이" in str(prompt["messages"])
    )
    assert korean["split"] == imported["split"], "translations share the split of their source"


def test_completions_arrive_in_the_page_without_a_reload(site: Site) -> None:
    page = site.page("labeler1")
    page.goto("/desk/")
    expect(page.get_by_role("button", name="Next task")).to_be_visible()
    expect(page.locator("[data-waiting]")).to_contain_text(
        re.compile(r"[4-9] rankings wait|1\d rankings wait"), timeout=SAMPLED * 1000
    )
    ready = site.api("curator", "completion-sets/?state=ready")
    assert ready and all(len(found["completions"]) == 4 for found in ready)
    assert {found["policy_name"] for found in ready} == {"smollm2-135m-instruct"}
    assert all({"temperature", "top_p", "max_new_tokens", "seed"} <= found.keys() for found in ready)

    page = site.page("curator")
    page.goto("/projects/starter/")
    expect(page.get_by_text("Prompts in Korean are offered for demonstrations, not sampled")).to_be_visible()


def test_labelers_rank_and_demonstrate_and_no_model_is_named(site: Site) -> None:
    for name, tiers in (("labeler1", "1123"), ("labeler2", "4321"), ("labeler1", "2134")):
        page = site.page(name)
        page.goto("/desk/")
        page.get_by_role("button", name="the next ranking").click()
        expect(page.locator("#stage .completion")).to_be_visible()
        assert "smollm2" not in page.content().lower()
        press(page, *"4622")
        for letter, tier in zip("ABCD", tiers, strict=True):
            page.get_by_role("button", name=f"{letter} to tier {tier}", exact=True).click()
        done = len(site.api(name, "rankings/"))
        press(page, "Control+Enter")
        site.wait("the ranking", 20, lambda name=name, done=done: len(site.api(name, "rankings/")) == done + 1)
    ranked = [ranking["completion_set"] for ranking in site.api("labeler1", "rankings/")]
    others = [ranking["completion_set"] for ranking in site.api("labeler2", "rankings/")]
    assert len(set(ranked)) == 2 and not set(ranked) & set(others), "overlap is 1"

    page = site.page("labeler2")
    page.goto("/desk/")
    page.get_by_role("button", name="the next demonstration").click()
    page.get_by_label("Write what the assistant").fill("도움이 되는 답변입니다.")
    page.get_by_role("button", name="Submit").click()
    site.wait("the demonstration", 20, lambda: site.api("labeler2", "demonstrations/"))


def test_ops_retrain_watch_and_promote(site: Site) -> None:
    page = site.page("ops")
    page.goto("/admin/")
    page.get_by_role("link", name="Retrain").first.click()
    small = {"ppo-episodes": "0", "ppo-batch_size": "4", "ppo-minibatch_size": "4", "ppo-max_new_tokens": "12"}
    page.locator("details").evaluate_all("all => all.forEach(details => details.open = true)")
    for name, value in small.items():
        page.locator(f"[name={name}]").fill(value)
    page.locator("form [type=submit]").last.click()
    expect(page.locator(".errorlist")).to_contain_text("greater than or equal to 1")
    page.locator("[name=ppo-episodes]").fill("4")
    page.locator("form [type=submit]").last.click()

    expect(page.locator(".ops-standing")).to_be_visible()
    run = page.url
    expect(page.locator(".ops-standing")).to_contain_text("succeeded", timeout=TRAINED * 1000)
    expect(page.locator("#run-charts canvas").first).to_be_visible()
    page.get_by_role("link", name="PPO #").click()
    assert page.url != run
    expect(page.locator(".ops-standing")).to_contain_text("succeeded", timeout=TRAINED * 1000)
    ppo = next(found for found in site.api("ops", "runs/") if found["stage"] == "ppo")
    curves = site.api("ops", f"runs/{ppo['id']}/metrics/")["metrics"]
    assert curves["kl"][0] == [1, 0.0], "the first rollout comes from the reference policy itself"

    page.get_by_role("link", name="Promote the result").click()
    page.get_by_role("button", name="Promote").click()
    policy = next(project for project in site.api("ops", "projects/"))["policy_name"]
    assert policy.startswith("starter-ppo-")


def test_promoted_policy_is_sampled_and_rolled_back(site: Site) -> None:
    promoted = site.api("ops", "projects/")[0]["policy_name"]
    site.wait(
        "a set from the promoted policy",
        SAMPLED,
        lambda: [s for s in site.api("curator", "completion-sets/?state=ready") if s["policy_name"] == promoted],
    )
    page = site.page("ops")
    page.goto("/admin/")
    page.get_by_role("link", name="Roll back").click()
    page.get_by_role("button", name="Roll back").click()
    assert site.api("ops", "projects/")[0]["policy_name"] == "smollm2-135m-instruct"
