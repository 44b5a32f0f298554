import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modelzoo.checkpoint import (
    CheckpointError,
    NoSpaceError,
    load_policy,
    load_reward_model,
    load_state,
    load_tensors,
    manifest_hash,
    save_checkpoint,
    save_state,
    save_tensors,
    verify,
    write_directory_atomically,
)
from modelzoo.tests.test_variants import VARIANTS, wilder
from modelzoo.tests.test_variants import config as variant
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer


def test_a_policy_comes_back_bit_for_bit(policy: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    identity = save_checkpoint(
        tmp_path / "new/policy",
        policy,
        tokenizer,
        kind="sft",
        parents=["a" * 64],
        snapshot="b" * 64,
        languages=["ko"],
        params={"epochs": 2},
        metrics={"loss": 0.5},
        seed=7,
    )
    model, loaded_tokenizer, manifest = load_policy(tmp_path / "new/policy")
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in policy.state_dict().items()
    }
    assert loaded_tokenizer.encode("good fish") == tokenizer.encode("good fish")
    assert manifest_hash(tmp_path / "new/policy") == identity
    assert (manifest["kind"], manifest["parents"], manifest["snapshot"]) == ("sft", ["a" * 64], "b" * 64)
    assert (manifest["languages"], manifest["params"], manifest["metrics"]) == (["ko"], {"epochs": 2}, {"loss": 0.5})
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_reward_model_keeps_its_head_and_offset(policy: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    reward = RewardModel.from_policy(policy, torch.Generator().manual_seed(0)).requires_grad_(False)
    reward.score_offset = 0.1 + 0.2
    save_checkpoint(tmp_path / "reward", reward, tokenizer, kind="reward")
    loaded, _, _ = load_reward_model(tmp_path / "reward")
    ids, mask = torch.arange(12)[None], torch.ones(1, 12, dtype=torch.bool)
    assert loaded(ids, mask).equal(reward(ids, mask))
    assert loaded.score_offset == 0.1 + 0.2


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_comes_back_as_a_policy_and_as_a_reward_model(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = wilder(Transformer(variant(name, vocab_size=tokenizer.vocab_size))).requires_grad_(False)
    ids, mask = torch.arange(12)[None], torch.ones(1, 12, dtype=torch.bool)
    save_checkpoint(tmp_path / "policy", model, tokenizer, kind="base")
    loaded, _, _ = load_policy(tmp_path / "policy")
    assert loaded.config == model.config and loaded(ids).equal(model(ids))
    reward = RewardModel.from_policy(model, torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "reward", reward, tokenizer, kind="reward")
    assert load_reward_model(tmp_path / "reward")[0](ids, mask).equal(reward(ids, mask))


def test_a_checkpoint_from_before_there_were_variants_still_loads(
    policy_directory: Path, policy: Transformer, tmp_path: Path
) -> None:
    old = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": policy.config.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": True,
        "head_dim": 8,
        "rope_scaling": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "torch_dtype": "float32",
    }
    directory = resealed(policy_directory, tmp_path / "old", lambda d: (d / "config.json").write_text(json.dumps(old)))
    loaded, _, _ = load_policy(directory)
    assert loaded.config == policy.config and loaded(torch.arange(9)[None]).equal(policy(torch.arange(9)[None]))


def test_equal_models_have_equal_hashes(policy: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    one = save_checkpoint(tmp_path / "one", policy, tokenizer, kind="base")
    two = save_checkpoint(tmp_path / "two", policy, tokenizer, kind="base")
    with torch.no_grad():
        policy.model.norm.weight[3] += 1e-7
    three = save_checkpoint(tmp_path / "three", policy, tokenizer, kind="base")
    assert one == two != three


def test_everybody_may_read_the_files(policy_directory: Path) -> None:
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in policy_directory.iterdir())


def damage_bit(directory: Path) -> None:
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (directory / "model.safetensors").write_bytes(content)


def truncate(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])


def remove(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def garble_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")


def point_outside(directory: Path) -> None:
    rewrite_manifest(directory, lambda manifest: manifest["files"].update({"../secret": "0" * 64}))


def rewrite_manifest(directory: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    change(manifest)
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bit, r"model\.safetensors is corrupt"),
        (truncate, r"model\.safetensors is corrupt"),
        (remove, r"model\.safetensors is missing"),
        (garble_manifest, r"manifest\.json is not JSON"),
        (point_outside, r"names a file outside the checkpoint: \.\./secret"),
        (lambda directory: (directory / "manifest.json").unlink(), r"manifest\.json is missing"),
        (lambda directory: rewrite_manifest(directory, lambda m: m.update(format=2)), "not a manifest of format 1"),
        (lambda directory: rewrite_manifest(directory, lambda m: m.update(files={})), "not a manifest of format 1"),
    ],
)
def test_damage_is_found_and_the_file_named(
    policy_directory: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(policy_directory, copy)
    load_policy(copy)
    damage(copy)
    with pytest.raises(CheckpointError, match=message):
        load_policy(copy)


def resealed(source: Path, target: Path, change: Callable[[Path], None]) -> Path:
    """A checkpoint whose manifest is honest about bad contents."""

    def write(temporary: Path) -> None:
        for path in source.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, temporary)
        change(temporary)

    write_directory_atomically(target, write, json.loads((source / "manifest.json").read_text()))
    return target


def rewrite_config(**changes: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | changes))

    return change


def poison(directory: Path) -> None:
    tensors = load_tensors(directory / "model.safetensors")
    tensors["model.norm.weight"][5] = float("nan")
    save_tensors(directory / "model.safetensors", tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: (d / "model.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=2)),
            "is a pickle under another name",
        ),
        (lambda d: torch.save({"a": torch.ones(2)}, d / "model.safetensors"), "is a pickle under another name"),
        (lambda d: (d / "model.safetensors").write_bytes(b""), "not a complete safetensors file"),
        (truncate, "not a complete safetensors file"),
        (poison, r"model\.norm\.weight holds values that are not finite"),
        (rewrite_config(num_hidden_layers=3), "the weights are not those of config.json"),
        (rewrite_config(intermediate_size=64), "the weights are not those of config.json"),
        (rewrite_config(vocab_size=100), "tokens do not fit a model of 100"),
        (rewrite_config(hidden_size=33, head_dim=None), "hidden_size: 33 is not divisible"),
        (rewrite_config(hidden_size="wide"), "hidden_size: must be a whole number"),
        (rewrite_config(hidden_act="gelu"), "hidden_act: must be 'silu'"),
        (rewrite_config(rope_scaling={"rope_type": "yarn"}), "only plain RoPE"),
        (lambda d: (d / "tokenizer_config.json").unlink(), r"tokenizer_config\.json is missing"),
    ],
)
def test_contents_that_make_no_model_are_refused_in_one_sentence(
    policy_directory: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_policy(resealed(policy_directory, tmp_path / "bad", change))
    assert "\n" not in str(caught.value)


def test_kinds_are_not_mixed_up(
    policy_directory: Path, reward_directory: Path, policy: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="is of kind 'reward'; needed is base or sft or policy"):
        load_policy(reward_directory)
    with pytest.raises(CheckpointError, match="is of kind 'base'; needed is reward"):
        load_reward_model(policy_directory)
    with pytest.raises(CheckpointError, match="a Transformer cannot be saved as 'reward'"):
        save_checkpoint(tmp_path / "x", policy, tokenizer, kind="reward")


def test_weights_that_are_not_finite_are_never_saved(policy: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.nn.init.constant_(policy.model.norm.weight, float("inf"))
    with pytest.raises(CheckpointError, match="not finite"):
        save_checkpoint(tmp_path / "bad", policy, tokenizer, kind="policy")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_never_written_over(policy: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "one", policy, tokenizer, kind="policy")
    before = manifest_hash(tmp_path / "one")
    with pytest.raises(CheckpointError, match="exists already"):
        save_checkpoint(tmp_path / "one", policy, tokenizer, kind="base")
    assert manifest_hash(tmp_path / "one") == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        (temporary / "first.json").write_text("{}")
        (temporary / "second.json").symlink_to("/dev/full")  # the kernel's own full disk
        (temporary / "second.json").write_text("{}")

    with pytest.raises(NoSpaceError, match="no space left for .*: free some"):
        write_directory_atomically(tmp_path / "state", write)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        (temporary / "first.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_directory_atomically(tmp_path / "state", write)
    assert list(tmp_path.iterdir()) == []


def test_a_runs_state_comes_back_exactly(tmp_path: Path) -> None:
    tensors = {
        "adam.step": torch.tensor(3),
        "rng": torch.random.get_rng_state(),
        "w": torch.randn(3, 5, dtype=torch.float64),
    }
    state = {"step": 3, "order": [2, 0, 1], "kl_coef": 0.1 + 0.2}
    save_state(tmp_path / "step-00000003", tensors, state)
    loaded, loaded_state = load_state(tmp_path / "step-00000003")
    assert loaded_state == state
    assert loaded.keys() == tensors.keys()
    assert all(loaded[name].equal(tensor) and loaded[name].dtype == tensor.dtype for name, tensor in tensors.items())
    (tmp_path / "step-00000003/state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"state\.json is corrupt"):
        load_state(tmp_path / "step-00000003")


def test_verify_returns_the_manifest(policy_directory: Path) -> None:
    assert set(verify(policy_directory)["files"]) == {
        path.name for path in policy_directory.iterdir() if path.name != "manifest.json"
    }
