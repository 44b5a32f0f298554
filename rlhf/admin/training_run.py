"""Training runs: start, watch, cancel, resume."""

import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from rlhf import curves, liveness, parameters
from rlhf.admin.base import OpsAdmin, is_ops, link
from rlhf.admin.snapshot import counts_table
from rlhf.forms import RetrainForm, StartForm
from rlhf.models import DatasetSnapshot, ModelVersion, TrainingRun
from rlhf.snapshots import count_labels

TITLES = {
    "sft": gettext_lazy("Start supervised fine-tuning"),
    "reward": gettext_lazy("Train a reward model"),
    "ppo": gettext_lazy("Start PPO"),
    "dpo": gettext_lazy("Start DPO"),
}
EXPLAINED = {
    "sft": gettext_lazy("The model learns to answer as the demonstrations do."),
    "reward": gettext_lazy("A copy of the model learns to score answers as the rankings order them."),
    "ppo": gettext_lazy("The policy practises on the prompts and is rewarded by the reward model."),
    "dpo": gettext_lazy("The policy learns from the rankings directly, without a reward model: a baseline for PPO."),
    "retrain": gettext_lazy(
        "Freezes what people said so far, trains a reward model on it, then improves the policy with that."
    ),
}


@admin.register(TrainingRun)
class TrainingRunAdmin(OpsAdmin[TrainingRun]):
    list_display = ["__str__", "project", "state_shown", "percent_shown", "started_at", "result_link", "by"]
    list_filter = ["project", "stage", "state"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrainingRun]:
        related = ("project", "snapshot", "policy", "result", "after", "by")
        return super().get_queryset(request).select_related(*related)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in ("snapshot__id__exact", "schedule__id__exact") or super().lookup_allowed(
            lookup,
            value,
            request,  # type: ignore[arg-type]
        )

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("start/<str:stage>/", self.guarded(self.start_view), name=self.named("start")),
            path("retrain/", self.guarded(self.retrain_view), name=self.named("retrain")),
            path("workers/", self.guarded(require_safe(self.workers_view)), name=self.named("workers")),
            path("<int:pk>/live/", self.guarded(require_safe(self.live_view)), name=self.named("live")),
            path("<int:pk>/cancel/", self.guarded(require_POST(self.cancel_view)), name=self.named("cancel")),
            path("<int:pk>/resume/", self.guarded(require_POST(self.resume_view)), name=self.named("resume")),
        ]
        return own + super().get_urls()

    # --- Starting ----------------------------------------------------------------------------------------------------

    def start_view(self, request: HttpRequest, stage: str) -> HttpResponse:
        """The form of one stage; `?like=17` fills in what run 17 was started with."""
        if stage not in TITLES:
            raise Http404
        project = self.chosen_project(request)
        if project is None:
            return self.choose_project_page(request, TITLES[stage])
        form = StartForm(request.POST or None, project=project, stage=stage, initial=self._like(request, stage))
        return self._started(request, form, TITLES[stage], project, stage)

    def retrain_view(self, request: HttpRequest) -> HttpResponse:
        title = _("Retrain")
        project = self.chosen_project(request)
        if project is None:
            return self.choose_project_page(request, title)
        return self._started(request, RetrainForm(request.POST or None, project=project), title, project, "retrain")

    def _started(
        self, request: HttpRequest, form: StartForm | RetrainForm, title: Any, project: Any, what: str
    ) -> HttpResponse:
        if request.method == "POST" and form.is_valid() and (run := form.save(request.user)):
            self.log_addition(request, run, "started")
            messages.success(request, _("“%(run)s” is queued. This page shows how it goes.") % {"run": run})
            return redirect(reverse("admin:rlhf_trainingrun_change", args=[run.pk]))
        return self.form_page(
            request,
            form,
            title,
            _("Start"),
            template="trainingrun/start.html",
            project=project,
            what=what,
            explained=EXPLAINED[what],
            under_way=list(TrainingRun.objects.filter(project=project).unfinished()),
            lacks=_lacks(project, what),
            contents=counts_table(count_labels(project)) if what == "retrain" else "",
        )

    def _like(self, request: HttpRequest, stage: str) -> dict[str, Any]:
        key = request.GET.get("like", "")
        run = TrainingRun.objects.filter(pk=key, stage=stage).first() if key.isdecimal() else None
        if run is None:
            return {}
        _policy, reward_model = run.inputs()
        chosen = {"snapshot": run.snapshot, "policy": run.policy, "reward_model": reward_model, "corpus": run.corpus}
        return chosen | parameters.initial(run.params)

    # --- Watching ----------------------------------------------------------------------------------------------------

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not is_ops(request):
            raise PermissionDenied
        run = self.get_object(request, object_id)
        if run is None or request.method not in ("GET", "HEAD"):
            return super().change_view(request, object_id, form_url, extra_context)
        context = {"original": run, "has_view_permission": True, **self._state(run), **self._inputs(run)}
        return self.page(request, "trainingrun/detail.html", capfirst(str(run)), **context)

    def live_view(self, request: HttpRequest, pk: int) -> JsonResponse:
        """What changed since the page last asked. `?step=` is the newest step it has drawn."""
        run = get_object_or_404(self.get_queryset(request), pk=pk)
        step = curves.last_step(run)
        fresh = str(step) != request.GET.get("step")
        panels = curves.curves(run) if fresh else None
        return JsonResponse(
            {
                "fragments": {
                    name: render_to_string(f"admin/rlhf/trainingrun/_{name}.html", self._state(run), request)
                    for name in ("standing", "verbs", "outcome")
                },
                "finished": not run.is_unfinished,
                "step": step,
                "curves": panels,
                "table": render_to_string("admin/rlhf/trainingrun/_metrics.html", {"rows": curves.table(panels)})
                if panels
                else None,
                "log": run.log_tail(),
            }
        )

    def workers_view(self, request: HttpRequest) -> TemplateResponse:
        """Who answers; asked for by the page after it is there, since it takes a second."""
        return TemplateResponse(request, "admin/rlhf/_workers.html", {"liveness": liveness.look()})

    def _state(self, run: TrainingRun) -> dict[str, Any]:
        return {
            "run": run,
            "waits_for": run.after if run.after and run.after.state != TrainingRun.State.SUCCEEDED else None,
            "is_silent": run.lease_until is not None and run.lease_until < timezone.now(),
            "warnings": run.warnings(),
            "can_be_promoted": run.result is not None and run.result.is_policy and not run.result.archived_at,
        }

    def _inputs(self, run: TrainingRun) -> dict[str, Any]:
        return {
            "inputs": run.inputs(),
            "parameters": parameters.table(run.stage, run.params),
            "spec": json.dumps(run.spec(), ensure_ascii=False, indent=1) if run.spec() else "",
        }

    # --- Verbs -------------------------------------------------------------------------------------------------------

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        run = get_object_or_404(TrainingRun, pk=pk)
        done = _("“%(run)s” will stop. What it learned so far is kept for a resume.")
        return self._verb(request, run, run.request_cancel, done, _("“%(run)s” had already ended."), "cancelled")

    def resume_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        run = get_object_or_404(TrainingRun, pk=pk)
        done = _("“%(run)s” is queued again and goes on from its last checkpoint.")
        refused = _("Only a failed or cancelled run can be resumed.")
        return self._verb(request, run, run.requeue, done, refused, "resumed")

    def _verb(
        self, request: HttpRequest, run: TrainingRun, verb: Callable[[], bool], done: str, refused: str, logged: str
    ) -> HttpResponse:
        try:
            if verb():
                self.log_change(request, run, logged)
                messages.success(request, done % {"run": run})
            else:
                messages.warning(request, refused % {"run": run})
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
        return redirect(reverse("admin:rlhf_trainingrun_change", args=[run.pk]))

    # --- The list ----------------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_shown(self, run: TrainingRun) -> SafeString:
        return render_to_string("admin/rlhf/trainingrun/_state.html", {"run": run})

    @admin.display(description=gettext_lazy("progress"))
    def percent_shown(self, run: TrainingRun) -> str:
        return "–" if run.percent is None else f"{run.percent}%"

    @admin.display(description=gettext_lazy("result"))
    def result_link(self, run: TrainingRun) -> SafeString | str:
        return link(run.result)


def _lacks(project: Any, what: str) -> list[dict[str, str]]:
    """What must be there first: a sentence each, and where to do it."""
    lacks = []
    if not project.policy_name and what == "retrain":
        url = reverse("admin:rlhf_modelversion_changelist")
        lacks.append({"text": _("No policy is promoted in this project yet."), "do": _("Promote one"), "url": url})
    if what != "retrain" and not DatasetSnapshot.objects.filter(project=project).exists():
        url = reverse("admin:rlhf_datasetsnapshot_freeze") + f"?project={project.pk}"
        lacks.append({"text": _("There is no snapshot of this project yet."), "do": _("Freeze one"), "url": url})
    if what == "ppo" and not ModelVersion.objects.active().reward_models().exists():
        url = reverse("admin:rlhf_trainingrun_start", args=["reward"]) + f"?project={project.pk}"
        lacks.append({"text": _("There is no reward model yet."), "do": _("Train one"), "url": url})
    return lacks
