"""One task: the page where a labeler ranks or writes, and what its script sends."""

import re
import uuid
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from labeling import markdown
from labeling.keys import ACTIONS, BOARD, PAIR, RATE, WRITE, keymap, words
from labeling.languages import language_name
from labeling.models import Answer, Demonstration, Draft, Project, Slot, TokenCount
from labeling.models.ahead import claim_ahead, peek
from labeling.models.counting import estimate
from labeling.models.demonstration import MAX_DEMONSTRATION_CHARACTERS
from labeling.rankings import LETTERS, MAX_NOTE_CHARACTERS, preferences
from labeling.roles import judges, labels, person
from labeling.text import is_storable
from labeling.views.desk import task_address, undoable
from labeling.views.json_actions import judges_by_script, read_object

KEPT_AHEAD = 15 * 60
"""Seconds for which a browser may keep the page of the next task: as long as a lease."""


@require_GET
@never_cache
@judges
def task(request: HttpRequest, pk: int) -> HttpResponse:
    """The page of a task at hand. One handed in shows what was said; any other says why it is not to be seen."""
    slot = _own(request).filter(pk=pk).first()
    if slot and slot.state == Slot.State.ANSWERED:
        return redirect(slot.label)
    if not slot:
        # What this browser kept of it, the script of the page looks for itself.
        left = Draft.objects.filter(slot=pk, labeler=person(request)).first()
        context: dict[str, Any] = {"draft": left, "page": {"storageKey": _storage_key(request, pk)}, "section": "desk"}
        return TemplateResponse(request, "labeling/task_gone.html", context, status=404)
    return work_page(request, slot, _page_data(request, slot), undo=undoable(person(request)))


@require_GET
@labels
def task_ahead(request: HttpRequest, pk: int) -> HttpResponse:
    """The page of the task that is likely to come after this one, for the browser to keep until then.

    Nothing is leased or stored. What depends on the lease comes with the answer to handing in (`_on_to_next`), and
    the script of the page puts it in; without that, it goes to the task's own page.
    """
    slot, user = get_object_or_404(_own(request), pk=pk), person(request)
    if slot.state == Slot.State.ANSWERED:  # asked for too late: the browser did not keep it
        now = Slot.objects.filter(project=slot.project_id).held_by(user).order_by("-leased_at").first()
        return redirect(task_address(now, _only(request)) if now else "desk")
    following = peek(slot, user, _only(request))
    if following is None:
        return HttpResponse(status=204)
    page = {"isAhead": True, "taskUrl": reverse("task", args=[following.pk])}
    # Messages are for a page that is seen.
    response = work_page(request, following, page, undo={"url": "", "seconds": 0}, messages=())
    response["X-Task"] = _ahead_name(following)
    patch_cache_control(response, private=True, max_age=KEPT_AHEAD)
    return response


def _ahead_name(slot: Slot) -> str:
    """What the page fetched ahead says: the task, and what else a labeler sees that may change before the lease."""
    return f"{slot.pk}-{slot.instruction_version or 0}"


def work_page(request: HttpRequest, slot: Slot, page: dict[str, Any], **context: Any) -> HttpResponse:
    """The page on which a slot's completions are ranked, or its prompt is answered."""
    user = person(request)
    keys = keymap(user.keys)
    context |= {
        "slot": slot,
        "page": page | _script_data(request, slot),
        "keys": [(keys[action.name], words(action), action.pages) for action in ACTIONS],
        "section": "desk",
    }
    if slot.task_type == Slot.TaskType.DEMONSTRATION:
        context |= {
            "page_kind": WRITE,
            "bases": Answer.objects.best_first(slot.prompt, slot.labeler or user),
            "limit": MAX_DEMONSTRATION_CHARACTERS,
            "language": language_name(slot.prompt.language),
        }
        return TemplateResponse(request, "labeling/task_demonstration.html", context)
    groups = slot.shown_groups
    context |= {
        "groups": groups,
        "flags": slot.project.use_flags,
        "note_limit": MAX_NOTE_CHARACTERS,
    }
    assert slot.completion_set is not None  # rankings_have_a_set
    if slot.completion_set.is_pair:
        context |= {"page_kind": PAIR, "is_pair": True, "preferences": preferences(*LETTERS[:2])}
        return TemplateResponse(request, "labeling/task_pair.html", context)
    context |= {
        "page_kind": RATE,
        "board": BOARD,
        "k": sum(len(group.indices) for group in groups),
        "tiers": range(1, len(groups) + 1),
    }
    return TemplateResponse(request, "labeling/task_ranking.html", context)


def _script_data(request: HttpRequest, slot: Slot) -> dict[str, Any]:
    """What the script of every page on which somebody works needs to know."""
    user = person(request)
    return {
        "tokensUrl": reverse("task_tokens", args=[slot.pk]),
        "previewUrl": reverse("text_preview"),
        "keys": keymap(user.keys),
        "singleKeys": user.single_keys,
        "instructionVersion": slot.instruction_version,
    }


@require_POST
@judges_by_script
def task_draft(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep unfinished work."""
    sent = read_object(request)
    version = sent.get("version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise ValidationError(_("The draft is not readable. Reload the page."))
    slot = get_object_or_404(_own(request), pk=pk)
    draft = slot.save_draft(person(request), sent.get("payload"), version)
    return JsonResponse({"version": draft.version})


@require_POST
@judges_by_script
def task_submit(request: HttpRequest, pk: int) -> HttpResponse:
    """Hand in, and say where to go next."""
    sent = read_object(request)
    try:
        key = uuid.UUID(str(sent.get("key")))
    except ValueError as error:
        raise ValidationError(_("The request is not readable. Reload the page.")) from error
    slot = get_object_or_404(_own(request), pk=pk)
    labels: Any = Answer.objects if slot.task_type == Slot.TaskType.RANKING else Demonstration.objects
    labels.submit(slot, person(request), sent.get("payload"), key)
    return _on_to_next(request, slot, sent.get("ahead"))


@require_POST
@judges_by_script
def task_skip(request: HttpRequest, pk: int) -> HttpResponse:
    """Hand the task back, and say where to go next."""
    slot = get_object_or_404(_own(request), pk=pk)
    sent = read_object(request)
    slot.skip(person(request), str(sent.get("reason") or ""))
    return _on_to_next(request, slot, sent.get("ahead"))


@require_POST
@judges_by_script
def text_preview(request: HttpRequest) -> HttpResponse:
    """Markdown as it will look."""
    return JsonResponse({"html": markdown.render(_text(request), below=3)})


@require_POST
@judges_by_script
def task_tokens(request: HttpRequest, pk: int) -> HttpResponse:
    """How many tokens a text has for the project's policy: exactly, or about, where the sampler has not said it yet."""
    user = person(request)
    seen = Q(labeler=user) | Q(project__in=Project.objects.curated_by(user))
    slot = get_object_or_404(Slot.objects.filter(seen).select_related("project", "prompt"), pk=pk)
    text, policy = _text(request), slot.project.policy_name
    count = TokenCount.objects.ask(policy, text) if policy else None
    about = count if count is not None else estimate(policy, slot.prompt.language, text)
    return JsonResponse({"count": about, "is_exact": count is not None})


def _text(request: HttpRequest) -> str:
    text = read_object(request).get("text")
    if not isinstance(text, str) or not is_storable(text) or len(text) > 4 * MAX_DEMONSTRATION_CHARACTERS:
        raise ValidationError(_("The text cannot be read. Shorten it, or reload the page."))
    return text


@require_POST
@judges_by_script
def task_undo(request: HttpRequest, pk: int) -> HttpResponse:
    """Take back what was handed in a moment ago, and go back to it."""
    slot = get_object_or_404(_own(request), pk=pk)
    slot.take_back(person(request))
    return JsonResponse({"next": reverse("task", args=[slot.pk])})


def _own(request: HttpRequest) -> Any:
    """Tasks that are, or were last, the labeler's. Of others they learn nothing."""
    return Slot.objects.filter(labeler=person(request)).select_related("project", "prompt", "completion_set")


def _on_to_next(request: HttpRequest, slot: Slot, ahead: Any) -> JsonResponse:
    """The next task where there is one, else the desk, which says why there is none; after a decision, the queue.

    `ahead` names what the browser has fetched of it already. Where it becomes the labeler's, `leased` is what is
    missing there.
    """
    if slot.purpose == Slot.Purpose.ADJUDICATION:
        return JsonResponse({"next": reverse("adjudication", args=[slot.project.slug])})
    user, only = person(request), _only(request)
    wanted = re.fullmatch(r"([1-9][0-9]{0,17})-[0-9]+", ahead) if isinstance(ahead, str) else None
    try:
        following = (
            claim_ahead(int(wanted[1]), slot, user, only)
            if wanted
            else Slot.objects.claim_next(slot.project, user, only, after=slot.pk)
        )
    except PermissionDenied:  # no longer a member: what was sent is stored all the same
        following = None
    if following is None:
        return JsonResponse({"next": reverse("desk")})
    answer: dict[str, Any] = {"next": task_address(following, only)}
    if wanted and ahead == _ahead_name(following):
        page = _page_data(request, following) | _script_data(request, following)
        answer["leased"] = {"address": answer["next"], "page": page, "undo": undoable(user)}
    return JsonResponse(answer)


def _only(request: HttpRequest) -> str | None:
    """The one kind of task that is asked for."""
    only = request.GET.get("only")
    return only if only in Slot.TaskType.values else None


def _page_data(request: HttpRequest, slot: Slot) -> dict[str, Any]:
    """What the page's script needs to know."""
    draft, only = slot.draft, _only(request)
    suffix = f"?only={only}" if only else ""
    return {
        "draftUrl": reverse("task_draft", args=[slot.pk]),
        "submitUrl": reverse("task_submit", args=[slot.pk]) + suffix,
        "skipUrl": reverse("task_skip", args=[slot.pk]) + suffix,
        "aheadUrl": reverse("task_ahead", args=[slot.pk]) + suffix,
        "taskUrl": reverse("task", args=[slot.pk]),
        "deskUrl": reverse("desk"),
        "storageKey": _storage_key(request, slot.pk),
        "draft": draft.payload if draft else None,
        "version": draft.version if draft and draft.slot_id == slot.pk else 0,
        "requireRatings": slot.requires_ratings,
    }


def _storage_key(request: HttpRequest, pk: int) -> str:
    """Where the browser keeps unsent work: apart for each person, so that nobody finds another's."""
    return f"draft-{person(request).pk}-{pk}"
