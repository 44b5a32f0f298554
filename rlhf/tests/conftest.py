"""Oscar runs the training, Ada may do everything; Alice labels and Carol curates as in every package."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from labeling.models import Answer, Demonstration, Project, Role, Slot, User
from labeling.tests import world as people
from rlhf.models import DatasetSnapshot, ModelVersion, Promotion, TrainingRun
from rlhf.tests.world import model_version

QUESTIONS = [f"What is the capital of country number {number}?" for number in range(100)]


@pytest.fixture(autouse=True)
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    return tmp_path


@pytest.fixture
def oscar(db: None) -> User:
    return people.person("oscar", Role.OPS)


@pytest.fixture
def ada(db: None) -> User:
    return people.person("ada", Role.ADMIN)


@pytest.fixture
def ops(client: Client, oscar: User) -> Client:
    """A browser in which Oscar is logged in."""
    client.force_login(oscar)
    return client


@pytest.fixture
def project(alice: User, carol: User, oscar: User) -> Project:
    """Samples from `tiny-base`."""
    made = Project.objects.create(name="Capitals", slug="capitals", languages=["en"])
    made.members.set([alice, carol])
    Promotion.objects.promote(made, model_version("tiny-base"), oscar)
    return made


@pytest.fixture
def rank(project: Project, alice: User, carol: User) -> Callable[..., list[Answer]]:
    """`rank(3)` lets Alice rank three more prompts in training (or `split="heldout"`) as 1, 2, 2, 3: five pairs."""
    questions = iter(QUESTIONS)

    def rank_more(count: int = 1, split: str = "train", tiers: tuple[int, ...] = (1, 2, 2, 3)) -> list[Answer]:
        answers = []
        for _ in range(count):
            prompt = people.approved_prompt(project, carol, next(questions))
            type(prompt).objects.filter(pk=prompt.pk).update(split=split)  # it is drawn by chance, once
            people.sampled(prompt)
            slot = Slot.objects.claim_next(project, alice, Slot.TaskType.RANKING)
            assert slot is not None
            ranking = {**people.RANKING, "tiers": list(tiers)}
            answers.append(Answer.objects.submit(slot, alice, ranking, uuid.uuid4()))
        return answers

    return rank_more


@pytest.fixture
def demonstration(project: Project, carol: User) -> Demonstration:
    prompt = people.approved_prompt(project, carol, "Write a line about rain.")
    type(prompt).objects.filter(pk=prompt.pk).update(split="train")
    Demonstration.objects.import_all([(prompt, "Rain taps on the roof.")], "a book")
    return prompt.demonstrations.get()


@pytest.fixture
def snapshot(project: Project, oscar: User, rank: Any, demonstration: Demonstration) -> DatasetSnapshot:
    """Two rankings in training, one held out, one demonstration."""
    rank(2)
    rank(1, "heldout")
    return DatasetSnapshot.objects.freeze(project, oscar)


@pytest.fixture
def policy(project: Project) -> ModelVersion:
    return ModelVersion.objects.get(name=project.policy_name)


@pytest.fixture
def reward_model(db: None) -> ModelVersion:
    return model_version("tiny-reward", "reward", ())


@pytest.fixture
def start(project: Project, snapshot: DatasetSnapshot, policy: ModelVersion, oscar: User) -> Callable[..., TrainingRun]:
    def start_run(stage: str = "sft", **fields: Any) -> TrainingRun:
        given = {"project": project, "snapshot": snapshot, "policy": policy, "by": oscar, **fields}
        return TrainingRun.objects.start(stage=stage, **given)

    return start_run


def carried_out(run: TrainingRun) -> ModelVersion:
    """`run` as a worker brings it to its end: claimed, with a model."""
    held = TrainingRun.objects.claim(run.pk)
    assert held is not None
    directory = model_version_files(held.result_name)
    return held.finish(
        directory=f"models/{held.result_name}", manifest_hash=directory, languages=["en"], metrics={"loss": 0.4}
    )


def model_version_files(name: str) -> str:
    """Only the files of a version; returns the hash of their manifest."""
    version = model_version(f"{name}-draft")
    version.path.rename(version.path.with_name(name))
    return version.manifest_hash
