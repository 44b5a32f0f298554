"""What a ranking looks like, the checks it must pass, and the order it is shown in. Pure functions: no ORM."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _

from labeling.text import is_storable

LIKERT = range(1, 8)
MAX_NOTE_CHARACTERS = 4000
LETTERS = "ABCDEFGHI"
"""Names of the completions on the page, in the order shown: nothing about the model that wrote them."""

# InstructGPT, table 3, in its order; the keys are what is stored and exported.
FLAGS = {
    "fails_instruction": _("Fails to follow the correct instruction/task"),
    "inappropriate": _("Inappropriate for customer assistant"),
    "hallucination": _("Hallucination"),
    "satisfies_constraint": _("Satisfies constraint provided in the instruction"),
    "sexual_content": _("Contains sexual content"),
    "violent_content": _("Contains violent content"),
    "encourages_harm": _("Encourages or fails to discourage violence/abuse/terrorism/self-harm"),
    "denigrates": _("Denigrates a protected class"),
    "harmful_advice": _("Gives harmful advice"),
    "opinion": _("Expresses opinion"),
    "moral_judgment": _("Expresses moral judgment"),
}


STRENGTHS = (
    _("%(better)s and %(worse)s are about the same"),
    _("%(better)s is slightly better"),
    _("%(better)s is better"),
    _("%(better)s is much better"),
)
"""By how much one of two is better: the four levels of Llama 2, from 0, a tie, to 3."""


class Verdict(TextChoices):
    """What a labeler says of a whole set. Reward models learn from ranked sets alone."""

    RANKED = "ranked", _("ranked")
    NONE_ACCEPTABLE = "none_acceptable", _("none is acceptable")
    CANNOT_JUDGE = "cannot_judge", _("cannot judge")


def preferences(first: str, second: str) -> list[tuple[int, str]]:
    """The answers to which of two is better, from -3, the first by much, over 0, a tie, to 3, the second by much."""
    levels = range(len(STRENGTHS))
    favoured = [(-level, {"better": first, "worse": second}) for level in reversed(levels)]
    favoured += [(level, {"better": second, "worse": first}) for level in levels[1:]]
    return [(value, STRENGTHS[abs(value)] % letters) for value, letters in favoured]


@dataclass(frozen=True)
class Ranking:
    """`tiers[i]` is completion i's tier, 1 the best, without gaps; `ratings[i]` its rating or None.

    `strength` is by how much one of two is better, an index of STRENGTHS; None where it was not asked.

    Without the verdict that they are ranked, completions may stand in no tier at all: `tiers` is empty then.
    """

    tiers: list[int]
    ratings: list[dict[str, Any] | None]
    note: str
    verdict: Verdict = Verdict.RANKED
    strength: int | None = None


def shown_order(k: int, seed: str) -> list[int]:
    """Indices of `k` completions in the order to show them: shuffled, and the same for the same seed."""
    return random.Random(seed).sample(range(k), k)


def first_alike(texts: Sequence[str]) -> list[int]:
    """For each text the index of the first that says the same, but for space around it: one's own where it is new."""
    first: dict[str, int] = {}
    return [first.setdefault(text.strip(), index) for index, text in enumerate(texts)]


def clean_ranking(
    payload: Any, texts: Sequence[str], *, require_ratings: bool, require_strength: bool = False
) -> Ranking:
    """A complete ranking of completions with these texts, or ValidationError saying what is missing.

    Completions with the same text stand in one tier, and one rating holds for all of them.
    `require_strength`: two completions in an order need a strength of preference.
    """
    if not isinstance(payload, dict):
        raise ValidationError(_("The ranking is not readable. Reload the page."))
    k, alike = len(texts), first_alike(texts)
    verdict = payload.get("verdict", Verdict.RANKED)
    if verdict not in Verdict.values:
        raise ValidationError(_("The verdict is not known. Reload the page."))
    is_ranked = verdict == Verdict.RANKED
    ratings = _shared(_clean_ratings(payload.get("ratings"), k), alike)
    tiers = _clean_tiers(payload.get("tiers"), alike, is_required=is_ranked)
    strength = _clean_strength(payload.get("strength"), tiers, k, is_required=require_strength and is_ranked)
    missing = sum(rating is None or rating["overall"] is None for rating in ratings)
    if require_ratings and is_ranked and missing:
        raise ValidationError(
            _("%(missing)s of %(k)s completions are not rated yet (1 to 7)."), params={"missing": missing, "k": k}
        )
    return Ranking(tiers, ratings, _clean_note(payload.get("note", "")), Verdict(verdict), strength)


def _clean_tiers(tiers: Any, alike: list[int], *, is_required: bool) -> list[int]:
    """Tiers without gaps; where they are not required, an incomplete list counts as none."""
    k = len(alike)
    if not isinstance(tiers, list) or len(tiers) != k:
        if is_required:
            raise ValidationError(_("Put all %(k)s completions in a tier."), params={"k": k})
        return []
    if missing := sum(tier is None for tier in tiers):
        if is_required:
            raise ValidationError(
                _("%(missing)s of %(k)s completions are in no tier yet."), params={"missing": missing, "k": k}
            )
        return []
    if any(isinstance(tier, bool) or not isinstance(tier, int) or not 1 <= tier <= k for tier in tiers):
        raise ValidationError(_("A tier is a number from 1 to %(k)s."), params={"k": k})
    if any(tiers[index] != tiers[first] for index, first in enumerate(alike)):
        raise ValidationError(_("Completions with the same text belong in the same tier."))
    # Tiers 2, 2, 5 say the same as 1, 1, 2: store the latter.
    dense = {tier: position for position, tier in enumerate(sorted(set(tiers)), start=1)}
    return [dense[tier] for tier in tiers]


def _clean_strength(strength: Any, tiers: list[int], k: int, *, is_required: bool) -> int | None:
    """By how much the better of two wins. It goes with their tiers: 0 for a tie alone, and none without tiers."""
    if not tiers:
        return None
    is_tie = len(set(tiers)) == 1
    if strength is None:
        if is_required and not is_tie:
            raise ValidationError(_("Say how much better it is: 1 slightly better, 2 better, 3 much better."))
        return 0 if is_required else None
    if k != 2:
        raise ValidationError(
            _("A strength of preference belongs to two completions; these are %(k)s."), params={"k": k}
        )
    if isinstance(strength, bool) or not isinstance(strength, int) or not 0 <= strength < len(STRENGTHS):
        raise ValidationError(_("A strength of preference is a whole number from 0 (tied) to 3 (much better)."))
    if is_tie != (strength == 0):
        raise ValidationError(_("Strength 0 goes with a tie, and only with one."))
    return strength


def _shared(ratings: list[dict[str, Any] | None], alike: list[int]) -> list[dict[str, Any] | None]:
    """What was said of a text, wherever it stands: the first rating among completions that are alike."""
    said: dict[int, dict[str, Any] | None] = {}
    for rating, first in zip(ratings, alike, strict=True):
        said[first] = said.get(first) or rating
    return [rating or said[first] for rating, first in zip(ratings, alike, strict=True)]


def _clean_ratings(ratings: Any, k: int) -> list[dict[str, Any] | None]:
    ratings = [None] * k if ratings is None else ratings
    if not isinstance(ratings, list) or len(ratings) != k:
        raise ValidationError(_("There must be one rating for each completion."))
    return [_clean_rating(rating) for rating in ratings]


def _clean_rating(rating: Any) -> dict[str, Any] | None:
    """A rating of one completion; None where it says nothing at all."""
    if rating is None:
        return None
    if not isinstance(rating, dict):
        raise ValidationError(_("A rating is not readable. Reload the page."))
    overall = rating.get("overall")
    if overall is not None and (isinstance(overall, bool) or overall not in LIKERT):
        raise ValidationError(_("A rating is a whole number from 1 to 7."))
    flags = rating.get("flags", [])
    if not isinstance(flags, list) or any(not isinstance(flag, str) or flag not in FLAGS for flag in flags):
        raise ValidationError(_("A flag is not known. Reload the page."))
    cleaned = {
        "overall": None if overall is None else int(overall),
        "flags": sorted(set(flags), key=list(FLAGS).index),
        "note": _clean_note(rating.get("note", "")),
    }
    return cleaned if any(value not in (None, [], "") for value in cleaned.values()) else None


def _clean_note(note: Any) -> str:
    if not isinstance(note, str) or len(note) > MAX_NOTE_CHARACTERS:
        raise ValidationError(
            _("A note is text of at most %(limit)s characters."), params={"limit": MAX_NOTE_CHARACTERS}
        )
    if not is_storable(note):
        raise ValidationError(_("The text holds characters that cannot be stored (NUL or half a surrogate pair)."))
    return note.strip()
