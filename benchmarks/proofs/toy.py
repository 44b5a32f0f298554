"""The toy world of `make loop` for proofs: a policy that speaks its language, and rankings by simulated labelers.

People judge by a hidden score: the mood of an answer, as in `make loop`, less the share of it that is nonsense, which
few rankings say little about. Labelers differ: each feels every mood word a little
otherwise (`TASTE`), so one who is held out is new. The hidden score is what they have in common.
"""

import json
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.proofs.stage import ProofError, Row, train
from modelzoo.config import SamplingConfig
from modelzoo.generate import PromptError
from modelzoo.sampler import Sample, Sampler
from modelzoo.tokenizer import train_sentencepiece
from worker.loop.labelers import agreement, calibrated_noise, judge, pairs_right
from worker.loop.scale import FULL
from worker.loop.world import ADJECTIVES, CLAUSES, MOODS, QUESTIONS, VERBS, dialogues, gold

TASTE = 0.25
"""Standard deviation of what a labeler adds to the cheer of each word, which goes from -1 to 1."""
TRAINING_LABELERS, HELDOUT_LABELERS = 8, 4
SAMPLING = SamplingConfig(max_new_tokens=FULL.max_new_tokens)


def make_policy(folder: Path, epochs: int, seed: int = 0) -> Path:
    """A tokenizer and a transformer from scratch, as in `make loop`; returns the checkpoint.

    After one epoch it talks like the people of this world, but seldom of the place and time that it was asked of: 95%
    of its answers hold nonsense. After four it has learned to read the question, and 20% do.
    """
    folder.mkdir(parents=True)
    spoken = list(dialogues(FULL.dialogues, random.Random(f"proofs {seed}")))
    texts = [text for question, reply in spoken for text in (question.text, reply)]
    train_sentencepiece(texts, FULL.vocabulary, folder / "tokenizer")
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for question, reply in spoken:
            file.write(
                json.dumps({"messages": [*asked(question.text), {"role": "assistant", "content": reply}]}) + "\n"
            )
    inputs = {"corpus": folder / "corpus.jsonl", "tokenizer": folder / "tokenizer", "languages": ["en"]}
    train("pretrain", folder / "pretrain", FULL.pretrain | {"epochs": epochs, "seed": seed}, **inputs)
    return folder / "pretrain" / "model"


WORDS = {"one": ADJECTIVES, "two": ADJECTIVES, "verb": VERBS}
SENTENCES = re.compile(
    "|".join(CLAUSES).replace(".", r"\.").format(**{k: f"(?:{'|'.join(v)})" for k, v in WORDS.items()})
)
"""What people say in this world besides their first sentence."""


def nonsense(question: str, text: str) -> float:
    """The share of sentences that nobody in this world would say; the first has to answer the question."""
    about = QUESTIONS[question]
    first, *others = re.findall(r"[^.]+\.?", text) or [""]
    answer = re.fullmatch(rf"The {about.place} is ({'|'.join(ADJECTIVES)}) {about.time}\.", first.strip())
    wrong = (answer is None) + sum(SENTENCES.fullmatch(sentence.strip()) is None for sentence in others)
    return wrong / (1 + len(others))


def hidden_score(question: str, text: str) -> float:
    """What an answer is worth: between -2.5 and 1.5."""
    return gold(text) - nonsense(question, text)


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def split_questions(seed: int) -> tuple[list[str], list[str]]:
    """Four questions in five to train on, the rest held out."""
    texts = sorted(QUESTIONS)
    random.Random(f"questions {seed}").shuffle(texts)
    heldout = len(texts) // 5
    return texts[heldout:], texts[:heldout]


def sampled(sampler: Sampler, questions: Sequence[str], k: int | Sequence[int], seed: int) -> list[list[Sample]]:
    """K answers to each question, which may be asked more than once."""
    seeds = [random.Random(f"{seed} {number}").getrandbits(31) for number in range(len(questions))]
    results = sampler.sample([asked(question) for question in questions], k, SAMPLING, seeds=seeds)
    samples = []
    for result in results:
        if isinstance(result, PromptError):
            raise ProofError(str(result))
        samples.append(result)
    return samples


class Labeler:
    """Somebody with a taste of their own."""

    def __init__(self, name: str) -> None:
        self.name, self.chance = name, random.Random(name)
        self.taste = {word: self.chance.gauss(0, TASTE) for word in MOODS}

    def felt(self, question: str, text: str) -> float:
        """The hidden score as this labeler feels it, before the noise of the moment."""
        words = text.lower().replace(".", " ").replace(",", " ").split()
        moods = [self.taste[word] for word in words if word in MOODS]
        return hidden_score(question, text) + (statistics.mean(moods) if moods else 0.0)


@dataclass(frozen=True)
class Rankings:
    """Rankings for one reward model, as rows of a snapshot, and what is known of their labelers."""

    train: list[Row]
    heldout: list[Row]  # other prompts, other labelers
    noise: float  # a pair's log-odds are the difference of hidden scores over this
    agreement: float  # of two held-out labelers, on pairs that neither ties

    @property
    def ceiling(self) -> tuple[float, int]:
        """The accuracy of the hidden score itself on the held-out pairs, and how many these are."""
        scored = [
            ([hidden_score(row["prompt_id"], text) for text in row["completions"]], row["tiers"])
            for row in self.heldout
        ]
        right, pairs = pairs_right(scored)
        return right / pairs, pairs


def collect_rankings(policy: Path, seed: int, *, train: int, heldout: int) -> Rankings:
    """Answers of the policy, 4 to 9 to a question, ranked by people who agree on 72.6% of the pairs."""
    chance = random.Random(f"rankings {seed}")
    sampler = Sampler.load(policy)
    questions, heldout_questions = split_questions(seed)
    asked_of = chance.choices(questions, k=train) + chance.choices(heldout_questions, k=heldout)
    counts = [chance.randint(4, 9) for _ in asked_of]
    answers = sampled(sampler, asked_of, counts, seed)
    people = [Labeler(f"labeler {seed} {number}") for number in range(TRAINING_LABELERS + HELDOUT_LABELERS)]
    teachers, judges = people[:TRAINING_LABELERS], people[TRAINING_LABELERS:]

    pairs_of_judges = [chance.sample(judges, 2) for _ in range(heldout)]

    def felt(number: int, labeler: Labeler) -> list[float]:
        return [labeler.felt(asked_of[number], answer.text) for answer in answers[number]]

    seen = [
        [felt(train + number, labeler) for number, labeler in enumerate(side)]
        for side in zip(*pairs_of_judges, strict=True)
    ]
    noise = calibrated_noise(seen[0], seed, others=seen[1])

    def ranked(number: int, labeler: Labeler) -> Row:
        return {
            "id": f"ranking-{number}",
            "split": "train" if number < train else "heldout",
            "prompt_id": asked_of[number],
            "language": "en",
            "messages": asked(asked_of[number]),
            "completions": [answer.text for answer in answers[number]],
            "finish_reasons": [answer.finish_reason for answer in answers[number]],
            "tiers": judge(felt(number, labeler), noise, labeler.chance).tiers,
            "labeler": labeler.name,
        }

    first, second = (
        [ranked(train + number, pair[side]) for number, pair in enumerate(pairs_of_judges)] for side in (0, 1)
    )
    return Rankings(
        train=[ranked(number, chance.choice(teachers)) for number in range(train)],
        heldout=first,
        noise=noise,
        agreement=agreement([row["tiers"] for row in first], [row["tiers"] for row in second]),
    )


def shuffled(rows: Sequence[Row], seed: str) -> list[Row]:
    """The same rankings with their tiers given to completions at random."""
    chance = random.Random(f"shuffled {seed}")
    return [row | {"tiers": chance.sample(row["tiers"], len(row["tiers"]))} for row in rows]


UPDATES = 40  # at least; with few rankings two passes would be over before the head has learned anything


def train_reward_model(out: Path, policy: Path, snapshot: Path, rankings: int, seed: int) -> Any:
    """A reward model as `make loop` trains it; returns its metrics. It passes over the rankings twice or more."""
    params: dict[str, Any] = FULL.reward | {"seed": seed}
    params["epochs"] = max(params["epochs"], -(-UPDATES * params["batch_size"] // rankings))
    return train("reward", out, params, snapshot=snapshot, policy=policy)[-1]
