"""A project is one labeling effort: its instructions, languages, members, and the policy it samples from."""

from itertools import count
from typing import Any, Self

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.utils.functional import cached_property
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from labeling.models.user import Role, User

MIN_K, MAX_K = 4, 9
SETTINGS = [
    *("name", "languages", "comparison", "k", "ranking_overlap", "demonstration_overlap"),
    *("require_ratings", "use_flags"),
    *("screening_percent", "screens_demonstrations", "gold_percent", "repeat_percent"),
    *("temperature", "top_p", "max_new_tokens", "control_share"),
]
K_RANGE = [MinValueValidator(MIN_K), MaxValueValidator(MAX_K)]


PAIR = 2
"""How many completions a comparison in pairs has."""


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user: Any) -> Self:
        """Admin and ops see every project, labelers and curators those they are members of."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if user.has_role(Role.OPS, Role.ADMIN):
            return self
        return self.filter(members=user)

    def curated_by(self, user: Any) -> Self:
        """Projects whose prompts and settings `user` may change."""
        if not user.is_authenticated or not user.has_role(Role.CURATOR, Role.ADMIN):
            return self.none()
        return self if user.is_superuser else self.filter(members=user)

    def exported_by(self, user: Any) -> Self:
        """Projects whose labels `user` may take out."""
        if not user.is_authenticated or not user.has_role(Role.CURATOR, Role.OPS, Role.ADMIN):
            return self.none()
        return self.visible_to(user)

    def labeled_by(self, user: Any) -> Self:
        """Projects in which `user` is given tasks."""
        if not user.is_authenticated or not user.has_role(Role.LABELER):
            return self.none()
        return self if user.is_superuser else self.filter(members=user)

    def lock(self) -> Self:
        """Whatever opens or closes the work of a project (promotion, approval, retirement) waits for the others here.

        SQLite has one writer at a time anyway and ignores this.
        """
        locked = self.order_by("pk").select_for_update()
        list(locked.values_list("pk", flat=True))
        return self

    @transaction.atomic
    def start(self, by: User, name: str, **fields: Any) -> "Project":
        """A new project with `by` as its first member, checked. ValidationError where a value is out of range."""
        project = Project(name=name, **fields)
        project.slug = self.free_slug(name)
        project.full_clean()
        project.save()
        project.members.add(by)
        return project

    def free_slug(self, name: str) -> str:
        stem = slugify(name)[:50] or "project"
        taken = {"new"} | set(Project.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
        return next(slug for number in count(1) if (slug := stem if number == 1 else f"{stem}-{number}") not in taken)


class Project(models.Model):
    class Comparison(models.TextChoices):
        TIERS = "tiers", _("several in tiers")
        PAIRS = "pairs", _("two side by side")

    name = models.CharField(_("name"), max_length=120, unique=True)
    slug = models.SlugField(_("address"), max_length=60, unique=True)
    languages = models.JSONField(_("languages"), default=list, help_text=_('Language codes, such as ["en", "ko"].'))
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, related_name="projects", blank=True, verbose_name=_("members")
    )

    comparison = models.CharField(
        _("how completions are compared"),
        max_length=8,
        choices=Comparison,
        default=Comparison.TIERS,
        help_text=_("Of two, with how much better. Holds for what is sampled from now on."),
    )
    k = models.PositiveSmallIntegerField(
        _("completions per prompt"),
        default=4,
        validators=K_RANGE,
        help_text=_("4 to 9; a prompt may ask for its own. Pairs are always two."),
    )
    ranking_overlap = models.PositiveSmallIntegerField(
        _("labelers per ranking"), default=1, validators=[MinValueValidator(1), MaxValueValidator(20)]
    )
    demonstration_overlap = models.PositiveSmallIntegerField(
        _("labelers per demonstration"),
        default=1,
        validators=[MaxValueValidator(20)],
        help_text=_("0 asks for none where the policy speaks the prompt's language."),
    )
    require_ratings = models.BooleanField(
        _("rate every completion before ranking"), default=True, help_text=_("Overall quality from 1 to 7.")
    )
    use_flags = models.BooleanField(_("offer InstructGPT's eleven flags"), default=True)

    screening_percent = models.PositiveSmallIntegerField(
        _("pass mark of the screening, in percent"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text=_("Of the pairs that known answers order. Empty: nobody is screened. InstructGPT asked for 75."),
    )
    screens_demonstrations = models.BooleanField(
        _("screen for demonstrations, too"),
        default=False,
        help_text=_("Otherwise who has yet to pass, or failed, may still write demonstrations."),
    )
    gold_percent = models.PositiveSmallIntegerField(
        _("hidden known answers, in percent of rankings"), default=5, validators=[MaxValueValidator(50)]
    )
    repeat_percent = models.PositiveSmallIntegerField(
        _("hidden repeats, in percent of rankings"), default=2, validators=[MaxValueValidator(50)]
    )

    temperature = models.FloatField(
        _("temperature"),
        default=1.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(5.0)],
        help_text=_(
            "How freely the policy chooses its words. 1 samples as it was trained; 0 always takes the likeliest."
        ),
    )
    top_p = models.FloatField(
        _("top-p"),
        default=0.95,
        validators=[MinValueValidator(0.01), MaxValueValidator(1.0)],
        help_text=_("Choose among the likeliest words that together have this probability. 1 leaves all in."),
    )
    max_new_tokens = models.PositiveIntegerField(
        _("longest completion, in tokens"), default=128, validators=[MinValueValidator(1), MaxValueValidator(8192)]
    )
    control_share = models.PositiveSmallIntegerField(
        _("control arm, in percent"),
        default=15,
        validators=[MaxValueValidator(100)],
        help_text=_(
            "Once there is a reward model, sets that it is unsure of are ranked first. This share of the sets to come "
            "takes no part in that, so that a fair sample stays."
        ),
    )

    # Written by rlhf's promote(): what labeling must know of the current policy.
    policy_name = models.CharField(_("policy"), max_length=120, blank=True, editable=False)
    policy_languages = models.JSONField(default=list, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = _("project")
        verbose_name_plural = _("projects")
        constraints = [
            models.CheckConstraint(condition=models.Q(k__gte=MIN_K, k__lte=MAX_K), name="project_k_between_4_and_9")
        ]

    def __str__(self) -> str:
        return self.name

    @transaction.atomic
    def set_policy(self, name: str, languages: list[str]) -> None:
        """Sample from this policy from now on: unlabelled sets of others expire, prompts it speaks get a new one."""
        Project.objects.filter(pk=self.pk).lock().update(policy_name=name, policy_languages=languages)
        self.policy_name, self.policy_languages = name, languages
        self.webhooks.tell("policy.promoted", policy=name, languages=languages)
        self.completion_sets.unlabelled().filter(origin="sampled").exclude(policy_name=name).expire()
        prompts = self.prompts.sampled_for()
        prompts.filter(language__in=languages).request_completions()
        # What the new policy cannot be asked, people are.
        prompts.approved().exclude(language__in=languages).open_demonstrations()

    @transaction.atomic
    def revise_instructions(self, bodies: dict[str, str], author: User | None) -> "InstructionVersion":
        """Publish a new version; labels made from now on carry its number."""
        Project.objects.filter(pk=self.pk).lock()
        last = self.instruction_versions.order_by("-number").first()
        self.__dict__.pop("instructions", None)
        return self.instruction_versions.create(number=last.number + 1 if last else 1, bodies=bodies, author=author)

    @transaction.atomic
    def reconfigure(self) -> None:
        """Store changed settings. K and sampling hold for sets to come, overlap for the places that are still open."""
        # Not the policy: it may have been promoted while the settings were being looked at.
        self.save(update_fields=SETTINGS)
        self.slots.match_overlap(self)

    def prompt_counts(self) -> dict[tuple[str, str], int]:
        """How many prompts there are by state and language."""
        rows = self.prompts.order_by().values_list("state", "language").annotate(number=models.Count("pk"))
        return {(state, language): number for state, language, number in rows}

    @cached_property
    def instructions(self) -> "InstructionVersion | None":
        return self.instruction_versions.order_by("-number").first()

    @property
    def unspoken_languages(self) -> list[str]:
        """Languages of the project that the current policy cannot be asked in."""
        return [code for code in self.languages if not self.speaks(code)]

    def speaks(self, language: str) -> bool:
        """Whether the current policy is said to speak `language`."""
        return bool(self.policy_name) and language in self.policy_languages


class InstructionVersion(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="instruction_versions")
    number = models.PositiveIntegerField()
    bodies = models.JSONField(help_text=_("Markdown by language code."))
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        verbose_name = _("instruction version")
        verbose_name_plural = _("instruction versions")
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="one_instruction_version_per_number")]

    def __str__(self) -> str:
        return f"{self.project} v{self.number}"

    def body(self, language: str) -> str:
        """The text in `language`, else in English, else in whatever there is."""
        return self.bodies.get(language) or self.bodies.get("en") or next(iter(self.bodies.values()), "")
