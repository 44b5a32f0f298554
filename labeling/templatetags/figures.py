"""Shares as people read them, and as places on a scale from 0 to 100."""

from django import template
from django.utils.formats import number_format

register = template.Library()


@register.filter
def percent(share: float | None) -> str:
    return "–" if share is None else f"{number_format(round(100 * share, 1), 1)}%"


@register.filter
def place(share: float) -> str:
    """A coordinate of an SVG: with a point, whatever the language."""
    return f"{100 * share:.2f}"


@register.filter
def number(value: float | None) -> str:
    return "–" if value is None else number_format(round(value, 2), 2)


@register.filter
def grouped(count: int) -> str:
    return number_format(count, force_grouping=True)
