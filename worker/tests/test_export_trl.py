"""Exported files go into TRL's trainers as they are: loaded with datasets, no column touched, one step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labeling.models import Demonstration, Export, Project, Prompt, User
from labeling.tests.rows import many_ranked
from worker.exporting import write_export

trl = pytest.importorskip("trl", reason="the peer is a development dependency")

pytestmark = [pytest.mark.django_db, pytest.mark.once]

Load = Callable[..., Any]
FORMATS = [("json", "jsonl"), ("parquet", "parquet")]


@pytest.fixture
def load(project: Project, curator: User, tmp_path: Path) -> Load:
    """Export what was asked for and load it, as docs/files.md shows."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    many_ranked(project, curator, 2, words="good fish ")
    for number in range(4):
        prompt = Prompt.objects.add(project, [{"role": "user", "content": f"the cat {number}"}], language="en")
        Prompt.objects.filter(pk=prompt.pk).approve(curator)
        Demonstration.objects.import_all([(prompt, "saw good fish")], "a book")

    def load(reader: str, ending: str, **choices: str) -> Any:
        path = tmp_path / f"labels.{ending}"
        write_export(Export(project=project, format=ending, **choices), path, lambda step, total: None)
        return load_dataset(reader, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))

    return load


def arguments(kind: Any, folder: Path, **options: Any) -> Any:
    return kind(
        output_dir=str(folder / "trl"),
        max_steps=1,
        per_device_train_batch_size=4,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )


def trained(trainer: Any) -> float:
    """The loss of one step, which must have moved the weights."""
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    loss: float = trainer.train().training_loss
    assert loss > 0
    assert any(not weight.equal(old) for weight, old in zip(trainer.model.parameters(), before, strict=True))
    return loss


def model(checkpoint: Path, auto: str, **options: Any) -> dict[str, Any]:
    import transformers

    return {
        "model": getattr(transformers, auto).from_pretrained(checkpoint, dtype="float32", **options),
        "processing_class": transformers.AutoTokenizer.from_pretrained(checkpoint),
    }


@pytest.mark.parametrize(("reader", "ending"), FORMATS)
@pytest.mark.parametrize("margin", ["none", "tiers", "ratings"])
def test_reward_trainer_takes_pairs_with_and_without_margins(
    load: Load, checkpoint: Path, tmp_path: Path, reader: str, ending: str, margin: str
) -> None:
    data = load(reader, ending, kind="pairs", margin=margin)
    assert len(data) == 12
    assert ("margin" in data.column_names) == (margin != "none")
    peer = model(checkpoint, "AutoModelForSequenceClassification", num_labels=1)
    trainer = trl.RewardTrainer(**peer, args=arguments(trl.RewardConfig, tmp_path), train_dataset=data)
    assert len(trainer.train_dataset) == 12
    batch = next(iter(trainer.get_train_dataloader()))
    assert ("margin" in batch) == (margin != "none")
    trained(trainer)


def test_reward_trainer_reads_the_margins_that_were_exported(load: Load, checkpoint: Path, tmp_path: Path) -> None:
    data = load("json", "jsonl", kind="pairs", margin="tiers")
    peer = model(checkpoint, "AutoModelForSequenceClassification", num_labels=1)
    trainer = trl.RewardTrainer(**peer, args=arguments(trl.RewardConfig, tmp_path), train_dataset=data)
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(6)])
    assert batch["margin"].tolist() == [1.0, 2.0, 3.0, 1.0, 2.0, 1.0]  # tiers 1 2 3 4
    chosen, rejected = (peer["processing_class"].decode(ids) for ids in batch["input_ids"][[0, 6]])
    assert "0 of " in chosen and "1 of " in rejected


@pytest.mark.parametrize(("reader", "ending"), FORMATS)
def test_dpo_trainer_takes_pairs(load: Load, checkpoint: Path, tmp_path: Path, reader: str, ending: str) -> None:
    data = load(reader, ending, kind="pairs", ties="keep")
    peer = model(checkpoint, "AutoModelForCausalLM")
    trainer = trl.DPOTrainer(**peer, args=arguments(trl.DPOConfig, tmp_path), train_dataset=data)
    assert abs(trained(trainer) - 0.693) < 0.01  # ln 2: the policy is its own reference before the first step


@pytest.mark.parametrize(("reader", "ending"), FORMATS)
def test_sft_trainer_takes_demonstrations(
    load: Load, checkpoint: Path, tmp_path: Path, reader: str, ending: str
) -> None:
    data = load(reader, ending, kind="demonstrations")
    peer = model(checkpoint, "AutoModelForCausalLM")
    trainer = trl.SFTTrainer(**peer, args=arguments(trl.SFTConfig, tmp_path), train_dataset=data)
    text = peer["processing_class"].decode(trainer.train_dataset[0]["input_ids"])
    assert "the cat 0" in text and "saw good fish" in text
    trained(trainer)


def test_sft_trainer_takes_ratings_as_prompt_and_completion(load: Load, checkpoint: Path, tmp_path: Path) -> None:
    good = load("parquet", "parquet", kind="ratings").filter(lambda row: row["overall"] >= 3)
    assert len(good) == 4
    peer = model(checkpoint, "AutoModelForCausalLM")
    trainer = trl.SFTTrainer(**peer, args=arguments(trl.SFTConfig, tmp_path), train_dataset=good)
    trained(trainer)
