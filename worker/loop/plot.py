"""The loop in one picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from worker.loop.outcome import Interval, Outcome  # noqa: E402

MAIN, CONTROL, NEUTRAL = "#1f5fbf", "#c2571a", "#6b7280"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Reward models beside their ceiling, rewards during PPO, hidden scores before and after, and the difference."""
    figure, (accuracy, rewards, hidden, effect) = pyplot.subplots(
        1, 4, figsize=(15, 4.2), layout="constrained", width_ratios=(1, 1.2, 1.2, 0.7)
    )
    _accuracy(accuracy, outcomes)
    _rewards(rewards, outcomes)
    _hidden(hidden, outcomes)
    _effect(effect, outcomes)
    for axes in (accuracy, rewards, hidden, effect):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _accuracy(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    x = range(len(outcomes))
    axes.bar([i - 0.2 for i in x], [100 * o.main.reward_accuracy for o in outcomes], 0.4, color=MAIN, label="rankings")
    axes.bar(
        [i + 0.2 for i in x], [100 * o.control.reward_accuracy for o in outcomes], 0.4, color=CONTROL, label="shuffled"
    )
    for i, outcome in enumerate(outcomes):
        ceiling = 100 * outcome.labels.ceiling
        axes.plot([i - 0.45, i + 0.45], [ceiling, ceiling], color="black", label="ceiling" if i == 0 else None)
    axes.axhline(50, color=NEUTRAL, linewidth=1, linestyle=":")
    axes.set(title="Reward model: held-out pairs right", ylabel="%", xlabel="seed", ylim=(0, 100))
    axes.set_xticks(list(x), [str(o.seed) for o in outcomes])
    axes.legend(loc="upper center", ncols=3, fontsize=8)


def _rewards(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for i, outcome in enumerate(outcomes):
        for arm, colour, name in ((outcome.main, MAIN, "rankings"), (outcome.control, CONTROL, "shuffled")):
            steps = range(1, len(arm.rewards) + 1)
            axes.plot(steps, arm.rewards, color=colour, alpha=0.8, label=name if i == 0 else None)
    axes.set(title="PPO: reward of each rollout", xlabel="step", ylabel="reward, by the arm's own model")
    axes.legend(loc="upper left", fontsize=8)


def _hidden(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for i, outcome in enumerate(outcomes):
        for arm, colour, name in ((outcome.main, MAIN, "rankings"), (outcome.control, CONTROL, "shuffled")):
            axes.plot(
                [0, 1],
                [outcome.before.gold, arm.after.gold],
                color=colour,
                marker="o",
                label=name if i == 0 else None,
            )
    axes.set(title="Hidden score, held-out prompts", xlim=(-0.2, 1.2))
    axes.set_xticks([0, 1], ["fine-tuned", "after PPO"])
    axes.legend(loc="upper left", fontsize=8)


def _effect(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    effects = [outcome.effect for outcome in outcomes]
    axes.plot([0] * len(effects), effects, "o", color=NEUTRAL, alpha=0.7)
    if len(effects) > 1:
        interval = Interval.of(effects)
        error = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axes.errorbar([0.15], [interval.mean], yerr=error, fmt="D", color=MAIN, capsize=6)
    axes.axhline(0, color="black", linewidth=1)
    axes.set(title="Gain − control's, 95%", xlim=(-0.4, 0.5))
    axes.set_xticks([])
