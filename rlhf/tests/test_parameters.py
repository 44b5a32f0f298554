"""Training parameters as form fields."""

from typing import Any

import pytest
from django import forms

from modelzoo.config import STAGES
from rlhf import parameters


class SomeForm(forms.Form):
    def __init__(self, stage: str, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.stage = stage
        self.fields |= parameters.fields(stage)

    def clean(self) -> None:
        self.overrides = parameters.clean(self, self.stage)


def filled(stage: str, **changes: Any) -> SomeForm:
    """The form as a browser sends it with every default left as it is, but for `changes`."""
    empty = SomeForm(stage, {})
    values = {name: field.initial for name, field in empty.fields.items()}
    sent = {name: value for name, value in {**values, **changes}.items() if value is not False}  # unticked
    return SomeForm(stage, sent)


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_has_a_field_a_label_and_help(stage: str) -> None:
    for name, spec in parameters.specs(stage).items():
        field = parameters.fields(stage)[name]
        assert name in parameters.LABELS
        assert spec.metadata["help"] in str(field.help_text)
    grouped = [name for _title, options in parameters.fieldsets(stage, "All") for name in options["fields"]]
    assert sorted(grouped) == sorted(parameters.specs(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_untouched_form_overrides_nothing(stage: str) -> None:
    form = filled(stage)
    assert form.is_valid(), form.errors
    assert form.overrides == {}


def test_only_changes_are_kept() -> None:
    form = filled("ppo", kl_coef="0.05", episodes="512", whiten_rewards="on")
    assert form.is_valid(), form.errors
    assert form.overrides == {"kl_coef": 0.05, "episodes": 512, "whiten_rewards": True}


BAD = [
    ("sft", "learning_rate", "2"),
    ("sft", "learning_rate", "nan"),
    ("sft", "learning_rate", "inf"),
    ("sft", "learning_rate", "fast"),
    ("sft", "learning_rate", ""),
    ("sft", "epochs", "1.5"),
    ("sft", "epochs", "0"),
    ("sft", "seed", "-1"),
    ("reward", "ties", "shrug"),
    ("reward", "margin", "-0.1"),
    ("ppo", "batch_size", "0"),
    ("ppo", "minibatch_size", "5"),
    ("ppo", "ema_decay", "1"),
    ("ppo", "max_new_tokens", "9000"),
    ("ppo", "clip_range", "0"),
]


@pytest.mark.parametrize(("stage", "name", "value"), BAD)
def test_bad_value_is_refused_beside_its_field(stage: str, name: str, value: str) -> None:
    form = filled(stage, **{name: value})
    assert not form.is_valid()
    assert set(form.errors) == {name}


def test_several_bad_values_are_all_named() -> None:
    form = filled("ppo", learning_rate="9", gamma="-1", episodes="many")
    assert set(form.errors) == {"learning_rate", "gamma", "episodes"}


def test_help_names_default_and_limits() -> None:
    help_text = str(parameters.fields("ppo")["episodes"].help_text)
    assert help_text.endswith("Default 256, from 1 to 10,000,000.")


def test_values_are_shown_as_people_write_them() -> None:
    assert [parameters.shown(value) for value in (1e-05, 0.02, 1.0, 64, True, "drop")] == [
        "1e-05",
        "0.02",
        "1",
        "64",
        "True",
        "drop",
    ]
