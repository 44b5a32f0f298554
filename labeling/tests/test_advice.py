"""What the figures mean, in words."""

from typing import Any

import pytest

from labeling import advice

FEW = {"prompts": 0, "sets": 0, "rankings": 0, "pairs": 0, "demonstrations": 0}


def figure(rate: float | None, low: float = 0.0, high: float = 1.0, sets: int = 100) -> dict[str, Any]:
    return {"rate": rate, "interval": None if rate is None else [low, high], "pairs": 600, "sets": sets}


def report(train: int = 4000, heldout: int = 400, **changes: Any) -> dict[str, Any]:
    splits = {
        "train": {**FEW, "rankings": train, "pairs": 6 * train},
        "heldout": {**FEW, "rankings": heldout, "pairs": 6 * heldout},
    }
    found = {
        "volume": {"splits": splits},
        "reckoned": 4000,
        "agreement": figure(0.73, 0.71, 0.75),
        "model": "judge-1",
        "accuracy": figure(0.65, 0.63, 0.67),
        "suspects_total": 10,
        "curve": None,
    }
    return found | changes


@pytest.mark.parametrize(
    ("found", "leaks", "state", "words"),
    [
        (report(), 0, "good", "4,000 rankings to train on"),
        (report(train=0), 0, "bad", "Rank some sets first"),
        (report(heldout=0), 0, "bad", "nobody could tell"),
        (report(agreement=figure(0.52, 0.49, 0.55)), 0, "bad", "Work on the instructions"),
        (report(train=100), 0, "busy", "Below about 500"),
        (report(heldout=20), 0, "busy", "±20 points"),
        (report(agreement=figure(None)), 0, "busy", "buy overlap"),
        (report(agreement=figure(0.7, 0.6, 0.8, sets=5)), 0, "busy", "buy overlap"),
        (report(suspects_total=1500), 0, "busy", "1,500 rankings stand against"),
        (report(), 3, "busy", "3 held-out prompts are nearly the same"),
        (report(model=None, accuracy=None), 0, "good", "No reward model has been trained yet"),
    ],
)
def test_the_verdict_follows_from_the_worst_reason(found: dict[str, Any], leaks: int, state: str, words: str) -> None:
    said = advice.verdict(found, leaks)
    assert said.state == state
    assert any(words in reason.text for reason in said.reasons)


@pytest.mark.parametrize(
    ("people", "model", "words"),
    [
        (figure(0.73, 0.71, 0.75), figure(0.65, 0.63, 0.67), "Train longer"),
        (figure(0.73, 0.71, 0.75), figure(0.73, 0.715, 0.745), "gain little"),
        (figure(0.73, 0.71, 0.75), figure(0.72, 0.60, 0.80), "cannot be told yet"),
        (figure(0.73, 0.71, 0.75), figure(0.95, 0.93, 0.97), "look for leaks"),
        (figure(None), figure(0.65, 0.63, 0.67), "Buy overlap"),
        (figure(0.73, 0.71, 0.75), None, "Train a reward model"),
    ],
)
def test_overlap_or_longer_training(people: dict[str, Any], model: dict[str, Any] | None, words: str) -> None:
    assert words in advice.ceiling_advice(report(agreement=people, accuracy=model))


def test_what_more_labels_buy_is_reckoned_from_the_intervals() -> None:
    said = advice.purchases(report(agreement=figure(10 / 16, 0.6, 0.65), accuracy=figure(0.65, 0.6, 0.7)))
    assert any("±3.5 points in place of ±5.0" in each for each in said)  # 5 / sqrt 2
    assert any("84% of pairs in place of 75%" in each for each in said)  # 0.75^3 + 3 0.75^2 0.25
