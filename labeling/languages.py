"""Languages that prompts are written in; the pages themselves are in English and Korean."""

from collections.abc import Iterable

from django.utils.translation import get_language_info

OFFERED = ["en", "ko", "ja", "zh-hans", "es", "fr", "de", "pt", "ru", "vi", "id", "th", "ar", "hi"]
"""What a project can choose from."""


def language_name(code: str) -> str:
    """The name in the language of the page; the code itself where it has none."""
    try:
        return str(get_language_info(code)["name_translated"])
    except KeyError:
        return code


def language_choices(codes: Iterable[str]) -> list[tuple[str, str]]:
    return [(code, language_name(code)) for code in codes]
