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
        (edit("config.json", model_type="mistral"), "model_type: must be 'llama', not 'mistral'"),
        (edit("config.json", attention_bias=True), "attention_bias: must be False"),
        (edit("config.json", rope_parameters={"rope_type": "llama3", "rope_theta": 1.0}), "only plain RoPE"),
        (edit("config.json", head_dim=4), "head_dim: must be"),
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
