"""A run's metrics as curves: thinned out, so that a run of a million steps draws as quickly as one of a hundred."""

from collections import defaultdict
from typing import Any

from django.db.models import Avg, F, Max
from django.utils.translation import gettext_lazy as _

from rlhf.models import TrainingRun

POINTS = 300

NAMES = {
    "loss": _("Loss"),
    "heldout_loss": _("Held-out loss"),
    "accuracy": _("Accuracy"),
    "heldout_accuracy": _("Held-out accuracy"),
    "heldout_pairs": _("Held-out pairs"),
    "margin": _("Reward margin"),
    "reward": _("Reward"),
    "kl": _("KL to the reference policy"),
    "response_length": _("Response length, in tokens"),
    "finished": _("Share of responses that ended"),
    "entropy": _("Entropy"),
    "policy_loss": _("Policy loss"),
    "value_loss": _("Value loss"),
    "approx_kl": _("KL of one update"),
    "ratio": _("Probability ratio"),
    "clip_fraction": _("Share of clipped tokens"),
    "kl_coef": _("KL weight"),
    "ptx_loss": _("Pretraining loss"),
    "learning_rate": _("Learning rate"),
    "grad_norm": _("Gradient norm"),
    "tokens_per_second": _("Tokens per second"),
    "seconds": _("Seconds"),
    "peak_memory_mb": _("Most memory, in MB"),
    "score_offset": _("Score offset"),
}
TOGETHER = {"heldout_loss": "loss", "heldout_accuracy": "accuracy"}
"""Drawn into the panel of another metric."""


def name_of(metric: str) -> Any:
    return NAMES.get(metric, metric.replace("_", " ").capitalize())


def last_step(run: TrainingRun) -> int:
    """The newest step with a metric; 0 before the first."""
    return run.metrics.aggregate(last=Max("step"))["last"] or 0


def curves(run: TrainingRun) -> list[dict[str, Any]]:
    """One panel for each metric, the most important first: `{"title", "steps": [], "series": [{"label", "values"}]}`.

    Long runs are cut into at most POINTS stretches; a point is the mean of its stretch. A value is None where its
    series has none.
    """
    stride = max(1, -(-last_step(run) // POINTS))
    thinned = (
        run.metrics.order_by()
        .annotate(stretch=F("step") / stride)
        .values("name", "stretch")
        .annotate(mean=Avg("value"), at=Max("step"))
    )
    series: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
    for row in thinned:
        series[row["name"]][row["stretch"]] = (row["at"], row["mean"])
    panels: dict[str, list[str]] = defaultdict(list)
    for name in sorted(series, key=_rank):
        panels[TOGETHER.get(name, name) if TOGETHER.get(name, name) in series else name].append(name)
    return [_panel(title, {name: series[name] for name in names}) for title, names in panels.items()]


def _panel(title: str, series: dict[str, dict[int, tuple[int, float]]]) -> dict[str, Any]:
    stretches = sorted(set().union(*series.values()))
    return {
        "title": str(name_of(title)),
        "steps": [max(points[stretch][0] for points in series.values() if stretch in points) for stretch in stretches],
        "series": [
            {
                "label": str(name_of(name)),
                "values": [points[stretch][1] if stretch in points else None for stretch in stretches],
            }
            for name, points in series.items()
        ],
    }


def table(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The curves in words and numbers: first, lowest, highest and last value of each, for those who cannot see them."""
    rows = []
    for panel in panels:
        for line in panel["series"]:
            values = [value for value in line["values"] if value is not None]
            rows.append(
                {
                    "name": line["label"],
                    "first": f"{values[0]:.4g}",
                    "lowest": f"{min(values):.4g}",
                    "highest": f"{max(values):.4g}",
                    "last": f"{values[-1]:.4g}",
                }
            )
    return rows


def _rank(name: str) -> tuple[int, str]:
    order = list(NAMES)
    return (order.index(name) if name in order else len(order), name)
