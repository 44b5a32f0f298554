"""What we write is read back by our reader, by the gguf package, and by transformers."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType, TokenType

from modelzoo.__main__ import main
from modelzoo.chat_template import PLAIN_TEMPLATE
from modelzoo.checkpoint import CheckpointError, load_policy, save_checkpoint
from modelzoo.gguf_reader import read_gguf
from modelzoo.gguf_writer import export_gguf
from modelzoo.tests.test_gguf_reader import MERGES, ODD_TEXTS, TOKENS
from modelzoo.tests.test_variants import config, wilder
from modelzoo.tokenizer import HuggingFaceTokenizer, SpecialTokens, Tokenizer
from modelzoo.tokenizer_json import SPLITTERS, byte_level_bpe_to_json, pieces_to_json
from modelzoo.transformer import Transformer

LLAMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama, tied": ("llama", {"rope_theta": 1e6, "rms_norm_eps": 1e-6, "head_dim": 10}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}


def byte_level(splitter: str = "smollm", **special: Any) -> HuggingFaceTokenizer:
    added = dict.fromkeys(range(4), True)
    definition = byte_level_bpe_to_json(dict(enumerate(TOKENS)), MERGES, added, splitter)
    roles = {"eos": "<|im_end|>", "pad": "<spare>"} | special
    return HuggingFaceTokenizer(definition, SpecialTokens(**roles), PLAIN_TEMPLATE)


def saved(directory: Path, tokenizer: Tokenizer, name: str = "llama", **changes: Any) -> Transformer:
    vocab_size = changes.pop("vocab_size", tokenizer.vocab_size)
    model: Transformer = wilder(Transformer(config(name, vocab_size=vocab_size, **changes))).requires_grad_(False)
    save_checkpoint(directory, model, tokenizer, kind="policy", languages=["en", "ko"])
    return model


@pytest.mark.parametrize("name", LLAMAS)
def test_f32_comes_back_bit_for_bit(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    variant, changes = LLAMAS[name]
    model = saved(tmp_path / "model", tokenizer, variant, **changes)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    again, its_tokenizer, languages = read_gguf(tmp_path / "model.gguf")
    assert again.config == model.config and languages == ["en", "ko"]
    ids = torch.randint(0, model.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    assert again(ids).equal(model(ids))
    for text in ODD_TEXTS:
        assert its_tokenizer.encode(text) == tokenizer.encode(text), text
        assert its_tokenizer.decode(tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "the cat 안녕"}]
    assert its_tokenizer.encode_chat(messages) == tokenizer.encode_chat(messages)
    assert (its_tokenizer.stop_ids, its_tokenizer.pad_id) == (tokenizer.stop_ids, tokenizer.pad_id)


def test_f16_rounds_the_matrices_and_leaves_the_norms(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", tokenizer)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    again, _, _ = read_gguf(tmp_path / "model.gguf")
    for name, weight in model.state_dict().items():
        assert again.state_dict()[name].equal(weight.half().float() if weight.dim() == 2 else weight), name


def test_the_gguf_package_finds_what_llama_cpp_looks_for(tokenizer: Tokenizer, tmp_path: Path) -> None:
    saved(tmp_path / "model", tokenizer, num_hidden_layers=2)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.file_type": 1,
        "llama.block_count": 2,
        "llama.embedding_length": 48,
        "llama.feed_forward_length": 80,
        "llama.attention.head_count": 6,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 8,
        "llama.context_length": 64,
        "llama.vocab_size": tokenizer.vocab_size,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_id,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert len(fields["tokenizer.ggml.tokens"]) == len(fields["tokenizer.ggml.scores"]) == tokenizer.vocab_size
    types = fields["tokenizer.ggml.token_type"]
    assert types.count(TokenType.BYTE) == 256 and types[tokenizer.eos_id] == TokenType.CONTROL
    kinds = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    assert kinds["token_embd.weight"] == kinds["blk.1.attn_q.weight"] == GGMLQuantizationType.F16
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == GGMLQuantizationType.F32
    assert "output.weight" not in kinds  # tied


@pytest.mark.parametrize("name", LLAMAS)
def test_transformers_reads_the_same_logits(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    variant, changes = LLAMAS[name]
    model = saved(tmp_path / "model", tokenizer, variant, **changes)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    with torch.device("meta"):
        names = AutoModelForCausalLM.from_config(AutoConfig.for_model(variant, num_hidden_layers=3))
    read = load_gguf_checkpoint(str(tmp_path / "model.gguf"), return_tensors=True, model_to_load=names)
    shape = read["config"] | {"head_dim": model.config.head_dim}  # which its reader forgets for Qwen3
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape)).eval()
    missing, unexpected = theirs.load_state_dict(read["tensors"], strict=False)
    assert missing == (["lm_head.weight"] if model.config.tie_word_embeddings else []) and not unexpected
    theirs.tie_weights()
    ids = torch.randint(0, model.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4 and model(ids).std() > 1


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_byte_level_tokenizers_come_back_with_more_tokens_in_the_model_than_they_have(
    splitter: str, tmp_path: Path
) -> None:
    tokenizer = byte_level(splitter, bos="<|im_start|>", stop=("<|endoftext|>",))
    model = saved(tmp_path / "model", tokenizer, vocab_size=len(TOKENS) + 5)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == splitter
    again, its_tokenizer, _ = read_gguf(tmp_path / "model.gguf")
    assert again.config == model.config and its_tokenizer.vocab_size == tokenizer.vocab_size
    assert (its_tokenizer.stop_ids, its_tokenizer.bos_id) == (tokenizer.stop_ids, tokenizer.bos_id) == ((0, 2), 1)
    for text in (*ODD_TEXTS, "the then the", "1234567 they'll THE", "[PAD107]"):
        assert its_tokenizer.encode(text) == tokenizer.encode(text), text


def test_llama_2s_space_in_front_survives_too(tmp_path: Path) -> None:
    import sentencepiece

    text = tmp_path / "text"
    text.write_text("the cat sat on the mat and the dog\n" * 9)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(text),
        vocab_size=280,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{text}.model")
    pieces = {i: processor.id_to_piece(i) for i in range(processor.get_piece_size())}
    scores = {piece: processor.get_score(i) for i, piece in pieces.items() if i > 2 and not processor.is_byte(i)}
    definition = pieces_to_json(pieces, {0: True, 1: True, 2: True}, scores, unknown="<unk>", space_prefix=True)
    special = SpecialTokens(eos="</s>", pad="<unk>", bos="<s>")
    tokenizer = HuggingFaceTokenizer(definition, special, PLAIN_TEMPLATE)
    assert tokenizer.encode("the cat") == processor.encode("the cat")
    saved(tmp_path / "model", tokenizer)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    _, again, _ = read_gguf(tmp_path / "model.gguf")
    for line in ("the cat", "the  dogma", "안녕", "cat\nmat"):
        assert again.encode(line) == processor.encode(line)
        assert again.decode(again.encode(line)) == line


@pytest.mark.parametrize("name", ["gpt2", "mistral", "alibi", "shared", "factorised", "silu"])
def test_a_variant_that_llama_cpp_cannot_run_says_so(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    saved(tmp_path / "model", tokenizer, name)
    with pytest.raises(CheckpointError, match=r"llama\.cpp has no name for \(.+=.+\): it cannot be exported as GGUF"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_f16_cannot_hold_is_refused_and_f32_can(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model: Transformer = wilder(Transformer(config(vocab_size=tokenizer.vocab_size))).requires_grad_(False)
    model.model.embed_tokens.weight[3, 3] = 1e6
    save_checkpoint(tmp_path / "model", model, tokenizer, kind="policy", languages=["en"])
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight holds values that F16 cannot"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    assert read_gguf(tmp_path / "model.gguf")[0].model.embed_tokens.weight[3, 3] == 1e6


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    known = byte_level()
    changed = HuggingFaceTokenizer(
        known._definition.replace('"individual_digits": true', '"individual_digits": false'),
        known.special,
        PLAIN_TEMPLATE,
    )
    saved(tmp_path / "model", changed)
    with pytest.raises(CheckpointError, match=r"cuts text in a way that llama\.cpp has no name for"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf")


def test_a_gguf_goes_out_and_comes_in_by_the_command_line(
    policy_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = str(tmp_path / "new/model.gguf"), str(tmp_path / "again")
    assert main(["export", str(policy_directory), out, "--format", "gguf", "--dtype", "f32"]) == 0
    assert main(["import", out, again]) == 0  # the file knows the language
    (ours, _, manifest), (theirs, _, _) = load_policy(again), load_policy(policy_directory)
    assert manifest["languages"] == ["en"] and ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(weight.equal(theirs.state_dict()[name]) for name, weight in ours.state_dict().items())
    capsys.readouterr()
    assert main(["export", str(policy_directory), out, "--format", "gguf"]) == 2
    error = capsys.readouterr().err
    assert "exists already" in error and error.count("\n") == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.gguf"]
