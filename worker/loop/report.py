"""What the loop says in the end: a table, and loop.json with the machine it ran on."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from worker.loop.outcome import Interval, Outcome
from worker.machine import machine

COLUMNS = (
    ("", "seed", "{:.0f}"),
    ("labelers", "agree", "{:.1%}"),
    ("reward model", "accuracy", "{:.1%}"),
    ("its", "ceiling", "{:.1%}"),
    ("the same,", "shuffled", "{:.1%}"),
    ("hidden", "before", "{:+.2f}"),
    ("after", "PPO", "{:+.2f}"),
    ("the same,", "shuffled", "{:+.2f}"),
    ("", "KL", "{:.1f}"),
    ("KL,", "shuffled", "{:.1f}"),
    ("", "gain", "{:+.2f}"),
    ("gain,", "shuffled", "{:+.2f}"),
    ("", "difference", "{:+.2f}"),
)
"""A heading of two lines and a format for each column; the values come from `cells`."""


def cells(outcome: Outcome) -> tuple[float, ...]:
    return (
        outcome.seed,
        outcome.labels.agreement,
        outcome.main.reward_accuracy,
        outcome.labels.ceiling,
        outcome.control.reward_accuracy,
        outcome.before.gold,
        outcome.main.after.gold,
        outcome.control.after.gold,
        outcome.main.kl,
        outcome.control.kl,
        outcome.gain,
        outcome.control_gain,
        outcome.effect,
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a seed and, for several, their means."""
    formats = [format for _, _, format in COLUMNS]
    rows = [_row(formats, cells(outcome)) for outcome in outcomes]
    if len(outcomes) > 1:
        means = [sum(column) / len(outcomes) for column in zip(*map(cells, outcomes), strict=True)]
        rows.append(["mean", *_row(formats, means)[1:]])
    heads = [[first for first, _, _ in COLUMNS], [second for _, second, _ in COLUMNS]]
    widths = [max(map(len, column)) for column in zip(*heads, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (*heads, *rows)]
    return "\n".join([*lines[:2], "-" * len(lines[0]), *lines[2:]])


def _row(formats: Sequence[str], values: Sequence[float]) -> list[str]:
    return [format.format(value) for format, value in zip(formats, values, strict=True)]


def write_json(outcomes: Sequence[Outcome], seconds: float, cpu_seconds: float, path: Path) -> None:
    effects = [outcome.effect for outcome in outcomes]
    content = {
        "machine": machine(),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "effect": asdict(Interval.of(effects)) if len(effects) > 1 else None,
        "seeds": [asdict(outcome) | {"effect": outcome.effect} for outcome in outcomes],
    }
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
