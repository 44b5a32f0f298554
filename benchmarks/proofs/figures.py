"""One picture for each proof."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.proofs import exact, labelers, overoptimisation, randomwalks  # noqa: E402
from worker.loop.outcome import Interval  # noqa: E402

COLOURS = ("#1f5fbf", "#c2571a", "#3a8f5c", "#7a4fb5", "#b8860b")
NEUTRAL = "#6b7280"


def _saved(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_exact(outcomes: Sequence[exact.Outcome], path: Path) -> None:
    """Reward, KL and J of each step, logged (dots) and enumerated (lines), and where the optimum is."""
    figure, panels = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for name, axes in zip(("reward", "kl", "objective"), panels, strict=True):
        for colour, outcome in zip(COLOURS, outcomes, strict=False):
            measured = [step for step in outcome.steps if "exact_kl" in step]
            exactly = [step[f"exact_{name}"] for step in measured]
            if name == "objective":
                gap = outcome.best - outcome.reference
                exactly = [(value - outcome.reference) / gap for value in exactly]
            else:
                logged = [step[name] for step in outcome.steps]  # of the policy before the step
                axes.plot(range(len(logged)), logged, ".", markersize=2, color=colour, alpha=0.5)
                optimum = outcome.best_kl if name == "kl" else outcome.best + exact.KL_COEF * outcome.best_kl
                axes.axhline(optimum, color=colour, linewidth=0.8, linestyle=":")
            axes.plot([step["step"] for step in measured], exactly, color=colour, lw=1, label=f"seed {outcome.seed}")
        axes.set_xlabel("PPO step")
    panels[0].set(title="Mean reward: logged (dots), exact, optimum (dotted)")
    panels[1].set(title="KL to the reference, nats a response")
    panels[2].axhline(exact.REQUIRED, color="black", linewidth=1, linestyle="--")
    panels[2].axhline(1, color="black", linewidth=1)
    panels[2].set(title="(J − J_ref) / (J* − J_ref); dashed: required", ylim=(0, 1.03))
    panels[2].legend(loc="lower right", fontsize=8)
    _saved(figure, path)


def draw_labelers(outcomes: Sequence[labelers.Outcome], path: Path) -> None:
    """Accuracy on held-out labelers and prompts by number of rankings, between chance and ceiling."""
    figure, axes = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    for outcome in outcomes:
        sizes = sorted(outcome.accuracy)
        axes.plot(sizes, [100 * outcome.accuracy[size] for size in sizes], ".", color=COLOURS[0], alpha=0.6)
        axes.plot([max(sizes)], [100 * outcome.shuffled], ".", color=COLOURS[1], alpha=0.6)
    means = [Interval.of([100 * o.accuracy[size] for o in outcomes]).mean for size in sizes]
    axes.plot(sizes, means, color=COLOURS[0], label="reward model, mean over seeds")
    control = Interval.of([100 * o.shuffled for o in outcomes])
    error = [[control.mean - control.low], [control.high - control.mean]]
    axes.errorbar(
        [max(sizes)],
        [control.mean],
        yerr=error,
        fmt="D",
        markersize=4,
        capsize=5,
        color=COLOURS[1],
        label="shuffled rankings, 95%",
    )
    ceiling = Interval.of([100 * o.ceiling for o in outcomes]).mean
    axes.axhline(ceiling, color="black", linewidth=1, label="ceiling: the hidden score itself")
    axes.axhline(50, color=NEUTRAL, linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="rankings of 4 to 9", ylabel="% of held-out pairs right", title="Simulated labelers")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.legend(loc="center right", fontsize=8)
    _saved(figure, path)


def draw_overoptimisation(outcomes: Sequence[overoptimisation.Outcome], path: Path) -> None:
    """Gains in proxy (dashed) and gold (solid) over the distance: best-of-n by size of the proxy, PPO by KL penalty."""
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4.4), layout="constrained", sharey=True)
    few, least = min(arm.rankings for arm in outcomes[0].arms), min(a.kl_coef or 0.0 for a in outcomes[0].arms)
    panels: dict[Axes, list[tuple[str, list[overoptimisation.Arm]]]] = {left: [], middle: [], right: []}
    for number, arm in enumerate(outcomes[0].arms):
        same = [outcome.arms[number] for outcome in outcomes]
        if arm.kl_coef is None:
            panels[left].append((f"{arm.rankings} rankings", same))
        elif arm.kl_coef == least:
            panels[middle].append((f"{arm.rankings} rankings", same))
        if arm.kl_coef is not None and arm.rankings == few:
            panels[right].append((f"β = {arm.kl_coef:g}", same))
    for axes, curves in panels.items():
        for colour, (label, same) in zip(COLOURS, curves, strict=False):
            _curves(axes, [arm.points for arm in same], colour, label)
    left.set(title="Best of n", ylabel="gain: proxy dashed, gold solid")
    middle.set(title="PPO without a KL penalty")
    right.set(title=f"PPO against the proxy of {few} rankings")
    for axes in (left, middle, right):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlabel("√KL")
        axes.legend(loc="best", fontsize=8)
    _saved(figure, path)


def _curves(axes: Axes, seeds: Sequence[Sequence[overoptimisation.Point]], colour: str, label: str) -> None:
    """Each seed thin, the mean over seeds at equal steps thick."""
    for name, style in (("gold", "-"), ("proxy", "--")):
        for points in seeds:
            axes.plot(
                [p.distance for p in points], [_value(p, name) for p in points], style, color=colour, lw=0.5, alpha=0.4
            )
        columns = list(zip(*seeds, strict=True))
        x = [sum(p.distance for p in column) / len(column) for column in columns]
        y = [sum(_value(p, name) for p in column) / len(column) for column in columns]
        axes.plot(x, y, style, color=colour, linewidth=2, label=label if name == "gold" else None)


def _value(point: overoptimisation.Point, name: str) -> float:
    return point.proxy if name == "proxy" else (point.gold + point.gold_again) / 2


def draw_randomwalks(outcomes: Sequence[randomwalks.Outcome], path: Path) -> None:
    """Optimality of each rollout."""
    figure, axes = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    for colour, outcome in zip(COLOURS, outcomes, strict=False):
        axes.plot(range(1, len(outcome.rollouts) + 1), outcome.rollouts, color=colour, label=f"seed {outcome.seed}")
    axes.axhline(randomwalks.REQUIRED, color="black", linewidth=1, linestyle="--")
    axes.set(title="Random walks: optimality of a rollout", xlabel="PPO step of 128 walks", ylim=(0, 1.03))
    axes.legend(loc="lower right", fontsize=8)
    _saved(figure, path)
