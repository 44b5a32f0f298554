"""What tasks are there, and how far a slot and the review of its answer have come."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class TaskType(TextChoices):
    DEMONSTRATION = "demonstration", _("demonstration")
    RANKING = "ranking", _("ranking")


class SlotState(TextChoices):
    OPEN = "open", _("open")
    LEASED = "leased", _("in work")
    ANSWERED = "answered", _("answered")


class ReviewState(TextChoices):
    NONE = "", _("not reviewed")
    RETURNED = "returned", _("returned")
    CHANGED = "changed", _("changed after its return")
    ACCEPTED = "accepted", _("accepted")


class Purpose(TextChoices):
    """What a place is for. Labelers are not told."""

    LABEL = "label", _("label")
    SCREENING = "screening", _("screening")
    GOLD = "gold", _("known answer")
    REPEAT = "repeat", _("hidden repeat")
    ADJUDICATION = "adjudication", _("decision")
