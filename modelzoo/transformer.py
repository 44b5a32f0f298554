"""A decoder with Hugging Face's parameter names, and the same trunk with a scalar head.

By default a Llama: RMSNorm, RoPE that rotates halves, SwiGLU, grouped-query attention. Fields of `ModelConfig` make it
GPT-2, Qwen, Mistral, or a mixture. Shapes: B rows, T columns of tokens, S columns that these may look at, D width,
V vocabulary, H heads, G key-value heads, E dimensions a head, L layers.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelzoo.config import ModelConfig
from modelzoo.linear import Linear, linear

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Layer, queries (B, H, T, E), keys and values (B, G, T, E) -> (B, H, T, E): attention that is not simply causal."""
Angles = tuple[Tensor, Tensor] | None
"""Cosines and sines by which queries and keys are turned to their positions; none where nothing is turned."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class RMSNorm(nn.Module):
    """x / rms(x) * weight, in float32 as Llama does it (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), self.weight.shape, eps=self.eps).to(x.dtype)


def make_norm(config: ModelConfig) -> nn.Module:
    """What normalises the stream before each part of a layer."""
    kind = RMSNorm if config.norm == "rmsnorm" else nn.LayerNorm
    return kind(config.hidden_size, config.rms_norm_eps)


def rotary_angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, T, 1, E) for positions (B, T) (Su et al. 2021, halves layout), as `rotate` wants them."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions[:, :, None, None].float() * (1.0 / theta**exponents)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + E/2) of x (B, T, heads, E) by its angle."""
    cos, sin = angles
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def alibi_slopes(heads: int) -> list[float]:
    """Each head's slope: 2^(-8/H), 2^(-16/H), ...; if H is no power of 2, filled up from twice as many (Press 2022)."""
    power = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return slopes + [2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]


class Attention(nn.Module):
    """Causal self-attention; H query heads share G key-value heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, bias = config.hidden_size, config.bias
        query_width = config.num_attention_heads * config.head_dim
        key_value_width = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(width, query_width, bias=bias != "none")
        self.k_proj = Linear(width, key_value_width, bias=bias != "none")
        self.v_proj = Linear(width, key_value_width, bias=bias != "none")
        self.o_proj = Linear(query_width, width, bias=bias == "all")
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, angles: Angles, visible: Tensor | None, attend: Attend | None, layer: int) -> Tensor:
        queries, keys, values = (heads.transpose(1, 2) for heads in self.heads(x, angles))
        if attend is not None:
            mixed = attend(layer, queries, keys, values)
        else:
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=visible, is_causal=visible is None, enable_gqa=True
            )
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output

    def heads(self, x: Tensor, angles: Angles) -> Sequence[Tensor]:
        """Queries (B, T, H, E), keys and values (B, T, G, E), the first two turned to their positions."""
        queries, keys, values = (part.unflatten(-1, (-1, self.head_dim)) for part in self.projections(x))
        queries, keys = self.q_norm(queries), self.k_norm(keys)
        if angles is not None:
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        return queries, keys, values

    def projections(self, x: Tensor) -> Sequence[Tensor]:
        """Queries (B, T, H * E), keys and values (B, T, G * E)."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020), or one activation without a gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.gated = ACTIVATIONS[config.mlp], config.mlp == "swiglu"
        bias = config.bias == "all"
        if self.gated:
            self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(self.inner(x))
        return output

    def inner(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, inner width)."""
        return self.activation(self.gate_proj(x)) * self.up_proj(x) if self.gated else self.activation(self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each on the normalised stream and added back to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, angles: Angles, visible: Tensor | None, attend: Attend | None, layer: int) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, visible, attend, layer)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Decoder(nn.Module):
    """Embedding, layers and final norm: what a policy, a reward model and a value model have in common."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        if config.embedding_size != config.hidden_size:  # the embedding matrix is a product (Lan et al. 2020)
            self.embed_proj = Linear(config.embedding_size, config.hidden_size, bias=False)
        if config.position == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_groups))
        self.norm = make_norm(config)
        self.recompute = False  # forget what is inside a layer and compute it again going back (1604.06174)
        # GPT-2's scheme: N(0, 0.02), and what writes to the residual stream smaller by sqrt(2L).
        residual = 0.02 / math.sqrt(2 * config.num_hidden_layers)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02)
            elif name.endswith(".bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, mask: Tensor | None, positions: Tensor | None, attend: Attend | None) -> Tensor:
        new = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        if positions is None:
            positions = new.cumsum(1) - new.long()  # pads count for nothing, wherever they stand
        visible: Tensor | None = None
        if attend is None and not (mask is None and self.config.sees_all):
            visible = _visible(new)
            if not self.config.sees_all:
                visible = self.near(visible, positions[:, None, :, None] - positions[:, None, None, :])
        x = self.embed_tokens(tokens)
        angles = None
        if self.config.embedding_size != self.config.hidden_size:
            x = self.embed_proj(x)
        if self.config.position == "learned":
            x = x + self.embed_positions(positions * new)  # a pad behind the last position has none
        elif self.config.position == "rope":
            angles = rotary_angles(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        for number in range(self.config.num_hidden_layers):
            layer = self.layers[number * self.config.num_hidden_groups // self.config.num_hidden_layers]
            inputs = (x, angles, visible, attend, number)
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(*inputs)
        states: Tensor = self.norm(x)
        return states

    def near(self, visible: Tensor, distance: Tensor) -> Tensor:
        """`visible` (B, 1, T, S) less what lies outside the window; with ALiBi as a bias (B, H, T, S) on the scores.

        `distance` (B, 1, T, S) counts the tokens from a key to its query.
        """
        if self.config.sliding_window:
            visible = visible & (distance < self.config.sliding_window)
        if self.config.position != "alibi":
            return visible
        dtype, device = self.embed_tokens.weight.dtype, distance.device
        slopes = torch.tensor(alibi_slopes(self.config.num_attention_heads), dtype=dtype, device=device)
        return (-distance * slopes[:, None, None]).masked_fill(~visible, -math.inf)


def _visible(mask: Tensor) -> Tensor:
    """Which columns each column may look at: real ones up to itself, (B, 1, T, T).

    A pad sees itself too: a query without any key has no softmax.
    """
    column = torch.arange(mask.shape[1], device=mask.device)
    return ((mask[:, None, :] & (column <= column[:, None])) | (column == column[:, None]))[:, None]


class Trunk(nn.Module):
    """A decoder that is to get a head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)

    def hidden(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Final normalised states (B, T, D) of tokens (B, T).

        `mask` (B, T) is true at real tokens; pads may stand anywhere and change nothing. Positions are the number of
        real tokens before each, unless given. `attend` takes the place of attention among the columns of each row.
        """
        states: Tensor = self.model(tokens, mask, positions, attend)
        return states


class Transformer(Trunk):
    """The policy: a decoder and the head over the vocabulary, which is the embedding matrix itself when tied."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.embedding_size, config.vocab_size, bias=False)
            nn.init.normal_(self.lm_head.weight, std=0.02)
            if config.embedding_size != config.hidden_size:
                self.head_proj = Linear(config.hidden_size, config.embedding_size, bias=False)
                nn.init.normal_(self.head_proj.weight, std=0.02)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        tied = self.config.tie_word_embeddings
        if self.config.embedding_size != self.config.hidden_size:
            hidden = hidden @ self.model.embed_proj.weight if tied else self.head_proj(hidden)
        return linear(hidden, self.model.embed_tokens.weight) if tied else self.lm_head(hidden)

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Logits (B, T, V); see `hidden`."""
        return self.logits(self.hidden(tokens, mask=mask, positions=positions))


class RewardModel(Trunk):
    """A decoder with a scalar head: scores of finished responses, and values of every column for PPO."""

    def __init__(self, config: ModelConfig, score_offset: float = 0.0) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        nn.init.normal_(self.score.weight, std=1 / math.sqrt(config.hidden_size + 1))
        self.score_offset = score_offset

    @classmethod
    def from_policy(cls, policy: Transformer, generator: torch.Generator | None = None) -> "RewardModel":
        """The policy's trunk, copied, under a fresh head ~ N(0, 1/sqrt(D+1)) (Stiennon et al. 2020)."""
        weight, width = policy.model.embed_tokens.weight, policy.config.hidden_size
        with torch.device("meta"):
            reward = cls(policy.config)
        head = torch.randn(1, width, generator=generator) / math.sqrt(width + 1)
        state = {f"model.{name}": value.detach().clone() for name, value in policy.model.state_dict().items()}
        reward.load_state_dict(state | {"score.weight": head.to(weight)}, assign=True)
        return reward.requires_grad_(True)

    def values(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """What the model expects after each column, (B, T); at a response's last token this is its score."""
        return self.scores(self.hidden(tokens, mask=mask))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Scores (B,), read at each row's last real token, minus the offset that puts demonstrations at 0."""
        states = self.hidden(tokens, mask=mask)
        last = (mask.long() * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        return self.scores(states[torch.arange(len(last), device=last.device), last])

    def scores(self, states: Tensor) -> Tensor:
        """(..., D) -> (...), in float32 whatever the trunk is computed in."""
        with torch.autocast(states.device.type, enabled=False):
            scores: Tensor = self.score(states.to(self.score.weight.dtype)).squeeze(-1)
        return scores - self.score_offset
