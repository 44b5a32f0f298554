"""Gradient checkpointing: layers are computed again going back. Nothing changes but memory and time."""

from typing import Any

import pytest
import torch
from torch import nn

from modelzoo.tests.conftest import Train
from modelzoo.tests.test_resume import STAGES, TEN_STEPS, assert_same_model, course
from modelzoo.transformer import Transformer

RECOMPUTE = {"gradient_checkpointing": True}
ALSO = ["sft lora", "reward freelb", "sft bfloat16"]


@pytest.mark.parametrize("stage", [*STAGES, *ALSO])
def test_a_run_that_recomputes_takes_the_same_course_to_the_bit(train: Train, corpus: str, stage: str) -> None:
    name = stage.split()[0]
    plain, again = (
        train(name, {**TEN_STEPS[stage], **extra}, corpus=corpus, out=f"out-{len(extra)}") for extra in ({}, RECOMPUTE)
    )
    assert plain.code == again.code == 0
    assert course(again.metrics) == course(plain.metrics)
    assert_same_model(plain, again)


def kept_by(policy: Transformer, tokens: torch.Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, weights apart."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = policy.hidden(tokens)
    size = sum(kept.values())
    hidden.sum().backward()
    return size


def test_recomputing_keeps_one_input_of_each_layer(policy: Any) -> None:
    tokens = torch.randint(5, 40, (4, 24))
    plain = kept_by(policy, tokens)
    policy.model.recompute = True
    assert kept_by(policy, tokens) < plain / 4
