"""The vocabulary of modelzoo: what a model is made of and what a training run may be told.

Dataclasses without torch, so that a web form can refuse a bad value before a run exists. Every training parameter is
a field declared with `param()`, which carries its help and its limits; `build()` turns overrides into a checked config.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """Some parameters cannot be used. `errors` maps each parameter's name to what is wrong with it."""

    def __init__(self, errors: dict[str, str]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{name}: {message}" for name, message in errors.items()))


def param(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field that knows its help text and its limits (both inclusive)."""
    return field(default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum, "choices": choices})


VARIANTS = {
    "position": ("rope", "learned", "alibi"),
    "norm": ("rmsnorm", "layernorm"),
    "mlp": ("swiglu", "gelu", "gelu_tanh", "silu"),
    "bias": ("none", "qkv", "all"),
}
"""What a model's parts can be."""
MOST_LAYERS = 1000  # a file may claim any number, and each is built before the weights are looked at


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder. Left alone it is a Llama; each field below `tie_word_embeddings` makes another variant of it.

    Names are those of Hugging Face's `config.json` where it has one. A size of 0 means "as usual" and is replaced by
    what that is: `head_dim` by width / heads, `embedding_size` by the width, `num_hidden_groups` by the layers.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int  # as many as heads: multi-head; fewer: grouped-query; 1: multi-query attention
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5  # epsilon of either norm
    tie_word_embeddings: bool = True
    position: str = "rope"  # each of these four is one of VARIANTS
    norm: str = "rmsnorm"
    mlp: str = "swiglu"
    bias: str = "none"  # of linear layers: queries, keys and values (Qwen2), or all of them (GPT-2)
    qk_norm: bool = False  # RMSNorm on each head's queries and keys (Qwen3)
    head_dim: int = 0  # need not be width / heads (Qwen3)
    num_hidden_groups: int = 0  # layers of one group are the same layer (ALBERT)
    embedding_size: int = 0  # below the width: the embedding matrix is a product of two (ALBERT)
    sliding_window: int = 0  # a token sees this many, itself included (Mistral); 0: all before it

    def __post_init__(self) -> None:
        errors = self._bad_values()
        if not errors:
            usual = {
                "head_dim": self.hidden_size // self.num_attention_heads,
                "embedding_size": self.hidden_size,
                "num_hidden_groups": self.num_hidden_layers,
            }
            errors = self._bad_shapes()
            for name, value in usual.items():
                object.__setattr__(self, name, getattr(self, name) or value)  # frozen for everybody else
        if errors:
            raise ConfigError(errors)

    @property
    def sees_all(self) -> bool:
        """Whether attention treats all tokens before one alike, however far away they are."""
        return self.position != "alibi" and not self.sliding_window

    def _bad_values(self) -> dict[str, str]:
        """What is wrong with each field by itself."""
        errors = {}
        for spec in dataclasses.fields(self):
            value, choices = getattr(self, spec.name), VARIANTS.get(spec.name)
            least = 1 if spec.default is dataclasses.MISSING or spec.name == "max_position_embeddings" else 0
            if spec.type is int and (not isinstance(value, int) or value < least):
                errors[spec.name] = f"must be a whole number {'above 0' if least else 'from 0'}, not {value!r}"
            if spec.type is float and not (isinstance(value, int | float) and 0 < value < math.inf):
                errors[spec.name] = f"must be a number above 0, not {value!r}"
            if choices and value not in choices:
                errors[spec.name] = f"must be one of {', '.join(choices)}, not {value!r}"
        return errors

    def _bad_shapes(self) -> dict[str, str]:
        """What is wrong with the fields together; sizes of 0 are not replaced yet."""
        errors = {}
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if not self.head_dim and self.hidden_size % heads:
            errors["hidden_size"] = f"{self.hidden_size} is not divisible by {heads} heads"
        elif self.position == "rope" and (size := self.head_dim or self.hidden_size // heads) % 2:
            name = "head_dim" if self.head_dim else "hidden_size"
            errors[name] = f"RoPE turns pairs: a head of {size} dimensions is odd"
        if heads % groups:
            errors["num_key_value_heads"] = f"{heads} heads cannot share {groups} key-value heads evenly"
        if self.num_hidden_layers > MOST_LAYERS:
            errors["num_hidden_layers"] = f"must be at most {MOST_LAYERS}, not {self.num_hidden_layers}"
        if self.num_hidden_groups > self.num_hidden_layers:
            errors["num_hidden_groups"] = f"{self.num_hidden_layers} layers cannot form {self.num_hidden_groups} groups"
        return errors


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn. Stored beside every set that was sampled with it."""

    temperature: float = param(
        1.0, "0 takes the likeliest token each time; higher is more varied.", minimum=0.0, maximum=5.0
    )
    top_p: float = param(
        1.0, "Keep the smallest set of tokens with this much probability; 1 keeps all.", minimum=0.01, maximum=1.0
    )
    top_k: int = param(0, "Keep only this many of the likeliest tokens; 0 keeps all.", minimum=0, maximum=1_000_000)
    max_new_tokens: int = param(128, "A completion is cut after this many tokens.", minimum=1, maximum=8192)
    seed: int = param(0, "The same seed, policy and prompts give the same completions.", minimum=0, maximum=2**31 - 1)


@dataclass(frozen=True)
class TrainingConfig:
    """Parameters every trainer has. Adam's betas are InstructGPT's (0.9, 0.95)."""

    learning_rate: float = param(1e-5, "Adam's peak step size.", minimum=0.0, maximum=1.0)
    weight_decay: float = param(0.0, "Decoupled weight decay on matrices.", minimum=0.0, maximum=1.0)
    adam_eps: float = param(1e-8, "Adam's epsilon.", minimum=1e-12, maximum=1e-1)
    max_grad_norm: float = param(1.0, "Gradients are scaled down to at most this norm.", minimum=1e-6, maximum=1e6)
    max_length: int = param(
        1024,
        "Longest prompt plus response, in tokens; longer ones are left out and counted.",
        minimum=8,
        maximum=131072,
    )
    micro_batch_size: int = param(
        4, "How many sequences go through the model at once; less memory, same result.", minimum=1, maximum=4096
    )
    gradient_checkpointing: bool = param(False, "Compute layers again going back: less memory, slower.")
    sharding: str = param(
        "if_needed",
        "Spread weights and Adam over the processes of a run, if each cannot hold them whole.",
        choices=("if_needed", "always", "never"),
    )
    precision: str = param("auto", "Of products; auto is bfloat16 on a GPU.", choices=("auto", "float32", "bfloat16"))
    checkpoint_every: int = param(
        50, "Steps between checkpoints; a run resumes from the last one.", minimum=1, maximum=1_000_000
    )
    seed: int = param(0, "Fixes data order, dropout, initial heads and rollouts.", minimum=0, maximum=2**31 - 1)


@dataclass(frozen=True)
class FineTuningConfig(TrainingConfig):
    """Parameters of the trainers that start from a model: all of its weights are trained, or adapters (2106.09685)."""

    lora_rank: int = param(
        0,
        "Train adapters of this rank and leave the weights as they are; 0 trains the weights.",
        minimum=0,
        maximum=1024,
    )
    lora_alpha: float = param(
        16.0, "What adapters add is scaled by this over their rank.", minimum=0.001, maximum=10_000.0
    )
    lora_layers: str = param(
        "all", "Which layers get adapters: attention alone, or the feed-forward ones too.", choices=("attention", "all")
    )


@dataclass(frozen=True)
class AdversarialConfig(FineTuningConfig):
    """Parameters of the trainers that can learn from disturbed embeddings: small changes of a text then matter less."""

    adversarial: str = param(
        "none",
        "Disturb embeddings in training: by the gradient in one step or several, or at random.",
        choices=("none", "fgm", "freelb", "neftune"),
    )
    adversarial_epsilon: float = param(
        1.0, "Size of the disturbance: its norm in a sequence, or NEFTune's alpha.", minimum=0.0, maximum=1000.0
    )
    adversarial_steps: int = param(2, "Passes of FreeLB; each costs as much as plain training.", minimum=2, maximum=16)


@dataclass(frozen=True)
class SFTConfig(AdversarialConfig):
    """Supervised fine-tuning on demonstrations (InstructGPT, appendix C.1)."""

    learning_rate: float = param(2e-5, "Adam's peak step size.", minimum=0.0, maximum=1.0)
    epochs: int = param(
        2, "Passes over the demonstrations. InstructGPT used 16 and chose by reward.", minimum=1, maximum=1000
    )
    batch_size: int = param(8, "Demonstrations per optimizer step.", minimum=1, maximum=4096)
    warmup_ratio: float = param(0.0, "Share of steps in which the learning rate rises.", minimum=0.0, maximum=0.9)
    final_lr_ratio: float = param(0.1, "The cosine schedule ends at this share of the peak.", minimum=0.0, maximum=1.0)
    packing: bool = param(
        True, "Demonstrations stand one behind another in a row instead of being padded: faster, same result."
    )


@dataclass(frozen=True)
class RewardConfig(AdversarialConfig):
    """Reward model on rankings: all pairs of a prompt in one batch element (InstructGPT, equation 1)."""

    learning_rate: float = param(9e-6, "Adam's peak step size.", minimum=0.0, maximum=1.0)
    epochs: int = param(1, "Passes over the rankings. More than one overfits.", minimum=1, maximum=1000)
    batch_size: int = param(8, "Prompts (whole rankings) per optimizer step. InstructGPT: 64.", minimum=1, maximum=4096)
    warmup_ratio: float = param(0.0, "Share of steps in which the learning rate rises.", minimum=0.0, maximum=0.9)
    final_lr_ratio: float = param(0.1, "The cosine schedule ends at this share of the peak.", minimum=0.0, maximum=1.0)
    micro_batch_size: int = param(
        4,
        "Completions that go through the model at once; less memory, same result. A ranking is never split.",
        minimum=1,
        maximum=4096,
    )
    ties: str = param("drop", "Tied pairs: leave them out, or pull their scores together.", choices=("drop", "model"))
    margin: float = param(0.0, "Preferred completions must win by this much.", minimum=0.0, maximum=100.0)


@dataclass(frozen=True)
class DPOConfig(FineTuningConfig):
    """Direct preference optimisation on rankings (2305.18290): no reward model, no sampling."""

    learning_rate: float = param(2e-6, "Adam's peak step size.", minimum=0.0, maximum=1.0)
    epochs: int = param(1, "Passes over the rankings.", minimum=1, maximum=1000)
    batch_size: int = param(8, "Prompts (whole rankings) per optimizer step.", minimum=1, maximum=4096)
    warmup_ratio: float = param(0.1, "Share of steps in which the learning rate rises.", minimum=0.0, maximum=0.9)
    final_lr_ratio: float = param(0.1, "The cosine schedule ends at this share of the peak.", minimum=0.0, maximum=1.0)
    micro_batch_size: int = param(
        4,
        "Completions that go through the model at once; less memory, same result. A ranking is never split.",
        minimum=1,
        maximum=4096,
    )
    beta: float = param(0.1, "How strongly the policy is held to the one it starts from.", minimum=0.001, maximum=100.0)


@dataclass(frozen=True)
class PPOConfig(FineTuningConfig):
    """PPO against the reward model with a KL penalty to the reference policy (InstructGPT, appendix C.4)."""

    learning_rate: float = param(9e-6, "Adam's peak step size for the policy.", minimum=0.0, maximum=1.0)
    value_learning_rate: float = param(9e-6, "Adam's step size for the value model.", minimum=0.0, maximum=1.0)
    warmup_steps: int = param(
        2, "Rollouts over which the learning rate rises from a tenth. InstructGPT: 10.", minimum=0, maximum=100_000
    )
    episodes: int = param(
        256, "Completions sampled and learned from in all. InstructGPT: 256,000.", minimum=1, maximum=10_000_000
    )
    batch_size: int = param(32, "Completions per rollout. InstructGPT: 512.", minimum=1, maximum=65536)
    minibatch_size: int = param(
        16, "Completions per optimizer step; divides the batch. InstructGPT: 64.", minimum=1, maximum=65536
    )
    inner_epochs: int = param(1, "Passes over each rollout.", minimum=1, maximum=32)
    temperature: float = param(
        1.0, "Sampling temperature of rollouts; log-probabilities use it too.", minimum=0.05, maximum=5.0
    )
    max_new_tokens: int = param(64, "A response is cut after this many tokens.", minimum=1, maximum=8192)
    kl_coef: float = param(
        0.02, "Weight of the KL penalty to the reference policy. InstructGPT: 0.02.", minimum=0.0, maximum=100.0
    )
    kl_target: float = param(
        0.0, "Adapt the KL weight towards this KL per response; 0 keeps it fixed.", minimum=0.0, maximum=1000.0
    )
    kl_horizon: int = param(10_000, "Episodes over which the adaptive KL weight moves.", minimum=1, maximum=100_000_000)
    kl_stop: float = param(
        0.0, "End the run early when KL per response passes this; 0 never does.", minimum=0.0, maximum=10_000.0
    )
    gamma: float = param(1.0, "Discount per token.", minimum=0.0, maximum=1.0)
    gae_lambda: float = param(0.95, "Lambda of generalised advantage estimation.", minimum=0.0, maximum=1.0)
    clip_range: float = param(
        0.2, "The probability ratio is clipped to 1 plus or minus this.", minimum=0.01, maximum=10.0
    )
    value_clip_range: float = param(0.2, "The value may move by this much per update.", minimum=0.01, maximum=100.0)
    value_coef: float = param(0.1, "Weight of the value loss.", minimum=0.0, maximum=100.0)
    missing_eos_penalty: float = param(
        1.0, "Taken from the reward of a response that never ends.", minimum=0.0, maximum=1000.0
    )
    whiten_rewards: bool = param(False, "Scale rewards to variance 1, keeping their mean.")
    ptx_coef: float = param(
        0.0, "Weight of the pretraining mix; 0 leaves it out. InstructGPT: 27.8.", minimum=0.0, maximum=1000.0
    )
    ptx_ratio: int = param(1, "Pretraining windows per completion. InstructGPT: 8.", minimum=1, maximum=64)
    ptx_length: int = param(256, "Tokens in a pretraining window.", minimum=8, maximum=131072)
    ema_decay: float = param(
        0.992,
        "The exported policy is this moving average of the weights; 0 exports the last. InstructGPT: 0.992.",
        minimum=0.0,
        maximum=0.999999,
    )

    def __post_init__(self) -> None:
        if self.batch_size % self.minibatch_size:
            raise ConfigError({"minibatch_size": f"must divide the batch of {self.batch_size}"})
        if self.max_new_tokens >= self.max_length:
            raise ConfigError(
                {"max_new_tokens": f"must leave room for a prompt within max_length of {self.max_length}"}
            )


STAGES: dict[str, type[TrainingConfig]] = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "ppo": PPOConfig,
    "dpo": DPOConfig,
}
"""The stages a product run can have: InstructGPT's in its order, then what people compare the last two with."""


def build(config_class: type[T], overrides: dict[str, Any]) -> T:
    """A config with `overrides` over the defaults. ConfigError names every unknown, bad or missing value at once."""
    fields = {f.name: f for f in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in fields:
            errors[name] = "is not a parameter; known are " + ", ".join(sorted(fields))
            continue
        try:
            values[name] = _checked(fields[name], value)
        except ValueError as error:
            errors[name] = str(error)
    errors |= {
        name: "is missing" for name, f in fields.items() if f.default is dataclasses.MISSING and name not in overrides
    }
    if errors:
        raise ConfigError(errors)
    return config_class(**values)


def _checked(spec: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the field's type, or ValueError saying what would be accepted."""
    kind = spec.type
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {value!r}")
    elif kind is int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
            raise ValueError(f"must be a whole number, not {value!r}")
        value = int(value)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"must be a number, not {value!r}")
        value = float(value)
    elif kind is str and not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r}")
    limits = spec.metadata
    if limits.get("choices") and value not in limits["choices"]:
        raise ValueError(f"must be one of {', '.join(limits['choices'])}, not {value!r}")
    if limits.get("minimum") is not None and value < limits["minimum"]:
        raise ValueError(f"must be at least {limits['minimum']}, not {value}")
    if limits.get("maximum") is not None and value > limits["maximum"]:
        raise ValueError(f"must be at most {limits['maximum']}, not {value}")
    return value
