"""Both directions against the real library: it writes and we read, we write and it reads."""

import filecmp
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelzoo.checkpoint import CheckpointError, load_policy, load_tensors, save_checkpoint, save_tensors
from modelzoo.config import SamplingConfig
from modelzoo.generate import generate, row_generators
from modelzoo.huggingface import export_huggingface, read_huggingface
from modelzoo.import_model import import_model
from modelzoo.tests.test_transformer import wild
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

IDS = torch.tensor([[5, 6, 7, 30, 200, 9, 11]])


@pytest.fixture
def theirs(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A directory as transformers writes it, several shards, with PAD equal to EOS as in SmolLM2."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    (tmp_path / "vocabulary").mkdir()
    tokenizer.save(tmp_path / "vocabulary")
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "vocabulary/tokenizer.json"),
        eos_token="<|end|>",
        pad_token="<|end|>",
        bos_token="<s>",
        chat_template=tokenizer.chat_template,
    )
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=50000.0,
        rms_norm_eps=1e-6,
        eos_token_id=[2, 1],
        tie_word_embeddings=False,
    )
    wild(LlamaForCausalLM(config)).save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    fast.save_pretrained(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    return tmp_path / "theirs"


def test_their_directory_gives_their_logits_and_a_padding_of_its_own(theirs: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    import_model(theirs, tmp_path / "ours", languages=["en"])
    model, tokenizer, manifest = load_policy(tmp_path / "ours")
    expected = AutoModelForCausalLM.from_pretrained(theirs)(IDS).logits
    assert (model(IDS) - expected).abs().max() < 1e-5 and expected.abs().max() > 0.1
    assert (model.config.rope_theta, model.config.rms_norm_eps) == (50000.0, 1e-6)
    assert tokenizer.stop_ids == (1, 2)  # both that config.json names
    assert tokenizer.pad_id == tokenizer.control_tokens["<pad>"]
    assert manifest["params"] == {"imported_from": "theirs"} and manifest["languages"] == ["en"]


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 5, "head_dim": 12},
    "qwen2": {"rope_theta": 1e6, "tie_word_embeddings": True},
    "qwen3": {"head_dim": 12},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 310},
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path: Path) -> tuple[str, Path, Any]:
    """A directory of each model type as transformers writes it, and transformers' own model."""
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    sizes = {} if request.param == "gpt2" else SIZES | {"vocab_size": tokenizer.vocab_size}
    config = AutoConfig.for_model(request.param, **sizes, **LAYOUTS[request.param])
    config.eos_token_id = 2
    model = wild(AutoModelForCausalLM.from_config(config)).eval()
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "vocabulary").mkdir()
    tokenizer.save(tmp_path / "vocabulary")
    fast = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "vocabulary/tokenizer.json"), eos_token="<|end|>")
    fast.save_pretrained(tmp_path / "theirs")
    return request.param, tmp_path / "theirs", model


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_every_layout_gives_the_logits_of_transformers(
    layout: tuple[str, Path, Any], dtype: torch.dtype, limit: float
) -> None:
    _, directory, theirs = layout
    ours, theirs = read_huggingface(directory)[0].to(dtype), theirs.to(dtype)
    ids = torch.randint(0, 310, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :6] = mask[1, :1] = False
    with torch.no_grad():
        expected = theirs(ids).logits
        assert (ours(ids) - expected).abs().max() < limit and expected.std() > 0.5
        expected = theirs(ids, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        assert (ours(ids, mask=mask) - expected)[mask].abs().max() < limit


def test_every_layout_gives_the_greedy_tokens_of_transformers(layout: tuple[str, Path, Any]) -> None:
    _, directory, theirs = layout
    model, tokenizer = read_huggingface(directory)
    prompts = [IDS[0].tolist(), [8], IDS[0, :4].tolist()]
    greedy = SamplingConfig(temperature=0, max_new_tokens=12)
    rows = generate(model, prompts, 1, greedy, tokenizer.stop_ids, row_generators(0, 3))
    for prompt, [row] in zip(prompts, rows, strict=True):
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": 3}
        continued = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert row.token_ids == continued[0, len(prompt) :].tolist()


def test_every_layout_but_gpt2_goes_back_as_what_it_was(layout: tuple[str, Path, Any], tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, directory, theirs = layout
    import_model(directory, tmp_path / "ours", languages=["en"])
    if model_type == "gpt2":
        with pytest.raises(CheckpointError, match="no name for .position=learned, norm=layernorm, mlp=gelu_tanh"):
            export_huggingface(tmp_path / "ours", tmp_path / "export")
        return
    export_huggingface(tmp_path / "ours", tmp_path / "export")
    assert AutoConfig.from_pretrained(tmp_path / "export").model_type == model_type
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert (again(IDS).logits - theirs(IDS).logits).abs().max() < 1e-5


def test_a_tokenizer_without_anything_to_pad_with_gets_a_token_that_changes_nothing(tmp_path: Path) -> None:
    """As GPT-2's, whose one special token is its end."""
    from tokenizers import Tokenizer as Definition
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    definition = Definition(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    definition.pre_tokenizer, definition.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    PreTrainedTokenizerFast(tokenizer_object=definition, eos_token="<|endoftext|>").save_pretrained(tmp_path / "gpt2")
    size = len(alphabet) + 1
    theirs = wild(
        GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, eos_token_id=size - 1))
    ).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    model, tokenizer = read_huggingface(tmp_path / "gpt2")
    assert (tokenizer.eos_id, tokenizer.pad_id, model.config.vocab_size) == (size - 1, size, size + 1)
    ids = torch.tensor([tokenizer.encode("안녕 cat")])
    logits = model(ids)
    assert (logits[..., :size] - theirs(ids).logits).abs().max() < 1e-4
    assert logits.softmax(-1)[..., size].max() <= 1 / size  # never above the average token
    import_model(tmp_path / "gpt2", tmp_path / "ours", languages=["en"])
    assert load_policy(tmp_path / "ours")[0](ids).equal(logits)


def test_our_export_opens_in_transformers_with_equal_logits_and_ids(
    policy: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_checkpoint(tmp_path / "ours", wild(policy), tokenizer, kind="policy")
    export_huggingface(tmp_path / "ours", tmp_path / "export")
    assert not (tmp_path / "export/manifest.json").exists()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert (model(IDS).logits - policy(IDS)).abs().max() < 1e-5
    assert model.generation_config.eos_token_id == tokenizer.eos_id
    messages = [{"role": "user", "content": "the cat 안녕"}]
    rendered = AutoTokenizer.from_pretrained(tmp_path / "export").apply_chat_template(
        messages, add_generation_prompt=True
    )
    assert rendered["input_ids"] == tokenizer.encode_chat(messages)


def test_our_reward_model_opens_in_transformers_and_differs_by_the_offset(
    policy: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    reward = RewardModel.from_policy(wild(policy), torch.Generator().manual_seed(0))
    reward.score_offset = 0.5
    save_checkpoint(tmp_path / "reward", reward, tokenizer, kind="reward")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    mask = torch.ones_like(IDS, dtype=torch.bool)
    assert (model(IDS).logits[:, 0] - 0.5 - reward(IDS, mask)).abs().max() < 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_export_import_export_is_byte_equal(theirs: Path, policy_directory: Path, tmp_path: Path, tied: bool) -> None:
    if tied:
        first = policy_directory
    else:
        first = tmp_path / "first"
        import_model(theirs, first, languages=["en"])
    export_huggingface(first, tmp_path / "a")
    import_model(tmp_path / "a", tmp_path / "second", languages=["en"])
    export_huggingface(tmp_path / "second", tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False) == (names, [], [])


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        content = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps(content | changes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("config.json", model_type="gemma"), "model_type: must be one of llama, mistral, .*, not 'gemma'"),
        (edit("config.json", attention_bias=True), "mlp_bias: must be what attention_bias is, True"),
        (edit("config.json", model_type="qwen2", use_sliding_window=True), "use_sliding_window: must be False"),
        (edit("config.json", model_type="qwen3", attention_bias=True), "attention_bias: must be False"),
        (edit("config.json", layer_types=["sliding_attention", "full_attention"]), "layer_types: only layers"),
        (edit("config.json", model_type="gpt2"), "hidden_size: is missing"),
        (edit("config.json", rope_parameters={"rope_type": "llama3", "rope_theta": 1.0}), "only plain RoPE"),
        (edit("config.json", head_dim=4), "the weights are not those of config.json"),
        (edit("config.json", head_dim=7), "head_dim: RoPE turns pairs: a head of 7"),
        (edit("config.json", hidden_size=None), "hidden_size: is missing"),
        (edit("model.safetensors.index.json", weight_map={"a": "../other.safetensors"}), "names a file outside"),
        (edit("model.safetensors.index.json", weight_map=None), "has no weight_map"),
        (lambda d: next(d.glob("*-of-*.safetensors")).unlink(), "is missing"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json is missing: load the tokenizer with transformers"),
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
    ],
)
def test_what_is_no_plain_llama_is_refused_by_name(
    theirs: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(theirs, tmp_path / "broken")
    change(tmp_path / "broken")
    with pytest.raises(CheckpointError, match=message):
        read_huggingface(tmp_path / "broken")


def test_what_old_files_repeat_is_left_out(policy: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours", policy, tokenizer, kind="policy")
    export_huggingface(tmp_path / "ours", tmp_path / "old")
    tensors = load_tensors(tmp_path / "old/model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_tensors(tmp_path / "old/model.safetensors", tensors)
    model, _ = read_huggingface(tmp_path / "old")
    assert model.state_dict().keys() == policy.state_dict().keys()


def test_keys_that_config_json_leaves_out_have_llamas_defaults(theirs: Path) -> None:
    config = json.loads((theirs / "config.json").read_text())
    for name in ("tie_word_embeddings", "rms_norm_eps", "rope_parameters"):
        del config[name]
    (theirs / "config.json").write_text(json.dumps(config))
    model, _ = read_huggingface(theirs)
    assert not model.config.tie_word_embeddings
    assert (model.config.rms_norm_eps, model.config.rope_theta) == (1e-6, 10000.0)


def test_a_template_file_wins_and_a_missing_template_becomes_a_plain_one(theirs: Path) -> None:
    (theirs / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m['content'] }}]{{ eos_token }}{% endfor %}"
    )
    _, tokenizer = read_huggingface(theirs)
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "cat"}])) == "[cat]"
    (theirs / "chat_template.jinja").unlink()
    edit("tokenizer_config.json", chat_template=None)(theirs)
    _, tokenizer = read_huggingface(theirs)
    prompt = tokenizer.encode_chat([{"role": "user", "content": "cat"}])
    assert tokenizer.decode(prompt) == "User: cat\n\nAssistant: "


def test_languages_must_be_named_where_the_source_does_not(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say which languages"):
        import_model(theirs, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is missing: give 'starter'"):
        import_model(tmp_path / "nothing", tmp_path / "ours", languages=["en"])
    assert not (tmp_path / "ours").exists()


def test_a_corrupt_checkpoint_is_not_exported(policy_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(policy_directory, tmp_path / "copy")
    (tmp_path / "copy/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is corrupt"):
        export_huggingface(tmp_path / "copy", tmp_path / "export")
    assert not (tmp_path / "export").exists()
