"""Training parameters as form fields, generated from the dataclasses in `modelzoo.config`."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from django import forms
from django.utils.formats import number_format
from django.utils.functional import lazy
from django.utils.text import format_lazy
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelzoo.config import STAGES, ConfigError, build

MAIN = {
    "sft": ("learning_rate", "epochs", "batch_size", "max_length"),
    "reward": ("learning_rate", "epochs", "batch_size", "ties", "max_length"),
    "ppo": ("learning_rate", "episodes", "batch_size", "minibatch_size", "kl_coef", "max_new_tokens"),
    "dpo": ("learning_rate", "epochs", "batch_size", "beta", "max_length"),
}
"""What most people change; the rest stands under “advanced”."""

LABELS = {
    "adam_eps": _("Adam's epsilon"),
    "adversarial": _("Adversarial training"),
    "adversarial_epsilon": _("Size of the disturbance"),
    "adversarial_steps": _("FreeLB passes"),
    "batch_size": _("Batch size"),
    "beta": _("Beta"),
    "checkpoint_every": _("Steps between checkpoints"),
    "clip_range": _("Clip range"),
    "ema_decay": _("Moving average of the weights"),
    "episodes": _("Episodes"),
    "epochs": _("Epochs"),
    "final_lr_ratio": _("Final learning rate"),
    "gae_lambda": _("GAE lambda"),
    "gamma": _("Gamma"),
    "inner_epochs": _("Passes over each rollout"),
    "gradient_checkpointing": _("Compute layers again"),
    "kl_coef": _("KL weight"),
    "kl_horizon": _("KL horizon"),
    "kl_stop": _("KL stop"),
    "kl_target": _("KL target"),
    "learning_rate": _("Learning rate"),
    "lora_alpha": _("LoRA alpha"),
    "lora_layers": _("LoRA layers"),
    "lora_rank": _("LoRA rank"),
    "margin": _("Margin"),
    "max_grad_norm": _("Largest gradient norm"),
    "max_length": _("Longest sequence"),
    "max_new_tokens": _("Longest response"),
    "micro_batch_size": _("Micro-batch size"),
    "minibatch_size": _("Minibatch size"),
    "missing_eos_penalty": _("Penalty for no end"),
    "packing": _("Packing"),
    "precision": _("Precision"),
    "ptx_coef": _("Pretraining weight"),
    "ptx_length": _("Pretraining window"),
    "ptx_ratio": _("Pretraining windows per completion"),
    "seed": _("Seed"),
    "sharding": _("Spread over processes"),
    "temperature": _("Temperature"),
    "ties": _("Tied pairs"),
    "value_clip_range": _("Value clip range"),
    "value_coef": _("Value loss weight"),
    "value_learning_rate": _("Learning rate of the value model"),
    "warmup_ratio": _("Warm-up share"),
    "warmup_steps": _("Warm-up steps"),
    "weight_decay": _("Weight decay"),
    "whiten_rewards": _("Whiten rewards"),
}

CHOICE_LABELS = {
    "drop": _("leave them out"),
    "model": _("pull their scores together"),
    "none": _("none"),
    "fgm": _("FGM: one step along the gradient"),
    "freelb": _("FreeLB: several steps along the gradient"),
    "neftune": _("NEFTune: random noise"),
    "auto": _("as the machine likes: bfloat16 on a GPU, float32 elsewhere"),
    "if_needed": _("if needed"),
    "always": _("always"),
    "never": _("never"),
    "attention": _("attention"),
    "all": _("attention and feed-forward"),
}

# What only shows when values meet: `build` says it in English, the form in the reader's language.
TOGETHER = {"minibatch_size": _("The minibatch size must divide the batch size.")}


def specs(stage: str) -> dict[str, "dataclasses.Field[Any]"]:
    return {spec.name: spec for spec in dataclasses.fields(STAGES[stage])}


def label(name: str) -> Any:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def fields(stage: str, prefix: str = "") -> dict[str, forms.Field]:
    """A form field for each parameter of `stage`, under its name with `prefix` before it."""
    return {prefix + spec.name: _field(spec) for spec in specs(stage).values()}


def fieldsets(stage: str, title: Any, prefix: str = "") -> Iterator[tuple[Any, dict[str, Any]]]:
    """The main parameters and, folded up, the advanced ones."""
    advanced = [name for name in specs(stage) if name not in MAIN[stage]]
    yield title, {"fields": [prefix + name for name in MAIN[stage]]}
    folded = format_lazy("{title}: {advanced}", title=title, advanced=_("advanced"))
    yield folded, {"fields": [prefix + name for name in advanced], "classes": ["collapse"]}


def initial(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Overrides as initial values of the form fields; what is not overridden shows its default."""
    return {prefix + name: value for name, value in params.items()}


def clean(form: forms.Form | forms.ModelForm[Any], stage: str, prefix: str = "") -> dict[str, Any]:
    """The overrides that `form` holds: what differs from the defaults. What is wrong stands beside its field."""
    given = {name: form.cleaned_data[prefix + name] for name in specs(stage) if prefix + name in form.cleaned_data}
    overrides = {name: value for name, value in given.items() if value != specs(stage)[name].default}
    if len(given) == len(specs(stage)):  # otherwise some field is wrong by itself and says so
        try:
            build(STAGES[stage], overrides)
        except ConfigError as error:
            for name, message in error.errors.items():
                form.add_error(prefix + name, TOGETHER.get(name, message))
    return overrides


def table(stage: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Every parameter with its value in a run that overrides `params`, and whether it does."""
    rows = []
    for name, spec in specs(stage).items():
        value, changed = params.get(name, spec.default), name in params
        rows.append({"name": name, "label": label(name), "value": shown(value), "changed": changed})
    return rows


def shown(value: Any) -> str:
    """A value as people write it: 1e-05, 0.02, 10,000."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    whole = float(value).is_integer()
    return number_format(int(value), force_grouping=True) if whole else f"{value:g}"


def _field(spec: "dataclasses.Field[Any]") -> forms.Field:
    limits = spec.metadata
    common: dict[str, Any] = {"label": label(spec.name), "initial": spec.default, "help_text": _lazy_help(spec)}
    if spec.type is bool:
        return forms.BooleanField(required=False, **common)
    if limits["choices"]:
        choices = [(choice, CHOICE_LABELS.get(choice, choice)) for choice in limits["choices"]]
        return forms.ChoiceField(choices=choices, **common)
    kind = forms.IntegerField if spec.type is int else forms.FloatField
    return kind(min_value=limits["minimum"], max_value=limits["maximum"], **common)


def _help(spec: "dataclasses.Field[Any]") -> str:
    """What it does, its default and what is allowed. The texts of `modelzoo.config` are in the catalogue, too."""
    text = gettext(spec.metadata["help"])
    if spec.type is bool or spec.metadata["choices"]:
        return text
    limits = gettext("Default %(default)s, from %(minimum)s to %(maximum)s.") % {
        "default": shown(spec.default),
        "minimum": shown(spec.metadata["minimum"]),
        "maximum": shown(spec.metadata["maximum"]),
    }
    return f"{text} {limits}"


_lazy_help = lazy(_help, str)
