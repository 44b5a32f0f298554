"""Names of languages in templates."""

from collections.abc import Iterable

from django import template

from labeling.languages import language_name

register = template.Library()
register.filter(language_name)


@register.filter
def language_names(codes: Iterable[str]) -> str:
    return ", ".join(language_name(code) for code in codes)
