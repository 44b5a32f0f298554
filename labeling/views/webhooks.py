"""Webhooks of a project: where what is told, the secret once, and how the deliveries went."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from labeling.forms import WebhookForm
from labeling.models import Delivery, Project, Webhook
from labeling.models.webhook import TEST
from labeling.roles import curates, person

SHOWN = 50


@require_http_methods(["GET", "POST"])
@never_cache
@curates
def webhook_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The project's webhooks, and the form that adds one."""
    project = get_object_or_404(Project.objects.curated_by(request.user), slug=slug)
    new = Webhook(project=project, by=person(request))
    form = WebhookForm(request.POST or None, instance=new)
    if request.method == "POST" and form.is_valid():
        made = form.save()
        return _page(request, made, new_secret=made.secret)
    webhooks = project.webhooks.all()
    context = {"project": project, "form": form, "webhooks": webhooks, "section": "curate", "tab": "webhooks"}
    return TemplateResponse(request, "labeling/webhook_list.html", context)


@require_http_methods(["GET", "POST"])
@curates
def webhook(request: HttpRequest, pk: int) -> HttpResponse:
    found = _webhook(request, pk)
    form = WebhookForm(request.POST or None, instance=found)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        return redirect("webhook", pk)
    return _page(request, found, form=form)


@require_GET
@curates
def webhook_deliveries(request: HttpRequest, pk: int) -> HttpResponse:
    """The list alone: asked for again and again while something is on its way."""
    found = _webhook(request, pk)
    return TemplateResponse(request, "labeling/_webhook_deliveries.html", {"webhook": found, **_deliveries(found)})


@require_POST
@never_cache
@curates
def webhook_secret(request: HttpRequest, pk: int) -> HttpResponse:
    """A new secret, shown this once."""
    found = _webhook(request, pk)
    found.rotate()
    return _page(request, found, new_secret=found.secret)


@require_POST
@curates
def webhook_test(request: HttpRequest, pk: int) -> HttpResponse:
    _webhook(request, pk).deliver(TEST, {})
    messages.success(request, _("A test is on its way. It appears below."))
    return redirect("webhook", pk)


@require_POST
@curates
def webhook_switch(request: HttpRequest, pk: int) -> HttpResponse:
    _webhook(request, pk).switch(on=request.POST.get("on") == "1")
    return redirect("webhook", pk)


@require_POST
@curates
def webhook_delete(request: HttpRequest, pk: int) -> HttpResponse:
    found = _webhook(request, pk)
    slug = found.project.slug
    found.delete()
    messages.success(request, _("The webhook is gone, with its deliveries."))
    return redirect("webhook_list", slug)


@require_POST
@curates
def delivery_redeliver(request: HttpRequest, pk: int) -> HttpResponse:
    seen = Delivery.objects.filter(webhook__in=Webhook.objects.curated_by(request.user))
    delivery = get_object_or_404(seen.select_related("webhook"), pk=pk)
    if not delivery.webhook.is_active and delivery.event != TEST:
        messages.warning(request, _("Switch the webhook on first."))
    else:
        delivery.redeliver()
    return redirect("webhook", delivery.webhook_id)


def _webhook(request: HttpRequest, pk: int) -> Webhook:
    return get_object_or_404(Webhook.objects.curated_by(request.user).select_related("project"), pk=pk)


def _deliveries(found: Webhook) -> dict[str, Any]:
    rows = list(found.deliveries.all()[:SHOWN])
    return {"deliveries": rows, "is_busy": any(row.is_unfinished and not row.error for row in rows)}


def _page(request: HttpRequest, found: Webhook, **given: Any) -> TemplateResponse:
    context = {
        "project": found.project,
        "webhook": found,
        "form": WebhookForm(instance=found),
        "section": "curate",
        "tab": "webhooks",
        **_deliveries(found),
    }
    return TemplateResponse(request, "labeling/webhook.html", context | given)
