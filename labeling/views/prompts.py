"""The prompts of a project: found, looked at, written, approved, retired."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Prefetch
from django.forms import BaseFormSet, formset_factory
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from labeling.forms import BulkForm, FilterForm, PromptForm, TurnForm
from labeling.models import Answer, CompletionSet, Project, Prompt, SamplingJob, User
from labeling.roles import curates, person

PAGE = 50
TurnFormSet = formset_factory(TurnForm, extra=0, min_num=1, max_num=60, validate_max=True)


@require_GET
@curates
def prompt_list(request: HttpRequest, slug: str) -> HttpResponse:
    """One page of the prompts that match, newest first. Paged by key, so that page 200 costs what page 1 costs."""
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    form = FilterForm(project, request.GET)
    chosen = form.chosen()
    matching = project.prompts.matching(chosen)
    before, after = _key(request, "before"), _key(request, "after")
    if after is not None:
        page = list(matching.filter(pk__gt=after).order_by("pk")[: PAGE + 1])
        has_newer, has_older = len(page) > PAGE, True
        page = page[:PAGE][::-1]
    else:
        older = matching if before is None else matching.filter(pk__lt=before)
        page = list(older.order_by("-pk")[: PAGE + 1])
        has_newer, has_older = before is not None, len(page) > PAGE
        page = page[:PAGE]
    context = {
        "project": project,
        "form": form,
        "chosen": chosen,
        "query": urlencode(chosen),
        "prompts": page,
        "total": matching.count(),
        "newer": page[0].pk if page and has_newer else None,
        "older": page[-1].pk if page and has_older else None,
        "section": "curate",
        "tab": "prompts",
    }
    return TemplateResponse(request, "labeling/prompt_list.html", context)


@require_http_methods(["GET", "POST"])
@curates
def prompts_change(request: HttpRequest, slug: str) -> HttpResponse:
    """Approve, retire or otherwise change several prompts: those ticked, or all that the list's filters match.

    Nothing changes by GET: who reloads the question whether to change them all comes back to the list.
    """
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    chosen = FilterForm(project, request.GET).chosen()
    back = redirect(f"{reverse('prompt_list', args=[slug])}?{urlencode(chosen)}")
    form = BulkForm(request.POST)
    if request.method == "GET":
        return back
    if not form.is_valid():
        messages.error(request, str(next(iter(form.errors.values()))[0]))
        return back
    action, scope = form.cleaned_data["action"], form.cleaned_data["scope"]
    keys = [int(key) for key in request.POST.getlist("prompt") if key.isdecimal() and len(key) < 19]
    prompts = project.prompts.matching(chosen) if scope == "all" else project.prompts.filter(pk__in=keys[:1000])
    if scope == "all" and "confirmed" not in request.POST:
        context = {"project": project, "form": form, "query": urlencode(chosen), "total": prompts.count()}
        label = dict(form.fields["action"].choices)[action]  # type: ignore[attr-defined]
        context |= {"action": action, "action_label": label, "section": "curate", "tab": "prompts"}
        return TemplateResponse(request, "labeling/prompts_confirm.html", context)
    if scope == "selected" and not keys:
        messages.warning(request, _("Tick some prompts first."))
        return back
    count = _change(prompts, action, person(request), form.cleaned_data["k"])
    messages.success(
        request, ngettext("%(count)s prompt was changed.", "%(count)s prompts were changed.", count) % {"count": count}
    )
    return back


@require_http_methods(["GET", "POST"])
@curates
def prompt_new(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    form = PromptForm(request.POST or None, project=project, initial={"language": project.languages[0]})
    turns = TurnFormSet(request.POST or None, initial=[{"role": "user"}], prefix="turn")
    if "add_turns" in request.POST:
        turns = _with_more_turns(turns)
    elif request.method == "POST" and form.is_valid() and turns.is_valid():
        fields = {**form.cleaned_data, "author": person(request)}
        try:
            prompt = Prompt.objects.add(project, messages_of(turns), **fields)
        except ValidationError as error:
            _show(form, error)
        else:
            return redirect("prompt", prompt.pk)
    context = {"project": project, "form": form, "turns": turns, "section": "curate", "tab": "prompts"}
    return TemplateResponse(request, "labeling/prompt_new.html", context)


@require_http_methods(["GET", "POST"])
@curates
def prompt_edit(request: HttpRequest, pk: int) -> HttpResponse:
    prompt = _prompt(request, pk)
    if not prompt.is_editable:
        messages.warning(
            request, _("This prompt was approved and can no longer be changed. Retire it and add it anew.")
        )
        return redirect("prompt", pk)
    form = PromptForm(request.POST or None, instance=prompt, project=prompt.project)
    turns = TurnFormSet(request.POST or None, initial=prompt.messages, prefix="turn")
    if "add_turns" in request.POST:
        turns = _with_more_turns(turns)
    elif request.method == "POST" and form.is_valid() and turns.is_valid():
        try:
            prompt.rewrite(messages_of(turns), **form.cleaned_data)
        except ValidationError as error:
            _show(form, error)
        else:
            messages.success(request, _("Saved."))
            return redirect("prompt", pk)
    context = {"project": prompt.project, "prompt": prompt, "form": form, "turns": turns}
    return TemplateResponse(request, "labeling/prompt_edit.html", context | {"section": "curate", "tab": "prompts"})


@require_GET
@curates
def prompt(request: HttpRequest, pk: int) -> HttpResponse:
    prompt = _prompt(request, pk)
    family = prompt.project.prompts.filter(family=prompt.family).exclude(pk=pk).exclude(state=Prompt.State.RETIRED)
    relatives = {row.language: row for row in family}
    begun = {row.language: row for row in prompt.translations.select_related("target", "source")}
    context = {
        "project": prompt.project,
        "prompt": prompt,
        "translations": [
            (code, begun.get(code), relatives.get(code)) for code in prompt.project.languages if code != prompt.language
        ],
        "origin": getattr(prompt, "translated_from", None),
        "demonstrations": prompt.demonstrations.select_related("author"),
        "section": "curate",
        "tab": "prompts",
    }
    return TemplateResponse(request, "labeling/prompt.html", context | _sets(prompt))


@require_GET
@curates
def prompt_sets(request: HttpRequest, pk: int) -> HttpResponse:
    """The completion sets of a prompt: asked for again by its page while one is on its way."""
    prompt = _prompt(request, pk)
    return TemplateResponse(request, "labeling/_prompt_sets.html", {"prompt": prompt} | _sets(prompt))


@require_POST
@curates
def prompt_approve(request: HttpRequest, pk: int) -> HttpResponse:
    return _act(request, pk, lambda prompt: prompt.approve(person(request)), _("Approved."))


@require_POST
@curates
def prompt_retire(request: HttpRequest, pk: int) -> HttpResponse:
    return _act(request, pk, lambda prompt: prompt.retire(), _("Retired. What was said about it stays."))


@require_POST
@curates
def prompt_restore(request: HttpRequest, pk: int) -> HttpResponse:
    restored = _("It is a draft again. Approve it when it is ready.")
    return _act(request, pk, lambda prompt: Prompt.objects.filter(pk=prompt.pk).restore(), restored)


@require_POST
@curates
def prompt_sample(request: HttpRequest, pk: int) -> HttpResponse:
    return _act(request, pk, lambda prompt: prompt.sample_again(), _("A new set is on its way."))


@require_POST
@curates
def prompt_k(request: HttpRequest, pk: int) -> HttpResponse:
    """How many completions this prompt asks for, from its next set on."""
    return _act(request, pk, lambda prompt: prompt.choose_k(request.POST.get("k", "")), _("Saved for the next set."))


def messages_of(turns: "BaseFormSet[Any]") -> list[dict[str, str]]:
    """What was written; turns left empty at the end are left out, so that one can change one's mind."""
    written = [{"role": turn.cleaned_data["role"], "content": turn.cleaned_data["content"]} for turn in turns]
    while len(written) > 1 and not written[-1]["content"].strip():
        written.pop()
    return written


def _prompt(request: HttpRequest, pk: int) -> Prompt:
    return get_object_or_404(
        Prompt.objects.curated_by(request.user).select_related("project", "author", "approved_by"), pk=pk
    )


def _act(request: HttpRequest, pk: int, verb: Callable[[Prompt], Any], done: str) -> HttpResponse:
    """Do one thing to a prompt and go back to it, saying how it went."""
    prompt = _prompt(request, pk)
    try:
        verb(prompt)
    except ValidationError as error:
        messages.error(request, error.messages[0])
    else:
        messages.success(request, done)
    return redirect("prompt", pk)


def _sets(prompt: Prompt) -> dict[str, Any]:
    rankings = Prefetch("answers", Answer.objects.select_related("labeler", "current"))
    sets = prompt.completion_sets.select_related("job").prefetch_related("completions", rankings)
    rows = list(sets)
    in_work = any(row.state == CompletionSet.State.SAMPLING and row.job.is_unfinished for row in rows)
    return {
        "sets": rows,
        "in_work": in_work,
        "is_stalled": in_work and SamplingJob.objects.is_stalled(),
        "speaks": prompt.project.speaks(prompt.language),
    }


def _change(prompts: Any, action: str, by: User, k: int | None) -> int:
    if action == "approve":
        return int(prompts.approve(by))
    if action == "set_k":
        return int(prompts.update(k=k))
    return int(prompts.retire() if action == "retire" else prompts.restore())


def _key(request: HttpRequest, name: str) -> int | None:
    value = request.GET.get(name, "")
    return int(value) if value.isdecimal() and len(value) < 19 else None


def _with_more_turns(turns: "BaseFormSet[Any]") -> "BaseFormSet[Any]":
    """The same turns, kept as typed, and an answer and a question more."""
    typed = [{"role": turn["role"].value() or "user", "content": turn["content"].value() or ""} for turn in turns]
    return TurnFormSet(initial=[*typed, {"role": "assistant"}, {"role": "user"}], prefix="turn")


def _show(form: PromptForm, error: ValidationError) -> None:
    """Put what the model found at the form: at its field where there is one, else above all."""
    by_field = error.message_dict if hasattr(error, "error_dict") else {None: error.messages}
    for name, texts in by_field.items():
        for text in texts:
            form.add_error(name if name in form.fields else None, text)
