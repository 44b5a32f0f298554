"""What a project's data loses while a labeler is in quarantine: told before it is done."""

from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef

from labeling.models import Answer, Demonstration, Participation
from labeling.models.answer import AnswerQuerySet
from labeling.pairs import preferred_pairs
from labeling.quality import Figure, whole

NEWEST = 5000  # rankings that agreement is reckoned from


@dataclass(frozen=True)
class Loss:
    name: str
    lost: int
    total: int

    @property
    def share(self) -> float:
        return self.lost / self.total if self.total else 0.0


@dataclass(frozen=True)
class Impact:
    losses: list[Loss]
    bare_sets: int
    """Sets that nobody else has ranked."""
    agreement: Figure
    agreement_without: Figure


def impact(participation: Participation) -> Impact:
    """Of taking out everything that a labeler said in a project. Right whether or not they are in quarantine now."""
    labeler, project = participation.labeler, participation.project
    hidden = Participation.objects.quarantined().filter(project=project).exclude(labeler=labeler)
    said = Answer.objects.filter(completion_set__project=project).exclude(labeler__in=hidden.values("labeler"))
    theirs = {"labeler": labeler.pk}
    rankings = _learnt_from(said)
    pairs: dict[bool, int] = {True: 0, False: 0}
    counts: dict[str, dict[bool, int]] = {split: {True: 0, False: 0} for split in ("train", "heldout")}
    rows = rankings.values_list("labeler", "current__tiers", "completion_set__prompt__split").order_by()
    for who, tiers, split in rows.iterator(chunk_size=2000):
        is_theirs = who == labeler.pk
        pairs[is_theirs] += len(preferred_pairs(tiers))
        counts[split][is_theirs] += 1
    written = (
        Demonstration.objects.standing().filter(prompt__project=project).exclude(author__in=hidden.values("labeler"))
    )
    others = Answer.objects.filter(completion_set=OuterRef("completion_set")).exclude(labeler=labeler)
    bare = rankings.filter(**theirs).exclude(Exists(_learnt_from(others)))
    judgements = said.judgements(NEWEST, with_quarantined=True)
    return Impact(
        losses=[
            Loss("train", counts["train"][True], sum(counts["train"].values())),
            Loss("heldout", counts["heldout"][True], sum(counts["heldout"].values())),
            Loss("pairs", pairs[True], sum(pairs.values())),
            Loss("demonstrations", written.filter(author=labeler).count(), written.count()),
        ],
        bare_sets=bare.aggregate(number=Count("completion_set", distinct=True))["number"],
        agreement=whole(judgements).agreement,
        agreement_without=whole([each for each in judgements if each.labeler != labeler.username]).agreement,
    )


def _learnt_from(answers: AnswerQuerySet) -> AnswerQuerySet:
    """Labels and decisions, whoever is in quarantine."""
    return answers.ranked().exclude(slot__purpose__in=("screening", "gold", "repeat"))
