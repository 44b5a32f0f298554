"""The people of the loop: a curator who approves prompts, labelers who take their turns as they would in a browser."""

import random
import uuid
from collections.abc import Iterator
from typing import Any

from labeling.models import Answer, CompletionSet, Demonstration, Project, Prompt, Revision, Role, Slot, User
from labeling.pairs import preferred_pairs
from labeling.rankings import Ranking, first_alike
from worker.loop.labelers import agreement, calibrated_noise, judge, pairs_right
from worker.loop.outcome import Labels
from worker.loop.scale import Scale
from worker.loop.world import QUESTIONS, gold, reply


class People:
    """Everyone who works on one project. The project is made here, too."""

    def __init__(self, seed: int, scale: Scale, chance: random.Random) -> None:
        self.seed, self.chance = seed, chance
        self.ops = self._person("ops", Role.OPS)
        self.curator = self._person("curator", Role.CURATOR)
        self.labelers = [self._person(f"labeler-{number}", Role.LABELER) for number in range(1, scale.labelers + 1)]
        self.project = Project.objects.start(
            self.curator,
            f"Loop {seed}",
            languages=["en"],
            k=scale.k,
            ranking_overlap=scale.overlap,
            repeat_percent=0,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=scale.max_new_tokens,
        )
        self.project.members.add(*self.labelers)

    def _person(self, name: str, role: Role) -> User:
        user = User.objects.create_user(f"loop-{self.seed}-{name}")
        user.set_roles([role])
        return user

    def approve_prompts(self, count: int) -> None:
        for text in self.chance.sample(sorted(QUESTIONS), count):
            messages = [{"role": "user", "content": text}]
            family = uuid.UUID(int=self.chance.getrandbits(128), version=4)  # decides whether the prompt is held out
            Prompt.objects.add(self.project, messages, language="en", author=self.curator, family=family)
        self.project.prompts.approve(self.curator)

    def demonstrate(self) -> int:
        """Fill every place for a demonstration. Returns how many were written."""
        written = 0
        for labeler, slot in self._turns(Slot.TaskType.DEMONSTRATION):
            text = reply(QUESTIONS[slot.prompt.text], self.chance)
            Demonstration.objects.submit(slot, labeler, {"text": text}, uuid.uuid4())
            written += 1
        return written

    def rank(self) -> Labels:
        """Rank every set, each as often as asked for, with the noise at which people agree as people do."""
        scores = hidden_scores(self.project)
        noise = calibrated_noise(list(scores.values()), self.seed)
        for labeler, slot in self._turns(Slot.TaskType.RANKING):
            assert slot.completion_set and slot.completion_set_id  # rankings_have_a_set
            judgement = judge(scores[slot.completion_set_id], noise, self.chance)
            alike = first_alike(slot.completion_set.texts)
            tiers = [judgement.tiers[first] for first in alike]  # the page ties equal texts, too
            ratings = [{"overall": judgement.likert[first]} for first in alike]
            Answer.objects.submit(slot, labeler, {"tiers": tiers, "ratings": ratings}, uuid.uuid4())
        return self._labels(noise, scores)

    def shuffle_rankings(self) -> None:
        """Every training ranking is revised into one that gives the same tiers to completions at random."""
        for answer, old in self._rankings(completion_set__prompt__split=Prompt.Split.TRAIN):
            tiers = self.chance.sample(old.tiers, len(old.tiers))
            answer.append(
                Ranking(tiers, old.ratings, "shuffled for the control"),
                key=uuid.uuid4(),
                shown_order=old.shown_order,
                active_seconds=0.0,
                instruction_version=old.instruction_version,
            )

    def _rankings(self, **conditions: Any) -> Iterator[tuple[Answer, Revision]]:
        """Every stored ranking and what it says now, the oldest first."""
        rankings = Answer.objects.filter(completion_set__project=self.project, **conditions)
        for answer in rankings.select_related("current", "completion_set__prompt").order_by("pk"):
            if answer.current:
                yield answer, answer.current

    def _turns(self, task_type: str) -> Iterator[tuple[User, Slot]]:
        """One leased task after the other, the labelers in turn, until there is nothing left for any of them."""
        busy = list(self.labelers)
        while busy:
            for labeler in list(busy):
                if slot := Slot.objects.claim_next(self.project, labeler, task_type):
                    yield labeler, slot
                else:
                    busy.remove(labeler)

    def _labels(self, noise: float, scores: dict[int, list[float]]) -> Labels:
        """What the stored rankings say of each other and of the hidden score."""
        tiers: dict[int, list[list[int]]] = {}
        heldout: list[tuple[list[float], list[int]]] = []
        for answer, revision in self._rankings():
            chosen = answer.completion_set
            tiers.setdefault(chosen.pk, []).append(revision.tiers)
            if chosen.prompt.split == Prompt.Split.HELDOUT:
                heldout.append((scores[chosen.pk], revision.tiers))
        ranked = [one for several in tiers.values() for one in several]
        untied = sum(len(preferred_pairs(one)) for one in ranked)
        right, pairs = pairs_right(heldout)
        return Labels(
            rankings=len(ranked),
            noise=noise,
            agreement=agreement(
                [several[0] for several in tiers.values()], [several[-1] for several in tiers.values()]
            ),
            tied=1 - untied / sum(len(one) * (len(one) - 1) // 2 for one in ranked),
            ceiling=right / pairs,
            heldout_pairs=pairs,
        )


def hidden_scores(project: Project) -> dict[int, list[float]]:
    """The gold score of every completion, by set."""
    sets = CompletionSet.objects.filter(project=project).prefetch_related("completions")
    return {chosen.pk: [gold(completion.text) for completion in chosen.completions.all()] for chosen in sets}
