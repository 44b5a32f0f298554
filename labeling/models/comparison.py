"""From records to rows: what of a batch of comparisons is new, what is there already, what is refused and why."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils.translation import gettext_lazy as _

from labeling.comparisons import Comparison, Said, digest
from labeling.models.answer import Answer, Revision
from labeling.models.completion import Completion, CompletionSet
from labeling.models.prompt import BATCH, Prompt, draw_split
from labeling.reading import read
from labeling.records import Record
from labeling.tables import Words

if TYPE_CHECKING:
    from labeling.models.comparing import ComparisonImport

Origin = CompletionSet.Origin
PromptKey = tuple[str, str]
"""(language, hash of the messages)"""
SetKey = tuple[str, str, str]
"""(language, hash of the messages, digest of the completions)"""


@dataclass(frozen=True)
class Judged:
    """What would become of one record. `comparison.said` holds only what is not stored yet."""

    place: int
    comparison: Comparison | None = None
    problem: Words = ""
    duplicate_of: Words = ""

    @property
    def kind(self) -> str:
        if self.problem:
            return "refused"
        return "duplicate" if self.duplicate_of else "taken"


def judge(batch: "ComparisonImport", found: Sequence[Record]) -> list[Judged]:
    """Each record of `found`, judged by itself, by what stands before it and by what the project holds."""
    rows = [_read(batch, record) for record in found]
    known = _Known(batch, [row.comparison for row in rows if row.comparison])
    return [known.judge(row) for row in rows]


def store(batch: "ComparisonImport", judged: Sequence[Judged]) -> Counter[str]:
    """Store what is to be taken. Call inside a transaction, with the project locked. Returns what was made."""
    taken = [each.comparison for each in judged if each.kind == "taken" and each.comparison]
    keys = [_key(batch, comparison) for comparison in taken]
    prompts, new_prompts = _store_prompts(batch, taken)
    sets, new_sets = _store_sets(batch, dict(zip(keys, taken, strict=True)), prompts)
    said = [(sets[key], said) for key, comparison in zip(keys, taken, strict=True) for said in comparison.said]
    _store_answers(batch, said)
    if batch.approve and batch.taken_by:
        touched = {prompt.pk for prompt in prompts.values()}
        Prompt.objects.filter(pk__in=touched).approve(batch.taken_by)
    # Prompts that were approved before.
    CompletionSet.objects.filter(pk__in=new_sets, prompt__state=Prompt.State.APPROVED).open_imported()
    return Counter(prompts=new_prompts, sets=len(new_sets), rankings=len(said))


def _read(batch: "ComparisonImport", record: Record) -> Judged:
    if record.problem:
        return Judged(record.place, problem=record.problem)
    try:
        comparison = read(record.value, batch.options)
    except ValidationError as error:
        return Judged(record.place, problem=error.messages[0])
    if batch.use == batch.Use.WORK:
        comparison = replace(comparison, said=[])
    elif not comparison.said:
        return Judged(record.place, problem=_("Nobody has ranked this one. Import it as work."))
    return Judged(record.place, comparison)


def _language(batch: "ComparisonImport", comparison: Comparison) -> str:
    return comparison.language if comparison.language in batch.project.languages else batch.language


def _key(batch: "ComparisonImport", comparison: Comparison) -> SetKey:
    return (_language(batch, comparison), comparison.prompt_hash, comparison.digest)


def _prompts(batch: "ComparisonImport", comparisons: Sequence[Comparison]) -> "QuerySet[Prompt]":
    """Those of the project with the texts of `comparisons`, by all columns of the index: else it is read whole."""
    languages = {_language(batch, each) for each in comparisons}
    hashes = {each.prompt_hash for each in comparisons}
    return Prompt.objects.filter(project=batch.project, language__in=languages, hash__in=hashes)


class _Known:
    """What is stored already of some comparisons, and what was seen of them so far in this batch."""

    def __init__(self, batch: "ComparisonImport", comparisons: Sequence[Comparison]) -> None:
        self.batch = batch
        rows = _prompts(batch, comparisons).order_by()
        prompts = {pk: (language, hash) for pk, language, hash in rows.values_list("pk", "language", "hash")}
        imported = CompletionSet.objects.filter(prompt__in=prompts).exclude(origin=Origin.SAMPLED).order_by()
        sets = {pk: (*prompts[prompt], digest) for pk, prompt, digest in imported.values_list("pk", "prompt", "digest")}
        self.sets: dict[SetKey, Words] = dict.fromkeys(sets.values(), _("a comparison of the project"))
        self.sampled = self._sampled(prompts)
        answers = Answer.objects.filter(completion_set__in=sets, labeler=None, source=batch.source).order_by()
        self.said: dict[tuple[SetKey, str], tuple[list[int], Words]] = {
            (sets[chosen], annotator): (tiers, _("a comparison of the project"))
            for chosen, annotator, tiers in answers.values_list("completion_set", "annotator", "current__tiers")
        }

    @staticmethod
    def _sampled(prompts: dict[int, PromptKey]) -> set[SetKey]:
        """The sets of our own policies, too: our own export may come back."""
        rows = Completion.objects.filter(completion_set__prompt__in=prompts, completion_set__origin=Origin.SAMPLED)
        texts: dict[tuple[int, int], list[str]] = {}
        for prompt, chosen, text in rows.order_by().values_list("completion_set__prompt", "completion_set", "text"):
            texts.setdefault((prompt, chosen), []).append(text)
        return {(*prompts[prompt], digest(said)) for (prompt, _set), said in texts.items()}

    def judge(self, row: Judged) -> Judged:
        if not row.comparison:
            return row
        key = _key(self.batch, row.comparison)
        if key in self.sampled:
            return replace(row, duplicate_of=_("completions that were sampled here"))
        here = _("record %(place)s of the file") % {"place": row.place}
        if self.batch.use == self.batch.Use.WORK:
            if key in self.sets:
                return replace(row, duplicate_of=self.sets[key])
            self.sets[key] = here
            return row
        new: dict[str, Said] = {}
        for said in row.comparison.said:
            before = new.get(said.annotator)
            tiers, where = (before.ranking.tiers, here) if before else self.said.get((key, said.annotator), (None, ""))
            if tiers is None:
                new[said.annotator] = said
            elif tiers != said.ranking.tiers:
                words = _("The same annotator has ranked the same completions otherwise: %(where)s.")
                return replace(row, problem=words % {"where": where})
        if not new:
            return replace(row, duplicate_of=self.said[key, row.comparison.said[0].annotator][1])
        self.said |= {(key, name): (said.ranking.tiers, here) for name, said in new.items()}
        return replace(row, comparison=replace(row.comparison, said=list(new.values())))


def _store_prompts(batch: "ComparisonImport", taken: Sequence[Comparison]) -> tuple[dict[PromptKey, Prompt], int]:
    """The prompts of `taken` by key, those that were not there before as drafts."""
    wanted = {(_language(batch, each), each.prompt_hash): each for each in taken}
    rows = _prompts(batch, taken)
    prompts = {(row.language, row.hash): row for row in rows if (row.language, row.hash) in wanted}
    new = []
    for key, comparison in wanted.items():
        if key not in prompts:
            prompt = Prompt(
                project=batch.project,
                language=key[0],
                source=batch.source,
                licence=batch.licence,
                tags=batch.tags,
                author=batch.taken_by,
                came_with_completions=True,
            )
            prompt.set_messages(comparison.messages)
            prompt.split = draw_split(prompt.family)
            # What was held out where it comes from is held out here.
            while comparison.split in Prompt.Split.values and prompt.split != comparison.split:
                prompt.family = uuid.uuid4()
                prompt.split = draw_split(prompt.family)
            new.append(prompt)
    made = Prompt.objects.bulk_create(new, batch_size=BATCH)
    return prompts | {(row.language, row.hash): row for row in made}, len(made)


def _store_sets(
    batch: "ComparisonImport", wanted: dict[SetKey, Comparison], prompts: dict[PromptKey, Prompt]
) -> tuple[dict[SetKey, CompletionSet], list[int]]:
    """The sets of `wanted`, and the keys of those that are new."""
    by_prompt = {prompt.pk: key for key, prompt in prompts.items()}
    rows = CompletionSet.objects.filter(prompt__in=by_prompt).exclude(origin=Origin.SAMPLED)
    sets = {(*by_prompt[row.prompt_id], row.digest): row for row in rows}
    is_work = batch.use == batch.Use.WORK
    new = [
        CompletionSet(
            project=batch.project,
            prompt=prompts[key[:2]],
            origin=Origin.IMPORTED if is_work else Origin.LABELLED,
            state=CompletionSet.State.READY if is_work else CompletionSet.State.CLOSED,
            source=batch.source,
            digest=key[2],
            k=len(comparison.texts),
            temperature=0,
            top_p=0,
            max_new_tokens=0,
        )
        for key, comparison in wanted.items()
        if key not in sets
    ]
    made = CompletionSet.objects.bulk_create(new, batch_size=BATCH)
    fresh = {(*by_prompt[row.prompt_id], row.digest): row for row in made}
    Completion.objects.bulk_create(
        (
            Completion(
                completion_set=row,
                index=index,
                text=text,
                model_name=wanted[key].models[index],
                finish_reason=_finish_reason(wanted[key].cut[index]),
            )
            for key, row in fresh.items()
            for index, text in enumerate(wanted[key].texts)
        ),
        batch_size=BATCH,
    )
    return sets | fresh, [row.pk for row in made]


def _finish_reason(is_cut: bool) -> Completion.FinishReason:
    return Completion.FinishReason.LENGTH if is_cut else Completion.FinishReason.STOP


def _store_answers(batch: "ComparisonImport", said: Sequence[tuple[CompletionSet, Said]]) -> None:
    answers = Answer.objects.bulk_create(
        (Answer(completion_set=chosen, source=batch.source, annotator=each.annotator) for chosen, each in said),
        batch_size=BATCH,
    )
    Revision.objects.bulk_create(
        (
            Revision(
                answer=answer,
                number=1,
                key=uuid.uuid4(),
                verdict=each.ranking.verdict,
                tiers=each.ranking.tiers,
                ratings=each.ranking.ratings,
                note=each.ranking.note,
                shown_order=list(range(chosen.k)),
            )
            for answer, (chosen, each) in zip(answers, said, strict=True)
        ),
        batch_size=BATCH,
    )
    newest = Revision.objects.filter(answer=OuterRef("pk")).values("pk")[:1]
    Answer.objects.filter(pk__in=[answer.pk for answer in answers]).update(current=Subquery(newest))
