"""The parts of a completion's card that are alike for every completion with its letter: rendered once."""

from functools import lru_cache

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from labeling.rankings import FLAGS, LIKERT, MAX_NOTE_CHARACTERS

register = template.Library()


@register.simple_tag
def rating_form(letter: str, with_flags: bool, is_pair: bool = False) -> SafeString:
    """Marks, flags and a note."""
    return _rating_form(letter, bool(with_flags), is_pair, get_language() or "")


@register.simple_tag
def moves(letter: str, tiers: range) -> SafeString:
    """The buttons that send a card to a tier."""
    return _moves(letter, len(tiers), get_language() or "")


# At most 9 letters, 9 numbers of tiers, and a few languages: all of it is kept.
@lru_cache(maxsize=256)
def _rating_form(letter: str, with_flags: bool, is_pair: bool, language: str) -> SafeString:
    context = {
        "letter": letter,
        "is_pair": is_pair,
        "marks": LIKERT,
        "flags": FLAGS.items() if with_flags else (),
        "note_limit": MAX_NOTE_CHARACTERS,
    }
    return render_to_string("labeling/_rating_form.html", context)


@lru_cache(maxsize=256)
def _moves(letter: str, tiers: int, language: str) -> SafeString:
    return render_to_string("labeling/_moves.html", {"letter": letter, "tiers": range(1, tiers + 1)})
