"""Template tags of the ops console."""

from datetime import timedelta
from typing import Any

from django import template
from django.apps import apps
from django.contrib import admin
from django.template import RequestContext
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from rlhf.admin.base import is_ops
from rlhf.dashboard import overviews

register = template.Library()


@register.inclusion_tag("admin/rlhf/_dashboard.html", takes_context=True)
def ops_dashboard(context: RequestContext) -> dict[str, Any]:
    """Where each project stands, for ops; nothing for others."""
    request = context["request"]
    return {"overviews": overviews(request.user) if is_ops(request) else None, "request": request}


@register.filter
def clock(duration: timedelta) -> str:
    """Hours, minutes and seconds, as 1:02:05."""
    return str(timedelta(seconds=int(duration.total_seconds())))


@register.simple_tag(takes_context=True)
def rows(context: RequestContext, count: Any, model: str, **filters: Any) -> SafeString | str:
    """A number that leads to the rows behind it, the filtered list of `app.model`, where the reader may see them."""
    opts = apps.get_model(model)._meta
    shown = admin.site._registry.get(opts.model)
    if shown is None or not shown.has_view_permission(context["request"]):
        return str(count)
    url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    return format_html('<a href="{}?{}">{}</a>', url, urlencode(filters), count)
