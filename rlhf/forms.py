"""Forms of the ops console. Each ends in one verb of the models, whose refusals appear beside the fields."""

import uuid
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from labeling import export
from rlhf import parameters
from rlhf.models import DatasetSnapshot, ModelVersion, Promotion, Schedule, TrainingRun
from rlhf.models.training_run import corpora

Fieldsets = list[tuple[Any, dict[str, Any]]]


class SnapshotChoice(forms.ModelChoiceField[DatasetSnapshot]):
    def label_from_instance(self, snapshot: Any) -> str:
        rankings, demonstrations = snapshot.total("rankings"), snapshot.total("demonstrations")
        parts = [
            f"#{snapshot.pk}",
            date_format(localtime(snapshot.created_at), "DATETIME_FORMAT"),
            ngettext("%(count)s ranking", "%(count)s rankings", rankings) % {"count": rankings},
            ngettext("%(count)s demonstration", "%(count)s demonstrations", demonstrations) % {"count": demonstrations},
        ]
        return " · ".join(parts)


class VersionChoice(forms.ModelChoiceField[ModelVersion]):
    current = ""

    def label_from_instance(self, version: Any) -> str:
        parts = [version.name, str(version.get_kind_display()), ", ".join(version.languages)]
        if version.name == self.current:
            parts.append(gettext("current policy"))
        return " · ".join(part for part in parts if part)


class OnceForm(forms.Form):
    """Carries a key made with the page, so that sending the form twice does its work once."""

    key = forms.UUIDField(widget=forms.HiddenInput)
    fieldsets: Fieldsets = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["key"].initial = uuid.uuid4

    def refused(self, error: ValidationError) -> None:
        """Show what a model's verb refused beside the field it names, or above the form."""
        for field, messages in (error.message_dict if hasattr(error, "error_dict") else {"": error.messages}).items():
            self.add_error(field if field in self.fields else None, messages)


class FreezeForm(OnceForm):
    def save(self, project: Any, by: Any) -> DatasetSnapshot | None:
        try:
            return DatasetSnapshot.objects.freeze(project, by, key=self.cleaned_data["key"])
        except ValidationError as error:
            self.refused(error)
            return None


class StartForm(OnceForm):
    """One run of one stage."""

    snapshot = SnapshotChoice(queryset=DatasetSnapshot.objects.none(), label=_("Dataset snapshot"), empty_label=None)
    policy = VersionChoice(queryset=ModelVersion.objects.none(), label=_("Model to start from"))
    reward_model = VersionChoice(queryset=ModelVersion.objects.none(), label=_("Reward model"))
    corpus = forms.ChoiceField(label=_("Pretraining text"), required=False)

    def __init__(self, *args: Any, project: Any, stage: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project, self.stage = project, stage
        snapshots = DatasetSnapshot.objects.filter(project=project).select_related("project")
        self.fields["snapshot"].queryset = snapshots  # type: ignore[attr-defined]
        self.initial.setdefault("snapshot", snapshots.first())
        _offer(self, "policy", ModelVersion.objects.active().policies(), project)
        if stage == TrainingRun.Stage.PPO:
            _offer_reward_models(self, project)
            self._offer_corpora()
        else:
            del self.fields["reward_model"], self.fields["corpus"]
        self.fields |= parameters.fields(stage)
        models = ["snapshot", "policy", "reward_model", "corpus"]
        self.fieldsets = [
            (None, {"fields": [name for name in models if name in self.fields]}),
            *parameters.fieldsets(stage, _("Parameters")),
        ]

    def _offer_corpora(self) -> None:
        if not (names := corpora()):
            del self.fields["corpus"]
            return
        field = self.fields["corpus"]
        field.choices = [("", "—"), *((name, name) for name in names)]  # type: ignore[attr-defined]
        field.help_text = TrainingRun._meta.get_field("corpus").help_text

    def clean(self) -> None:
        self.overrides = parameters.clean(self, self.stage)

    def save(self, by: Any) -> TrainingRun | None:
        chosen = {name: self.cleaned_data[name] for name in ("key", "snapshot", "policy")}
        chosen["reward_model"] = self.cleaned_data.get("reward_model")
        chosen["corpus"] = self.cleaned_data.get("corpus", "")
        try:
            return TrainingRun.objects.start(
                project=self.project, stage=self.stage, params=self.overrides, by=by, **chosen
            )
        except ValidationError as error:
            self.refused(error)
            return None


class RetrainForm(OnceForm):
    """Snapshot, reward model and PPO in a row."""

    policy = VersionChoice(queryset=ModelVersion.objects.none(), label=_("Policy to improve"))

    def __init__(self, *args: Any, project: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        _offer(self, "policy", ModelVersion.objects.active().policies(), project)
        self.fields |= _parameters_of_both_stages()
        self.fieldsets = [(None, {"fields": ["policy"]}), *_fieldsets_of_both_stages()]

    def clean(self) -> None:
        self.reward_params = parameters.clean(self, "reward", "reward-")
        self.ppo_params = parameters.clean(self, "ppo", "ppo-")

    def save(self, by: Any) -> TrainingRun | None:
        """The first of the runs."""
        try:
            reward, _ppo = TrainingRun.objects.retrain(
                self.project,
                by,
                policy=self.cleaned_data["policy"],
                reward_params=self.reward_params,
                ppo_params=self.ppo_params,
                key=self.cleaned_data["key"],
            )
        except ValidationError as error:
            self.refused(error)
            return None
        return reward


class PromoteForm(forms.Form):
    project = forms.ModelChoiceField(queryset=Promotion.objects.none(), label=_("Project"))
    reason = forms.CharField(
        label=_("Reason"),
        max_length=300,
        required=False,
        help_text=_("For those who read the history later."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    fieldsets: Fieldsets = [(None, {"fields": ["project", "reason"]})]

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project"].queryset = export.projects(user)  # type: ignore[attr-defined]

    def save(self, version: ModelVersion, by: Any) -> Promotion | None:
        project, reason = self.cleaned_data["project"], self.cleaned_data["reason"]
        try:
            return Promotion.objects.promote(project, version, by, reason)
        except ValidationError as error:
            self.add_error(None, error)
            return None


class ScheduleForm(forms.ModelForm[Schedule]):
    class Meta:
        model = Schedule
        fields = ["project", "every_rankings", "cron", "enabled"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields |= _parameters_of_both_stages()
        self.initial.update(parameters.initial(self.instance.reward_params, "reward-"))
        self.initial.update(parameters.initial(self.instance.ppo_params, "ppo-"))

    @staticmethod
    def fieldsets() -> Fieldsets:
        return [(None, {"fields": ScheduleForm.Meta.fields}), *_fieldsets_of_both_stages()]

    def clean(self) -> None:
        super().clean()
        reward_params = parameters.clean(self, "reward", "reward-")
        ppo_params = parameters.clean(self, "ppo", "ppo-")
        if not self.errors:
            self.instance.reward_params, self.instance.ppo_params = reward_params, ppo_params


def _parameters_of_both_stages() -> dict[str, forms.Field]:
    return parameters.fields("reward", "reward-") | parameters.fields("ppo", "ppo-")


def _fieldsets_of_both_stages() -> Fieldsets:
    reward = parameters.fieldsets("reward", _("Reward model"), "reward-")
    return [*reward, *parameters.fieldsets("ppo", _("PPO"), "ppo-")]


def _offer(form: forms.Form, name: str, versions: Any, project: Any) -> None:
    """Let `form` choose among policies, beginning with the project's own."""
    field = form.fields[name]
    assert isinstance(field, VersionChoice)
    field.queryset, field.current = versions, project.policy_name
    form.initial.setdefault(name, versions.filter(name=project.policy_name).first())


def _offer_reward_models(form: forms.Form, project: Any) -> None:
    """Let `form` choose among reward models, beginning with the project's newest."""
    field, versions = form.fields["reward_model"], ModelVersion.objects.active().reward_models()
    assert isinstance(field, VersionChoice)
    field.queryset = versions
    form.initial.setdefault("reward_model", versions.filter(run__project=project).first())
