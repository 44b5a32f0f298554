"""The pages are complete in Korean: every text of the code is in the catalogue, translated, with its placeholders."""

import gettext
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.utils import translation

from labeling.rankings import FLAGS

CATALOGUE = Path(settings.BASE_DIR) / "webapp" / "locale" / "ko" / "LC_MESSAGES"
DOMAINS = ["django", "djangojs"]
PLACEHOLDER = re.compile(r"%\(\w+\)[\d.]*[sdf]|%s|<[^>]+>")
PACKAGES = ["labeling", "modelzoo", "rlhf", "webapp", "worker"]


def entries(path: Path) -> dict[str, tuple[str, str, bool]]:
    """msgid -> (plural msgid or "", translation, is fuzzy)."""
    found = {}
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        fields: dict[str, str] = {}
        for key, text in re.findall(r'^(?:(\w+(?:\[\d\])?) )?"(.*)"$', block, flags=re.M):
            name = key or list(fields)[-1]
            fields[name] = fields.get(name, "") + text.encode().decode("unicode_escape").encode("latin-1").decode()
        if fields.get("msgid"):
            translated = fields.get("msgstr", fields.get("msgstr[0]", ""))
            is_fuzzy = bool(re.search(r"^#,.*fuzzy", block, flags=re.M))
            found[fields["msgid"]] = (fields.get("msgid_plural", ""), translated, is_fuzzy)
    return found


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_text_of_the_code_is_in_the_catalogue(
    domain: str, settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    if not shutil.which("xgettext"):
        pytest.skip("GNU gettext is not installed")
    for package in PACKAGES:  # a copy: the command writes beside what it reads
        skipped = shutil.ignore_patterns("locale", "tests", "vendor", "__pycache__")
        shutil.copytree(settings.BASE_DIR / package, tmp_path / package, ignore=skipped)
    settings.LOCALE_PATHS = [str(tmp_path / "locale")]
    (tmp_path / "locale").mkdir()
    monkeypatch.chdir(tmp_path)
    call_command("makemessages", locale=["ko"], domain=domain, no_location=True, verbosity=0)
    extracted = entries(tmp_path / "locale" / "ko" / "LC_MESSAGES" / f"{domain}.po")
    assert extracted
    assert sorted(set(extracted) - set(entries(CATALOGUE / f"{domain}.po"))) == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_text_is_left_untranslated_or_unsure(domain: str) -> None:
    found = entries(CATALOGUE / f"{domain}.po")
    assert [text for text, (_plural, translated, is_fuzzy) in found.items() if not translated or is_fuzzy] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_translations_keep_placeholders_and_markup(domain: str) -> None:
    wrong = [
        text
        for text, (plural, translated, _is_fuzzy) in entries(CATALOGUE / f"{domain}.po").items()
        if set(PLACEHOLDER.findall(plural or text)) != set(PLACEHOLDER.findall(translated))
    ]
    assert wrong == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_compiled_catalogue_is_the_written_one(domain: str) -> None:
    with (CATALOGUE / f"{domain}.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for text, (plural, translated, _is_fuzzy) in entries(CATALOGUE / f"{domain}.po").items():
        assert (compiled.ngettext(text, plural, 1) if plural else compiled.gettext(text)) == translated


def test_flags_are_called_as_in_the_korean_instructions() -> None:
    instructions = (Path(settings.BASE_DIR) / "labeling" / "starter" / "instructions.ko.md").read_text(encoding="utf-8")
    with translation.override("en"):
        english = {key: str(label) for key, label in FLAGS.items()}
    with translation.override("ko"):
        for key, label in FLAGS.items():
            assert f"**{label}** ({english[key]})" in instructions, key
