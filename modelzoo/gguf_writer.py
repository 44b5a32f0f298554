"""A checkpoint as a GGUF file, in F16 or F32, that llama.cpp can run and `gguf_reader` reads back."""

from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from torch import Tensor

from modelzoo.checkpoint import CheckpointError, appearing_whole, load_policy
from modelzoo.config import ModelConfig
from modelzoo.config_json import family, variant
from modelzoo.gguf_reader import ARCHITECTURES, LAYER_NAMES, WHOLE_NAMES
from modelzoo.gguf_tokenizer import write_tokenizer
from modelzoo.tokenizer import TokenizerError

DTYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}


def export_gguf(checkpoint: Path | str, path: Path | str, dtype: str = "f16") -> None:
    """Write a policy's checkpoint as one GGUF file that appears whole. `dtype` is one of DTYPES, for the matrices.

    Raises CheckpointError, also on a variant that llama.cpp has no name for or weights that F16 cannot hold;
    NoSpaceError on a full disk.
    """
    checkpoint = Path(checkpoint)
    model, tokenizer, manifest = load_policy(checkpoint)
    config, kind = model.config, family(model.config)
    if kind not in ARCHITECTURES or config.bias == "all":
        raise CheckpointError(
            f"{checkpoint} is of a variant that llama.cpp has no name for ({variant(config)}): "
            "it cannot be exported as GGUF"
        )
    quantization, file_type = DTYPES[dtype]
    writer = gguf.GGUFWriter(None, kind)
    writer.add_name(checkpoint.name)
    writer.add_languages(manifest["languages"])
    writer.add_file_type(file_type)
    _write_config(writer, config)
    try:
        definition = (checkpoint / "tokenizer.json").read_text(encoding="utf-8")
        write_tokenizer(writer, tokenizer, definition, config.vocab_size)
    except TokenizerError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    for name, weight in model.state_dict().items():
        matrix = weight.dim() == 2
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads and kind == "llama":
            weight = _neighbours(weight, heads)
        if matrix and dtype == "f16" and not bool(torch.isfinite(weight.half()).all()):
            raise CheckpointError(f"{checkpoint}: {name} holds values that F16 cannot; export as F32")
        kept = quantization if matrix else GGMLQuantizationType.F32
        writer.add_tensor(_name(name), gguf.quantize(weight.numpy(), kept), raw_dtype=kept)
    with appearing_whole(path) as temporary:
        writer.write_header_to_file(temporary)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _write_config(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    theirs = {ours: short for short, ours in WHOLE_NAMES.items()}
    if name in theirs:
        return theirs[name]
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    shorts = {ours: short for short, ours in LAYER_NAMES.items()}
    return f"blk.{number}.{shorts[part]}.{kind}"


def _neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from our order, where RoPE turns halves, to llama.cpp's, where it turns neighbours."""
    rows = len(weight)
    return weight.view(heads, 2, rows // heads // 2, -1).transpose(1, 2).reshape(weight.shape).contiguous()
