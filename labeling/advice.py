"""What the figures of `labeling.readiness` mean, in words: whether to train, why, and what to do next."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.learning import ceiling, majority, narrowed

FEW_TRAIN, FEW_HELDOUT, FEW_SETS = 500, 50, 10
INSTRUCTGPT = {"prompts": 31_144, "rankings": 33_207, "demonstrations": 12_725}
"""Training prompts for PPO, for reward models and for SFT (Ouyang et al. 2022, table 6)."""

State = Literal["good", "busy", "bad", "off"]


@dataclass(frozen=True)
class Reason:
    state: State
    text: str
    anchor: str
    """Where on the page it is shown."""


@dataclass(frozen=True)
class Verdict:
    state: State
    text: str
    reasons: list[Reason]


def verdict(report: dict[str, Any], leaks: int) -> Verdict:
    """`leaks`: how many there are still."""
    reasons = [*_volume(report), _agreement(report), _model(report), *_mistakes(report), *_leaking(leaks)]
    if any(reason.state == "bad" for reason in reasons):
        return Verdict("bad", _("Not yet."), reasons)
    if any(reason.state == "busy" for reason in reasons):
        return Verdict("busy", _("Enough to try, not enough to rely on."), reasons)
    return Verdict("good", _("Yes: this is enough to train on."), reasons)


def _volume(report: dict[str, Any]) -> list[Reason]:
    train, heldout = report["volume"]["splits"]["train"], report["volume"]["splits"]["heldout"]
    reasons = []
    if not train["pairs"]:
        text = _("There is no ranking to train on that prefers one completion. Rank some sets first.")
        return [Reason("bad", text, "volume")]
    enough = train["rankings"] >= FEW_TRAIN
    text = ngettext("%(count)s ranking to train on.", "%(count)s rankings to train on.", train["rankings"])
    text %= {"count": number_format(train["rankings"], force_grouping=True)}
    if not enough:
        text += " " + _("Below about %(few)s a reward model mostly learns that training works.") % {"few": FEW_TRAIN}
    reasons.append(Reason("good" if enough else "busy", text, "volume"))
    if not heldout["rankings"]:
        text = _("Nothing is held out and ranked: nobody could tell whether training helped. Rank held-out sets, too.")
        return [*reasons, Reason("bad", text, "volume")]
    text = ngettext(
        "%(count)s held-out ranking: it will tell a reward model’s accuracy to about ±%(points)s points.",
        "%(count)s held-out rankings: they will tell a reward model’s accuracy to about ±%(points)s points.",
        heldout["rankings"],
    ) % {
        "count": number_format(heldout["rankings"], force_grouping=True),
        "points": round(100 * 1.96 * 0.45 / math.sqrt(heldout["rankings"])),
    }
    return [*reasons, Reason("good" if heldout["rankings"] >= FEW_HELDOUT else "busy", text, "volume")]


def _agreement(report: dict[str, Any]) -> Reason:
    figure = report["agreement"]
    if figure["rate"] is None or not figure["interval"] or figure["sets"] < FEW_SETS:
        text = _("Too few sets were ranked by two labelers to say how far they agree: buy overlap.")
        return Reason("busy", text, "ceiling")
    low, high = figure["interval"]
    told = {"rate": percent(figure["rate"]), "low": percent(low), "high": percent(high)}
    if low <= 0.5:
        text = _(
            "Labelers agree on %(rate)s of pairs (%(low)s to %(high)s): that may be chance. Work on the instructions."
        )
        return Reason("bad", text % told, "ceiling")
    text = _("Labelers agree on %(rate)s of pairs (%(low)s to %(high)s).") % told
    return Reason("good" if low > 0.6 else "busy", text, "ceiling")


def _model(report: dict[str, Any]) -> Reason:
    figure = report.get("accuracy")
    if not report.get("model"):
        return Reason("off", _("No reward model has been trained yet."), "ceiling")
    if not figure or figure["rate"] is None or not figure["interval"]:
        return Reason("off", _("The newest reward model has not scored two held-out rankings yet."), "ceiling")
    low, high = figure["interval"]
    told = {"rate": percent(figure["rate"]), "low": percent(low), "high": percent(high)}
    if low <= 0.5:
        text = _(
            "The newest reward model is right on %(rate)s of held-out pairs (%(low)s to %(high)s): maybe by chance."
        )
        return Reason("busy", text % told, "ceiling")
    text = _("The newest reward model is right on %(rate)s of held-out pairs (%(low)s to %(high)s).")
    return Reason("good", text % told, "ceiling")


def _mistakes(report: dict[str, Any]) -> list[Reason]:
    count = report["suspects_total"]
    if not count:
        return []
    share = count / max(1, report["reckoned"])
    text = ngettext(
        "%(count)s ranking stands against the other labelers and the reward model.",
        "%(count)s rankings stand against the other labelers and the reward model.",
        count,
    ) % {"count": number_format(count, force_grouping=True)}
    return [Reason("busy" if share > 0.2 else "off", text, "suspects")]


def _leaking(leaks: int) -> list[Reason]:
    if not leaks:
        return [Reason("good", _("No prompt to train on is nearly the same as a held-out one."), "leaks")]
    text = ngettext(
        "%(count)s held-out prompt is nearly the same as one to train on: held-out accuracy may be too high.",
        "%(count)s held-out prompts are nearly the same as some to train on: held-out accuracy may be too high.",
        leaks,
    ) % {"count": number_format(leaks, force_grouping=True)}
    return [Reason("busy", text, "leaks")]


def ceiling_advice(report: dict[str, Any]) -> str:
    """Overlap or longer training: agreement beside the newest reward model."""
    people, model = report["agreement"], report.get("accuracy")
    if not model or model["interval"] is None:
        return _("Train a reward model: then this says whether more overlap or longer training would help.")
    if people["interval"] is None or people["sets"] < FEW_SETS:
        return _("Buy overlap: let two labelers rank the same sets, or nobody knows how good a model could be.")
    if model["interval"][1] < people["interval"][0]:
        return _(
            "The model is clearly behind people: there is more in these labels. Train longer, on more rankings, or "
            "start from a larger model."
        )
    if model["interval"][0] > ceiling(people["interval"][1])[1]:
        return _(
            "The model agrees with labelers more often than the best possible model could: look for leaks between "
            "training and held-out prompts, or for labelers who follow a model."
        )
    if model["interval"][0] >= people["interval"][0]:
        return _(
            "The model agrees with a labeler as often as another labeler does. Training longer will gain little; "
            "clearer instructions and overlap, which make labels better, will gain more."
        )
    return _(
        "The two intervals overlap: it cannot be told yet whether the model is behind people. Rank more held-out sets, "
        "twice over."
    )


def purchases(report: dict[str, Any]) -> list[str]:
    """What more labels of each kind would change, a sentence each, with what is assumed."""
    said = []
    people, model, curve = report["agreement"], report.get("accuracy"), report.get("curve")
    if curve:
        now, double = curve["now"], curve["double"]
        said.append(
            _("Twice as many rankings: from %(now)s to %(then)s of held-out pairs (%(low)s to %(high)s).")
            % {
                "now": percent(now["accuracy"]),
                "then": percent(double["accuracy"]),
                "low": percent(double["interval"][0]),
                "high": percent(double["interval"][1]),
            }
        )
    if model and model["interval"]:
        said.append(
            _("Twice as many held-out sets: the model’s accuracy known to ±%(then)s points in place of ±%(now)s.")
            % _points(model["interval"])
        )
    if people["interval"]:
        said.append(
            _("Twice as many sets ranked by two: agreement known to ±%(then)s points in place of ±%(now)s.")
            % _points(people["interval"])
        )
        right = ceiling(people["rate"])[1]
        said.append(
            _(
                "Three labelers for each set: the majority right on %(then)s of pairs in place of %(now)s for one, if "
                "all are equally good and err independently."
            )
            % {"then": percent(majority(right, 3)), "now": percent(right)}
        )
    return said


def _points(interval: tuple[float, float]) -> dict[str, str]:
    return {
        name: number_format(round(100 * narrowed(interval, times), 1), 1) for name, times in (("now", 1), ("then", 2))
    }


def percent(share: float) -> str:
    """Whole percents: more would claim too much."""
    return f"{round(100 * share)}%"
