"""What a labeler is likely to be given next: looked at ahead of time, leased only when it is shown."""

from labeling.models.participation import Participation
from labeling.models.slot import Slot
from labeling.models.states import TaskType
from labeling.models.user import User


def peek(slot: Slot, labeler: User, task_type: str | None = None) -> Slot | None:
    """What claim_next() would give `labeler` once `slot` is done, as a row that says it is theirs and is not stored.

    Nothing is leased, so somebody else may be given it in the meantime: see claim_ahead.
    """
    kinds = [task_type] if task_type else [TaskType.RANKING, TaskType.DEMONSTRATION]
    at_hand = Slot.objects.at_hand(slot.project, labeler, kinds)
    others = Slot.objects.filter(project=slot.project_id, task_type__in=kinds).exclude(pk=slot.pk)
    held = others.held_by(labeler).order_by("-lease_until").values_list("pk", flat=True).first()
    participation = Participation.objects.of(slot.project, labeler)
    candidates = [held] if held else Slot.objects.candidates(participation, kinds, slot.pk, at_hand)
    found = Slot.objects.select_related("project", "prompt", "completion_set").filter(pk__in=candidates[:1]).first()
    if found:
        found.labeler = labeler  # whose order of the completions it is
    return found


def claim_ahead(pk: int, done: Slot, labeler: User, task_type: str | None = None) -> Slot | None:
    """Lease slot `pk`, which peek() told of while the labeler was at `done`, where it is still on offer; else whatever
    claim_next() gives."""
    project = done.project
    kinds = [task_type] if task_type else TaskType.values
    at_hand = Slot.objects.at_hand(project, labeler, kinds)
    offered = Slot.objects.filter(pk=pk, project=project, task_type__in=kinds).offered_to(labeler)
    is_free = not at_hand.held and offered.within(Participation.objects.of(project, labeler)).exists()
    slot = Slot.objects.claim(pk, labeler) if is_free else None
    return slot or Slot.objects.claim_next(project, labeler, task_type, after=done.pk)
