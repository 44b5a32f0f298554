"""What a ranking looks like, the checks it must pass, and the order it is shown in. Pure functions: no ORM."""

import random
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
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


@dataclass(frozen=True)
class Ranking:
    """`tiers[i]` is completion i's tier, 1 the best, without gaps; `ratings[i]` its rating or None."""

    tiers: list[int]
    ratings: list[dict[str, Any] | None]
    note: str


def shown_order(k: int, seed: str) -> list[int]:
    """Indices of `k` completions in the order to show them: shuffled, and the same for the same seed."""
    return random.Random(seed).sample(range(k), k)


def clean_ranking(payload: Any, k: int, *, require_ratings: bool) -> Ranking:
    """A complete ranking of `k` completions, or ValidationError saying what is missing."""
    if not isinstance(payload, dict):
        raise ValidationError(_("The ranking is not readable. Reload the page."))
    tiers = payload.get("tiers")
    if not isinstance(tiers, list) or len(tiers) != k:
        raise ValidationError(_("Put all %(k)s completions in a tier."), params={"k": k})
    missing = sum(tier is None for tier in tiers)
    if missing:
        raise ValidationError(
            _("%(missing)s of %(k)s completions are in no tier yet."), params={"missing": missing, "k": k}
        )
    if any(isinstance(tier, bool) or not isinstance(tier, int) or not 1 <= tier <= k for tier in tiers):
        raise ValidationError(_("A tier is a number from 1 to %(k)s."), params={"k": k})
    # Tiers 2, 2, 5 say the same as 1, 1, 2: store the latter.
    dense = {tier: position for position, tier in enumerate(sorted(set(tiers)), start=1)}
    return Ranking(
        tiers=[dense[tier] for tier in tiers],
        ratings=_clean_ratings(payload.get("ratings"), k, require_ratings),
        note=_clean_note(payload.get("note", "")),
    )


def _clean_ratings(ratings: Any, k: int, required: bool) -> list[dict[str, Any] | None]:
    ratings = [None] * k if ratings is None else ratings
    if not isinstance(ratings, list) or len(ratings) != k:
        raise ValidationError(_("There must be one rating for each completion."))
    cleaned = [_clean_rating(rating) for rating in ratings]
    missing = sum(rating is None or rating["overall"] is None for rating in cleaned)
    if required and missing:
        raise ValidationError(
            _("%(missing)s of %(k)s completions are not rated yet (1 to 7)."), params={"missing": missing, "k": k}
        )
    return cleaned


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
