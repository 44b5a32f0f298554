"""Reviews: a curator accepts what a labeler handed in, or returns it with a comment."""

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from labeling.models.project import Project
from labeling.models.slot import Slot
from labeling.models.user import User
from labeling.pseudonyms import pseudonym
from labeling.text import is_storable

if TYPE_CHECKING:
    from labeling.models.queue import SlotQuerySet

MAX_COMMENT_CHARACTERS = 2000


class ReviewQuerySet(models.QuerySet["Review"]):
    def slots_for(self, reviewer: User) -> "SlotQuerySet":
        """What `reviewer` may review: answers in the projects they curate, but for their own and for hidden checks."""
        answered: SlotQuerySet = Slot.objects.filter(
            state=Slot.State.ANSWERED,
            purpose__in=(Slot.Purpose.LABEL, Slot.Purpose.ADJUDICATION),
            project__in=Project.objects.curated_by(reviewer),
        )
        return answered.exclude(labeler=reviewer)

    @transaction.atomic
    def add(self, slot: Slot, reviewer: User, verdict: Any, comment: Any = "") -> "Review":
        """Accept or return what was handed in for `slot`.

        Raises PermissionDenied for someone who may not, ValidationError where it is returned without saying why.
        """
        comment = comment.strip() if isinstance(comment, str) else ""
        if verdict not in Review.Verdict.values:
            raise ValidationError(_("Accept it or return it."))
        if verdict == Review.Verdict.RETURNED and not comment:
            raise ValidationError(_("Say in a comment what should be changed."))
        if len(comment) > MAX_COMMENT_CHARACTERS or not is_storable(comment):
            raise ValidationError(
                _("A comment is text of at most %(limit)s characters."), params={"limit": MAX_COMMENT_CHARACTERS}
            )
        if not self.slots_for(reviewer).filter(pk=slot.pk).update(review_state=verdict):
            raise PermissionDenied
        slot.project.webhooks.tell(
            f"review.{verdict}",
            kind=slot.task_type,
            label=slot.label.pk,
            prompt=slot.prompt_id,
            labeler=pseudonym(slot.labeler_id) if slot.labeler_id else "",
            reviewer=pseudonym(reviewer.pk),
        )
        return self.create(slot=slot, reviewer=reviewer, verdict=verdict, comment=comment)


class Review(models.Model):
    class Verdict(models.TextChoices):
        ACCEPTED = "accepted", _("accepted")
        RETURNED = "returned", _("returned")

    slot = models.ForeignKey(Slot, on_delete=models.PROTECT, related_name="reviews")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=8, choices=Verdict)
    comment = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("review")
        verbose_name_plural = _("reviews")

    def __str__(self) -> str:
        return f"{self.get_verdict_display()}: {self.slot}"
