"""What a pretraining run may be told. It stands apart from the stages that the site offers."""

import dataclasses
from dataclasses import dataclass

from modelzoo.config import VARIANTS, ModelConfig, TrainingConfig, param


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """A language model from scratch on plain text or dialogues; its vocabulary is that of the tokenizer it is given."""

    learning_rate: float = param(1e-3, "Adam's peak step size.", minimum=0.0, maximum=1.0)
    weight_decay: float = param(0.1, "Decoupled weight decay on matrices.", minimum=0.0, maximum=1.0)
    max_length: int = param(
        256, "Tokens in a training window, and the longest context of the model.", minimum=8, maximum=131072
    )
    micro_batch_size: int = param(
        16, "How many windows go through the model at once; less memory, same result.", minimum=1, maximum=4096
    )
    batch_size: int = param(16, "Windows per optimizer step.", minimum=1, maximum=4096)
    epochs: int = param(1, "Passes over the corpus.", minimum=1, maximum=1000)
    schedule: str = param(
        "cosine", "How the learning rate falls: all along, or late (warm-up, stable, decay).", choices=("cosine", "wsd")
    )
    warmup_ratio: float = param(0.02, "Share of steps in which the learning rate rises.", minimum=0.0, maximum=0.9)
    decay_ratio: float = param(0.2, "Share of steps in which the wsd schedule falls.", minimum=0.0, maximum=1.0)
    final_lr_ratio: float = param(0.1, "The schedule ends at this share of the peak.", minimum=0.0, maximum=1.0)
    evaluate_every: int = param(500, "Steps between measurements of the held-out loss.", minimum=1, maximum=1_000_000)
    hidden_size: int = param(256, "Width of the model.", minimum=2, maximum=16384)
    intermediate_size: int = param(688, "Width of the feed-forward layers.", minimum=1, maximum=65536)
    num_hidden_layers: int = param(6, "Layers.", minimum=1, maximum=256)
    num_attention_heads: int = param(8, "Query heads; divides the width.", minimum=1, maximum=256)
    num_key_value_heads: int = param(4, "Key and value heads; divides the query heads.", minimum=1, maximum=256)
    position: str = param(
        "rope",
        "How a token knows where it stands: turned heads, a table, or a bias by distance.",
        choices=VARIANTS["position"],
    )
    norm: str = param("rmsnorm", "What normalises the residual stream.", choices=VARIANTS["norm"])
    mlp: str = param("swiglu", "The feed-forward layer: gated (swiglu) or plain.", choices=VARIANTS["mlp"])
    bias: str = param(
        "none", "Which linear layers have one: none, queries to values, or all.", choices=VARIANTS["bias"]
    )
    qk_norm: bool = param(False, "Normalise each head's queries and keys.")
    head_dim: int = param(0, "Dimensions of a head; 0 divides the width by the heads.", minimum=0, maximum=1024)
    num_hidden_groups: int = param(
        0, "Layers that differ; the others share their weights. 0: all.", minimum=0, maximum=256
    )
    embedding_size: int = param(
        0, "Width of the token embeddings before they are projected; 0: the model's.", minimum=0, maximum=16384
    )
    tie_word_embeddings: bool = param(True, "Predict with the embedding matrix itself.")

    def shape(self, vocab_size: int) -> ModelConfig:
        """The model that the run makes."""
        names = {spec.name for spec in dataclasses.fields(ModelConfig)} & {
            spec.name for spec in dataclasses.fields(self)
        }
        given = {name: getattr(self, name) for name in names}
        return ModelConfig(**given, vocab_size=vocab_size, max_position_embeddings=self.max_length)
