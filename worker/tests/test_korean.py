"""The Korean path with a small recipe: from a CSV to completions that can be ranked."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from labeling.models import Demonstration, Project, Prompt, Role, Slot, User
from modelzoo.checkpoint import verify
from worker.korean import KOREAN, StepFailed, Training, open_project, promote_and_sample
from worker.registry import register

pytestmark = pytest.mark.once

SMALL = dataclasses.replace(
    KOREAN,
    vocabulary=340,
    pretrain={
        **KOREAN.pretrain,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "epochs": 1,
    },
    sft={**KOREAN.sft, "epochs": 1},
)
FOODS = ("밥", "국수", "빵", "떡", "사과", "배", "김치", "만두")
FEELINGS = ("좋아요", "맛있어요", "그래요", "고마워요", "괜찮아요", "힘내세요", "천천히 드세요", "같이 가요")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pairs = [(food, said) for food in FOODS for said in FEELINGS] * 3
    rows = [f"{number}번 {food} 먹을까?,{food} {said}" for number, (food, said) in enumerate(pairs)]
    path = tmp_path / "talk.csv"
    path.write_text("\n".join(["Q,A", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = settings.MEDIA_ROOT = tmp_path / "data"
    return tmp_path / "data"


def test_from_a_csv_to_completions_that_can_be_ranked(table: Path, data_dir: Path, transactional_db: None) -> None:
    said: list[str] = []
    training = Training(data_dir / "korean", said.append, SMALL)
    checkpoint = training.run(table, prompt="Q", response="A")
    manifest = verify(checkpoint)
    assert (manifest["kind"], manifest["languages"]) == ("sft", ["ko"])
    assert 0 < (training.bits_per_byte() or 0) < 12
    assert [line.split()[4] for line in said if line.startswith("$")] == ["dialogues", "tokenizer", "pretrain", "sft"]

    said.clear()
    assert training.run(table, prompt="Q", response="A") == checkpoint
    assert said == [], "a step that was done was done again"

    admin = User.objects.create_superuser("admin")
    labeler = User.objects.create_user("labeler")
    labeler.set_roles([Role.LABELER])
    starter = [
        {"messages": [{"role": "user", "content": f"{food} 이야기를 해 줘."}], "tags": ["chat"]} for food in FOODS
    ]
    starter.append({"messages": [{"role": "user", "content": "더 길게 " * 200}], "tags": ["chat"]})
    project = open_project("한국어", admin, starter, training.data, table.stem)
    heldout = json.loads((training.data / "snapshot" / "manifest.json").read_text())["counts"]["heldout"]
    assert project.prompts.count() == len(starter) + heldout["demonstrations"]
    assert Demonstration.objects.filter(origin="imported", source="talk").count() == heldout["demonstrations"]

    completions = promote_and_sample(project, register(checkpoint, name="ko-test"), admin)
    assert len(completions) == 4 * (project.prompts.count() - 1), "all but the one that is too long for the model"
    assert {completion.model_name for completion in completions} == {"ko-test"}
    slot = Slot.objects.claim_next(project, labeler, Slot.TaskType.RANKING)
    assert slot is not None
    assert slot.prompt.language == "ko"
    assert len(slot.shown_completions) == 4


def test_a_table_without_the_columns_is_named(table: Path, data_dir: Path) -> None:
    training = Training(data_dir / "korean", print, SMALL)
    with pytest.raises(StepFailed, match="no column '질문'"):
        training.run(table, prompt="질문", response="A")


def test_a_trainer_that_fails_says_why(table: Path, data_dir: Path) -> None:
    recipe = dataclasses.replace(SMALL, pretrain={**SMALL.pretrain, "hidden_size": 33})
    with pytest.raises(StepFailed, match="pretrain: .*33 is not divisible by 2 heads"):
        Training(data_dir / "korean", print, recipe).run(table, prompt="Q", response="A")


def test_a_name_that_is_taken_is_refused_before_anything_is_trained(table: Path, data_dir: Path, db: None) -> None:
    User.objects.create_superuser("admin")
    project = Project.objects.create(name="한국어 대화", slug="ko", languages=["ko"])
    Prompt.objects.add(project, [{"role": "user", "content": "안녕?"}], language="ko")
    with pytest.raises(CommandError, match="already. Choose others"):
        call_command("korean", str(table))
    assert not (data_dir / "korean").exists()
