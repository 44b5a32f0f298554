"""The verdict: an interval over seeds, and a command that fails where it does not stay above 0."""

import json
import math
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from worker.loop.outcome import Arm, Interval, Labels, Measured, Outcome
from worker.loop.report import table
from worker.management.commands.loop import Command


def outcome(seed: int, gain: float, control_gain: float = 0.1) -> Outcome:
    labels = Labels(rankings=320, noise=0.3, agreement=0.73, tied=0.04, ceiling=0.8, heldout_pairs=800)
    before = Measured(gold=0.2, length=15.0, answers={"Where?": "Here."})

    def arm(accuracy: float, gained: float) -> Arm:
        return Arm(accuracy, Measured(0.2 + gained, 14.0, {"Where?": "There."}), 3.0, [0.1, 0.5], f"loop-{seed}-ppo")

    return Outcome(seed, labels, before, arm(0.78, gain), arm(0.5, control_gain), seconds=60.0)


def test_interval_of_three_values_by_hand() -> None:
    interval = Interval.of([1.0, 2.0, 3.0])
    assert interval.mean == 2
    assert interval.high - 2 == pytest.approx(4.303 / math.sqrt(3))
    assert 2 - interval.low == pytest.approx(4.303 / math.sqrt(3))


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two values"):
        Interval.of([1.0])


def test_the_effect_is_what_the_control_did_not_gain() -> None:
    assert outcome(1, gain=0.7, control_gain=0.1).effect == pytest.approx(0.6)


def test_the_table_has_a_line_a_seed_and_the_means() -> None:
    lines = table([outcome(1, 0.7), outcome(2, 0.5)]).splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["1", "2", "mean"]
    assert lines[3].split()[1:5] == ["73.0%", "78.0%", "80.0%", "50.0%"]
    assert lines[-1].split()[-3:] == ["+0.60", "+0.10", "+0.50"]
    assert len({len(line) for line in lines}) == 1


def test_a_sure_gain_passes_and_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Command()._report([outcome(seed, 0.7 + seed / 100) for seed in (1, 2, 3)], 100.0, 180.0, tmp_path)
    assert "the gain is real" in capsys.readouterr().out
    written = json.loads((tmp_path / "loop.json").read_text())
    assert written["effect"]["low"] > 0
    assert [seed["labels"]["ceiling"] for seed in written["seeds"]] == [0.8] * 3
    assert written["machine"]["cores"] >= 1
    assert (tmp_path / "loop.png").read_bytes().startswith(b"\x89PNG")


def test_a_gain_that_could_be_chance_fails(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not above 0"):
        Command()._report([outcome(1, 0.9), outcome(2, 0.1), outcome(3, 0.2)], 100.0, 180.0, tmp_path)
    assert (tmp_path / "loop.json").exists()


def test_a_control_that_gains_as_much_fails(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not above 0"):
        Command()._report([outcome(seed, 0.7, control_gain=0.7) for seed in (1, 2, 3)], 100.0, 180.0, tmp_path)
