"""How many key presses and pointer moves a ranking takes a practised hand: here, in Label Studio, in Argilla.

    python -m benchmarks.keystrokes                   # about three minutes, in headless Chromium

Ours and Label Studio's (its `Ranker`, at its default start) are driven in a browser until the server has the ranking,
and each press, move, click and drag is counted as it is made; the ranking is then read back. Argilla's RankingQuestion
is counted from its source, not tried: in argilla-frontend/components/features/annotation/container/questions/form/
ranking/drag-and-drop-selection/DndSelection.component.vue a digit sends the item in focus to that rank, and 0.3 s later
(in which a second digit may follow) the next one has the focus; Enter is left to the page, which submits.

The seconds are an estimate by the keystroke-level model (Card, Moran, Newell: The keystroke-level model for user
performance time with interactive systems, CACM 23, 1980), not a measurement: K = 0.2 s for a key of a practised typist,
P = 1.1 s to point, B = 0.1 s to press or let go of the button. Reading and thinking (M) are left out, being alike;
of waiting for the page (R) only Argilla's 0.3 s for each item counts.
Prints JSON and keeps it in benchmarks/.results/keystrokes.json.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from benchmarks.label_studio import OWNER, LabelStudio, label_studio
from benchmarks.sites import PASSWORD, Site, site

RESULTS = Path(__file__).resolve().parent / ".results"
K_SECONDS, P_SECONDS, B_SECONDS = 0.2, 1.1, 0.1
WAIT_SECONDS = 0.3  # Argilla's, after each digit
PATIENCE = 60_000  # milliseconds
CHROMIUM = "/usr/bin/chromium"
WINDOW: Any = {"width": 1600, "height": 2400}  # all cards in sight: nobody scrolls


class Hand:
    """Does what a person would, and counts it."""

    def __init__(self, page: Page) -> None:
        self.page, self.count = page, Counter[str]()

    def press(self, key: str) -> None:
        self.count["keys"] += key.count("+") + 1  # Ctrl+Enter is two
        self.page.keyboard.press(key)

    def click(self, target: Locator) -> None:
        self.count.update({"moves": 1, "clicks": 1})
        target.click()

    def drag(self, what: Locator, x: float, y: float) -> None:
        self.count.update({"moves": 2, "drags": 1})
        box = what.bounding_box()
        assert box
        mouse = self.page.mouse
        mouse.move(box["x"] + min(20, box["width"] / 2), box["y"] + min(15, box["height"] / 2))
        mouse.down()
        mouse.move(box["x"] + 30, box["y"] + 30, steps=5)
        mouse.move(x, y, steps=12)
        self.page.wait_for_timeout(150)
        mouse.up()
        self.page.wait_for_timeout(500)  # where it comes to rest


def seconds(count: dict[str, int]) -> float:
    """The keystroke-level model's estimate."""
    buttons = 2 * (count.get("clicks", 0) + count.get("drags", 0))
    hand = K_SECONDS * count.get("keys", 0) + P_SECONDS * count.get("moves", 0) + B_SECONDS * buttons
    return round(hand + WAIT_SECONDS * count.get("waits", 0), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default="ours,label-studio")
    options = parser.parse_args()
    counts: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="nanochatgpt-keystrokes-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        if "ours" in options.arms:
            with site("sqlite", Path(folder), sets=0, labelers=1) as started:
                counts |= {f"ours, {name}": by for name, by in of_ours(started, browser).items()}
        if "label-studio" in options.arms:
            counts["Label Studio, pointer"] = {}
            for k in (4, 9):
                with label_studio(Path(folder) / f"studio-{k}", tasks=2, k=k) as studio:
                    counts["Label Studio, pointer"][str(k)] = of_studio(studio, browser, k)
        browser.close()
    counts["Argilla, keys (from its source)"] = {str(k): {"keys": k + 1, "waits": k} for k in (4, 9)}
    report = {
        name: {k: {**count, "klm_seconds": seconds(count)} for k, count in by.items()} for name, by in counts.items()
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "keystrokes.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    print(table(report), file=sys.stderr)
    return 0


# --- Ours ------------------------------------------------------------------------------------------------------------


def of_ours(ours: Site, browser: Browser) -> dict[str, dict[str, dict[str, int]]]:
    page = browser.new_context(viewport=WINDOW, locale="en-US").new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{ours.url}/login/")
    page.fill("[name=username]", "labeler-0")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url("**/desk/")
    ways: dict[str, tuple[bool, Callable[[Hand, int], None]]] = {
        "rated and ranked by keys": (True, by_keys),
        "ranked alone by keys": (False, by_keys),
        "rated and ranked by pointer": (True, by_pointer),
        "ranked alone by dragging": (False, by_dragging),
    }
    found: dict[str, dict[str, dict[str, int]]] = {name: {} for name in ways}
    for k in (4, 9):
        for name, (rates, way) in ways.items():
            ours.ask("one", "--k", k, *(["--rates"] if rates else []))
            page.goto(f"{ours.url}/desk/")
            page.locator("button.next").click()
            expect(page.locator("#progress")).not_to_be_empty()  # the script has begun
            hand = Hand(page)
            way(hand, k)
            page.wait_for_url("**/desk/")
            tiers = ours.ask("last")
            if sorted(tiers) != list(range(1, k + 1)):
                raise SystemExit(f"{name}, {k}: stored {tiers}")
            found[name][str(k)] = dict(hand.count)
    return found


def by_keys(hand: Hand, k: int) -> None:
    if hand.page.locator("#board-step").is_hidden():
        for number in range(k):
            hand.press(str(1 + number % 7))
        hand.page.locator("#board-step").wait_for(state="visible")
    for number in range(k):
        hand.press(str(k - number))
    hand.press("Control+Enter")


def by_pointer(hand: Hand, k: int) -> None:
    page = hand.page
    for number, letter in enumerate("ABCDEFGHI"[:k]):
        if number:
            hand.click(page.locator(f".letters [data-letter={letter}]"))
        hand.click(page.locator(f'.completion[data-letter={letter}] .marks label:has([value="{1 + number % 7}"])'))
    if page.locator("#board-step").is_hidden():
        hand.click(page.locator("#to-board"))
    for number, letter in enumerate("ABCDEFGHI"[:k]):
        hand.click(page.locator(f'.completion[data-letter={letter}] [data-to="{k - number}"]'))
    hand.click(page.locator("#submit"))


def by_dragging(hand: Hand, k: int) -> None:
    page = hand.page
    for number, letter in enumerate("ABCDEFGHI"[:k]):
        target = page.locator(f'.tier[data-tier="{k - number}"] .cards-in-tier')
        page.locator(f".completion[data-letter={letter}]").scroll_into_view_if_needed()
        box = target.bounding_box()
        assert box
        hand.drag(
            page.locator(f".completion[data-letter={letter}] .handle"),
            box["x"] + box["width"] / 2,
            box["y"] + box["height"] / 2,
        )
    hand.click(page.locator("#submit"))


# --- Label Studio ----------------------------------------------------------------------------------------------------


def of_studio(studio: LabelStudio, browser: Browser, k: int) -> dict[str, int]:
    """Every item dragged under the ones before it in the bucket, then the button."""
    page = browser.new_context(viewport=WINDOW, locale="en-US").new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{studio.url}/user/login/")
    page.fill("[name=email]", OWNER)
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_load_state("networkidle")
    page.goto(f"{studio.url}/projects/{studio.project}/data?labeling=1")
    page.locator(".htx-ranker-item").first.wait_for()
    page.wait_for_timeout(1000)
    hand = Hand(page)
    columns = page.locator(".htx-ranker-column")
    for number in range(k):
        target = columns.nth(1).bounding_box()
        inside = columns.nth(1).locator(".htx-ranker-item")
        last = inside.last.bounding_box() if number else None
        assert target
        y = last["y"] + last["height"] + 10 if last else target["y"] + min(90, target["height"] / 2)
        hand.drag(columns.first.locator(".htx-ranker-item").first, target["x"] + target["width"] / 2, y)
        if inside.count() != number + 1:
            raise SystemExit(f"Label Studio: {inside.count()} items ranked after {number + 1} drags")
    hand.click(page.get_by_role("button", name=re.compile("^submit", re.IGNORECASE)).first)
    page.wait_for_timeout(3000)
    if len(studio.stored()["annotations"]) != 1:
        raise SystemExit("Label Studio has not stored the ranking")
    return dict(hand.count)


def table(report: dict[str, Any]) -> str:
    """Markdown: a row for each way and number of completions."""
    names = ("keys", "moves", "clicks", "drags", "klm_seconds")
    lines = ["| | completions | keys | pointer moves | clicks | drags | estimate, s |", "|---|---|---|---|---|---|---|"]
    for name, by in report.items():
        for k, count in by.items():
            lines.append(f"| {name} | {k} | " + " | ".join(f"{count.get(one, 0):g}" for one in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
