"""Products in bfloat16, as GPUs have them, change little and none of the exact claims."""

from typing import Any

import pytest
import torch

from modelzoo.checkpoint import load_policy
from modelzoo.config import PPOConfig, SFTConfig, build
from modelzoo.run import Run
from modelzoo.spec import Spec
from modelzoo.tests.conftest import Train

BFLOAT16 = {"precision": "bfloat16"}


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_bfloat16_takes_nearly_the_course_of_float32(train: Train, stage: str) -> None:
    params = {"epochs": 3, "learning_rate": 1e-3}
    exact, rounded = (train(stage, {**params, **extra}, out=f"out-{len(extra)}") for extra in ({}, BFLOAT16))
    assert exact.code == rounded.code == 0
    assert rounded.series("loss") != exact.series("loss")
    assert rounded.series("loss") == pytest.approx(exact.series("loss"), rel=0.03)


def test_the_first_step_of_ppo_in_bfloat16_has_no_kl_and_a_ratio_of_1(train: Train) -> None:
    done = train("ppo", {"episodes": 16, "batch_size": 8, "minibatch_size": 8, **BFLOAT16})
    first = done.metrics[0]
    assert (first["kl"], first["approx_kl"], first["ratio"], first["clip_fraction"]) == (0, 0, 1, 0)
    assert len(done.series("reward")) == 2


def test_weights_are_kept_in_float32(train: Train) -> None:
    policy, _, manifest = load_policy(train("sft", BFLOAT16).out / "model")
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}
    assert manifest["params"]["precision"] == "bfloat16"


def test_auto_is_bfloat16_on_a_gpu_and_float32_elsewhere(tmp_path: Any) -> None:
    for config_class, stage in ((SFTConfig, "sft"), (PPOConfig, "ppo")):
        run: Run[Any] = Run(Spec(stage, build(config_class, {}), *[None] * 7, resume_from=()), tmp_path)
        run.device = torch.device("cpu")
        assert not run.in_bfloat16
        run.device = torch.device("cuda")
        assert run.in_bfloat16
