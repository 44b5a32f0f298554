"""Translating side by side: the source on the left, the text in progress on the right."""

import re
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from labeling.models import Prompt, StaleTranslation, Translation
from labeling.roles import curates, person

NUMBERS = re.compile(r"\d+(?:[.,:]\d+)*|\{[^{}]*\}|https?://\S+")


@require_http_methods(["GET", "POST"])
@curates
def translation(request: HttpRequest, pk: int, language: str) -> HttpResponse:
    """The page; a POST finishes the translation: a prompt of its own, in review."""
    source = _source(request, pk)
    try:
        work = Translation.objects.look_up(source, language)
    except ValidationError as error:
        messages.error(request, error.messages[0])
        return redirect("prompt", pk)
    contents, problem = [text for _turn, text in work.pairs()], ""
    if request.method == "POST":
        contents = request.POST.getlist("content")
        try:
            work = Translation.objects.begin(source, language, person(request))
            target = work.finish(contents, person(request), _version(request))
        except StaleTranslation:
            problem = _stale_words(work)
        except ValidationError as error:
            problem = error.messages[0]
        else:
            messages.success(request, _("The translation is in review. Look at it once more, then approve it."))
            return redirect("prompt", target.pk)
    context = {
        "project": source.project,
        "source": source,
        "translation": work,
        "version": work.version,
        "language": language,
        "rows": _rows(source, contents),
        "problem": problem,
        "section": "curate",
        "tab": "prompts",
    }
    return TemplateResponse(request, "labeling/translation.html", context)


@require_POST
@curates
def translation_draft(request: HttpRequest, pk: int, language: str) -> HttpResponse:
    """Save the text in progress; answers with the line below the form that says so."""
    source = _source(request, pk)
    contents, version, problem = request.POST.getlist("content"), _version(request), ""
    try:
        work = Translation.objects.begin(source, language, person(request))
    except ValidationError as error:
        raise Http404 from error
    try:
        work.save_draft(contents, person(request), version)
        version = work.version
    except StaleTranslation:
        problem = _stale_words(work)
    except ValidationError as error:
        problem = error.messages[0]
    context = {"version": version, "translation": work, "problem": problem, "rows": _rows(source, contents)}
    return TemplateResponse(request, "labeling/_translation_status.html", context)


def lost_details(source: str, text: str) -> list[str]:
    """Numbers, placeholders and addresses of `source` that `text` lacks: worth a second look, often right."""
    found = list(dict.fromkeys(NUMBERS.findall(source)))
    return [detail for detail in found if detail not in text] if text.strip() else []


def _source(request: HttpRequest, pk: int) -> Prompt:
    return get_object_or_404(Prompt.objects.curated_by(request.user).select_related("project"), pk=pk)


def _version(request: HttpRequest) -> int:
    value = request.POST.get("version", "")
    return int(value) if value.isdecimal() and len(value) < 10 else -1


def _stale_words(work: Translation) -> str:
    return _("%(who)s saved this translation meanwhile. Copy your text, then reload the page.") % {
        "who": work.translator
    }


def _rows(source: Prompt, contents: list[str]) -> list[dict[str, Any]]:
    texts = [*contents, *[""] * len(source.messages)]
    return [
        {"turn": turn, "text": text, "lost": lost_details(turn["content"], text)}
        for turn, text in zip(source.messages, texts, strict=False)
    ]
