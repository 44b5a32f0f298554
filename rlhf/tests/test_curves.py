"""Curves: the right numbers, and no more of them than a picture needs."""

from typing import Any

import pytest

from rlhf import curves
from rlhf.models import Metric, TrainingRun


def measured(run: TrainingRun, name: str, values: dict[int, float]) -> None:
    Metric.objects.bulk_create(Metric(run=run, step=step, name=name, value=value) for step, value in values.items())


@pytest.fixture
def run(start: Any) -> TrainingRun:
    return start()


def test_run_without_steps_has_no_curves(run: TrainingRun) -> None:
    assert curves.curves(run) == []
    assert curves.last_step(run) == 0
    assert curves.table([]) == []


def test_short_run_is_drawn_as_it_is(run: TrainingRun) -> None:
    measured(run, "loss", {1: 3.0, 2: 2.0, 3: 1.5})
    [panel] = curves.curves(run)
    assert panel["steps"] == [1, 2, 3]
    assert panel["series"][0]["values"] == [3.0, 2.0, 1.5]


def test_long_run_is_thinned_out_to_means(run: TrainingRun) -> None:
    measured(run, "loss", {step: float(step % 2) for step in range(1, 10_001)})
    [panel] = curves.curves(run)
    assert len(panel["steps"]) <= curves.POINTS + 1
    assert panel["steps"][-1] == 10_000
    assert all(abs(value - 0.5) < 0.05 for value in panel["series"][0]["values"][:-1])


def test_held_out_values_stand_in_the_panel_of_their_metric(run: TrainingRun) -> None:
    measured(run, "loss", {1: 3.0, 2: 2.0})
    measured(run, "heldout_loss", {2: 2.5})
    [panel] = curves.curves(run)
    assert [series["values"] for series in panel["series"]] == [[3.0, 2.0], [None, 2.5]]


def test_held_out_values_alone_have_a_panel_of_their_own(run: TrainingRun) -> None:
    measured(run, "heldout_accuracy", {2: 0.7})
    [panel] = curves.curves(run)
    assert panel["title"] == "Held-out accuracy"


def test_what_matters_most_comes_first_and_the_unknown_last(run: TrainingRun) -> None:
    for name in ("zeal", "grad_norm", "kl", "reward"):
        measured(run, name, {1: 1.0})
    assert [panel["title"] for panel in curves.curves(run)] == [
        "Reward",
        "KL to the reference policy",
        "Gradient norm",
        "Zeal",
    ]


def test_table_says_first_lowest_highest_and_last(run: TrainingRun) -> None:
    measured(run, "loss", {1: 3.0, 2: 1.0, 3: 2.0})
    assert curves.table(curves.curves(run)) == [
        {"name": "Loss", "first": "3", "lowest": "1", "highest": "3", "last": "2"}
    ]


def test_curves_of_another_run_are_left_out(run: TrainingRun, start: Any) -> None:
    measured(start("reward"), "loss", {1: 9.0})
    assert curves.curves(run) == []
