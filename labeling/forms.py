"""Forms of the curator's pages: what may be asked of a project, a prompt and an import."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from labeling.importing import ROLES
from labeling.languages import OFFERED, language_choices
from labeling.models import (
    ComparisonImport,
    Export,
    Import,
    InstructionVersion,
    Participation,
    Project,
    Prompt,
    Role,
    User,
    Webhook,
)
from labeling.models.exporting import CHOICES
from labeling.models.project import MAX_K, MIN_K, SETTINGS
from labeling.models.prompt import clean_tags
from labeling.models.webhook import EVENTS


class TagsField(forms.CharField):
    """Tags in one line, with commas between them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(label=_("tags"), required=False, help_text=_("With commas between them."), **options)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return clean_tags((super().clean(value) or "").split(","))


class ProjectForm(forms.ModelForm):  # type: ignore[type-arg]
    languages = forms.MultipleChoiceField(label=_("languages"), widget=forms.CheckboxSelectMultiple)
    members = forms.ModelMultipleChoiceField(
        label=_("members"),
        queryset=User.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("Labelers get tasks of this project, curators may change it."),
    )

    class Meta:
        model = Project
        fields = [*SETTINGS, "members"]

    def __init__(self, *args: Any, by: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by = by
        offered = [*OFFERED, *(code for code in self.instance.languages if code not in OFFERED)]
        self.fields["languages"].choices = language_choices(offered)  # type: ignore[attr-defined]
        people = User.objects.filter(is_active=True, groups__name__in=(Role.LABELER, Role.CURATOR)).distinct()
        self.fields["members"].queryset = people.order_by("username")  # type: ignore[attr-defined]
        self.fields["k"].widget.attrs.update(min=MIN_K, max=MAX_K)

    def clean_languages(self) -> list[str]:
        chosen: list[str] = self.cleaned_data["languages"]
        if self.instance.pk:
            used = set(self.instance.prompts.order_by().values_list("language", flat=True).distinct())
            if gone := sorted(used - set(chosen)):
                names = ", ".join(name for _code, name in language_choices(gone))
                raise ValidationError(_("There are prompts in %(names)s. The language stays."), params={"names": names})
        return chosen

    def clean_members(self) -> Any:
        members = self.cleaned_data["members"]
        if not self.by.is_superuser and self.by not in members:
            raise ValidationError(_("You would lock yourself out. Another curator of the project can take you off."))
        return members

    def start(self) -> Project:
        members = self.cleaned_data.pop("members")
        project = Project.objects.start(self.by, **self.cleaned_data)
        project.members.add(*members)
        return project

    def reconfigure(self) -> None:
        self.instance.reconfigure()
        self.instance.members.set(self.cleaned_data["members"])


class ParticipationForm(forms.ModelForm):  # type: ignore[type-arg]
    """What one labeler is given in a project."""

    languages = forms.MultipleChoiceField(
        label=_("languages"),
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("Only tasks in these. None ticked: all languages."),
    )
    tags = TagsField()
    screening = forms.ChoiceField(
        label=_("screening"),
        required=False,
        choices=Participation.Screening.choices,
        help_text=_("Pass them, fail them, let them in without it, or have them go through what is new in it."),
    )

    class Meta:
        model = Participation
        fields = ["languages", "tags", "screening"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["languages"].choices = language_choices(self.instance.project.languages)  # type: ignore[attr-defined]
        self.fields["tags"].help_text = _("With commas between them: only prompts with one of these. Empty: all.")


class InstructionsForm(forms.Form):
    """One text for each language of the project. Remembers which version it began from."""

    base = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, project: Project, latest: InstructionVersion | None, data: Any = None) -> None:
        bodies = latest.bodies if latest else {}
        self.number = latest.number if latest else 0
        self.codes = project.languages
        super().__init__(
            data, initial={"base": self.number, **{f"body-{code}": bodies.get(code, "") for code in self.codes}}
        )
        for code, name in language_choices(project.languages):
            area = forms.Textarea(attrs={"rows": 22, "lang": code})
            self.fields[f"body-{code}"] = forms.CharField(label=name, widget=area, required=False, max_length=50_000)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not any(self.bodies().values()):
            raise ValidationError(_("Write the instructions in at least one language."))
        if cleaned.get("base") != self.number:
            raise ValidationError(
                _("Version %(number)s was published meanwhile. Copy what you wrote, then reload the page."),
                params={"number": self.number},
            )
        return cleaned

    def bodies(self) -> dict[str, str]:
        texts = {code: self.cleaned_data.get(f"body-{code}", "") for code in self.codes}
        return {code: text for code, text in texts.items() if text}


class PromptForm(forms.ModelForm):  # type: ignore[type-arg]
    language = forms.ChoiceField(label=_("language"))
    tags = TagsField()

    class Meta:
        model = Prompt
        fields = ["language", "tags", "source", "licence", "k"]

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["language"].choices = language_choices(project.languages)  # type: ignore[attr-defined]
        self.fields["k"].widget.attrs.update(min=MIN_K, max=MAX_K, placeholder=project.k)

    def _post_clean(self) -> None:
        """The model checks itself when it is stored, together with its messages."""


class TurnForm(forms.Form):
    role = forms.ChoiceField(
        label=_("who speaks"), choices=[("user", _("Person")), ("assistant", _("Assistant")), ("system", _("System"))]
    )
    content = forms.CharField(label=_("message"), widget=forms.Textarea(attrs={"rows": 5}), required=False)


class FilterForm(forms.Form):
    """Which prompts of a project to list. Everything is optional; what is not understood is left out."""

    q = forms.CharField(label=_("text"), required=False, max_length=200)
    state = forms.ChoiceField(label=_("state"), required=False)
    language = forms.ChoiceField(label=_("language"), required=False)
    split = forms.ChoiceField(label=_("part"), required=False)
    tag = forms.ChoiceField(label=_("tag"), required=False)
    source = forms.ChoiceField(label=_("source"), required=False)
    completions = forms.ChoiceField(label=_("completions"), required=False)
    translation = forms.ChoiceField(label=_("translation"), required=False)

    def __init__(self, project: Project, data: Any) -> None:
        super().__init__(data)
        everything = [("", _("all"))]
        languages = language_choices(project.languages)
        tags, sources = project.prompts.all().tags_and_sources()
        choices: dict[str, list[tuple[str, Any]]] = {
            "state": list(Prompt.State.choices),
            "language": list(languages),
            "split": list(Prompt.Split.choices),
            "tag": [(tag, tag) for tag in tags],
            "source": [(source, source) for source in sources],
            "completions": [("in_work", _("being sampled")), ("sampled", _("ready")), ("failed", _("failed"))],
            "translation": [
                *(
                    (f"missing-{code}", _("to translate: %(language)s") % {"language": name})
                    for code, name in languages
                ),
                ("draft", _("unfinished")),
                ("stale", _("out of date")),
            ],
        }
        for name, offered in choices.items():
            self.fields[name].choices = everything + offered  # type: ignore[attr-defined]

    def chosen(self) -> dict[str, str]:
        """Filters that are set and make sense, by name."""
        self.is_valid()
        return {name: value for name, value in self.cleaned_data.items() if value}


class BulkForm(forms.Form):
    """What to do with several prompts at once."""

    action = forms.ChoiceField(
        choices=[
            ("approve", _("approve")),
            ("retire", _("retire")),
            ("restore", _("make retired ones drafts again")),
            ("set_k", _("set the number of completions")),
        ]
    )
    scope = forms.ChoiceField(choices=[("selected", ""), ("all", "")])
    k = forms.IntegerField(
        min_value=MIN_K,
        max_value=MAX_K,
        required=False,
        error_messages={
            "min_value": _("The number of completions is from 4 to 9."),
            "max_value": _("The number of completions is from 4 to 9."),
            "invalid": _("The number of completions is from 4 to 9."),
        },
    )


class UploadForm(forms.Form):
    file = forms.FileField(
        label=_("JSONL or CSV file"),
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.ndjson,.csv,.tsv,.txt"}),
        error_messages={"required": _("Choose a file first."), "empty": _("The file is empty.")},
        help_text=_("In UTF-8, at most 10 MB. Nothing becomes a prompt before you have seen a preview."),
    )


class ComparisonsForm(forms.Form):
    file = forms.FileField(
        label=_("JSONL or JSON file"),
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.ndjson,.json,.gz"}),
        error_messages={"required": _("Choose a file first."), "empty": _("The file is empty.")},
        help_text=_("Also packed with gzip, at most 512 MB. Nothing is stored before you have seen a preview."),
    )


class NamesField(forms.CharField):
    """Names in one line, with commas between them."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        names = [name.strip() for name in (super().clean(value) or "").split(",")]
        return list(dict.fromkeys(name for name in names if name))


class ComparisonChoicesForm(forms.ModelForm):  # type: ignore[type-arg]
    """How to take a file of comparisons. What the file gives no occasion for is not asked."""

    language = forms.ChoiceField(
        label=_("language"), help_text=_("Of the prompts; where a record names its own, that one counts.")
    )
    tags = TagsField()
    order = NamesField(label=_("models, the best first"), required=False, max_length=4000)

    class Meta:
        model = ComparisonImport
        fields = ["use", "language", "source", "licence", "tags", "order", "suggestions"]
        widgets = {"use": forms.RadioSelect}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = self.instance.found
        self.fields["language"].choices = language_choices(self.instance.project.languages)  # type: ignore[attr-defined]
        if "argilla" not in found.get("shapes", []):
            del self.fields["suggestions"]
        if not found.get("models"):
            del self.fields["order"]
        else:
            self.fields["order"].help_text = _(
                "Only to import as labelled: every model’s answers are ranked in this order. In the file: %(models)s."
            ) % {"models": ", ".join(found["models"])}


class MappingForm(forms.ModelForm):  # type: ignore[type-arg]
    """Which column holds what, and what holds for the whole file."""

    prompt = forms.ChoiceField(label=_("prompt"), help_text=_("Text, or a list of messages with roles."))
    input = forms.ChoiceField(label=_("input"), required=False, help_text=_("A passage to be added below the prompt."))
    demonstration = forms.ChoiceField(
        label=_("demonstration"), required=False, help_text=_("A good answer. Its author is the source given here.")
    )
    language = forms.ChoiceField(label=_("language"))
    tags = TagsField()

    class Meta:
        model = Import
        fields = ["language", "source", "licence", "tags"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        batch = self.instance
        self.fields["language"].choices = language_choices(batch.project.languages)  # type: ignore[attr-defined]
        columns = [(column, f"{column}: {example}" if example else column) for column, example in batch.examples()]
        for role in ROLES:
            nothing = [] if role == "prompt" and batch.mapping.get("prompt") else [("", _("none"))]
            self.fields[role].choices = nothing + columns  # type: ignore[attr-defined]
            self.initial.setdefault(role, batch.mapping.get(role, ""))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        mapping = {role: cleaned[role] for role in ROLES if cleaned.get(role)}
        if len(set(mapping.values())) < len(mapping):
            raise ValidationError(_("One column cannot be two things. Choose different columns."))
        self.instance.mapping = mapping
        return cleaned


class ExportForm(forms.ModelForm):  # type: ignore[type-arg]
    """What to take out of a project. User names are offered to its curators alone."""

    class Meta:
        model = Export
        fields = CHOICES

    def __init__(self, data: Any, *, project: Project, by: User) -> None:
        super().__init__(data, instance=Export(project=project, by=by))
        self.is_curator = Project.objects.curated_by(by).filter(pk=project.pk).exists()
        if not self.is_curator:
            del self.fields["identities"]
        everything: list[tuple[str, Any]] = [("", _("all"))]
        self.fields["language"] = forms.ChoiceField(
            label=_("language"), required=False, choices=everything + language_choices(project.languages)
        )
        self.fields["split"].choices = everything + list(Prompt.Split.choices)  # type: ignore[attr-defined]
        self.order_fields(CHOICES)

    def start(self) -> Export:
        return Export.objects.start(self.instance.project, self.instance.by, **self.cleaned_data)


class WebhookForm(forms.ModelForm):  # type: ignore[type-arg]
    """Where to tell what."""

    events = forms.MultipleChoiceField(
        label=_("events"), choices=list(EVENTS.items()), widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = Webhook
        fields = ["url", "events"]
        widgets = {"url": forms.URLInput(attrs={"placeholder": "https://", "inputmode": "url"})}
