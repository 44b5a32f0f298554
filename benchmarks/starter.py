"""The models that the comparisons start from."""

from pathlib import Path

from modelzoo.batches import seeded
from modelzoo.checkpoint import load_policy, save_checkpoint
from modelzoo.import_model import import_model
from modelzoo.transformer import RewardModel


def starter_and_judge(folder: Path) -> None:
    """The starter policy in `folder`/policy; in `folder`/reward a reward model on its trunk with a random head."""
    import_model("starter", folder / "policy", languages=["en"])
    policy, tokenizer, _ = load_policy(folder / "policy")
    reward = RewardModel.from_policy(policy, seeded("head"))
    save_checkpoint(folder / "reward", reward, tokenizer, kind="reward", languages=["en"])
