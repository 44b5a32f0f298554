"""`python -m modelzoo`: the trainers as commands. See docs/files.md for the spec and what a run writes."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

STAGES = ("sft", "reward", "ppo", "pretrain")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return _train(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelzoo", description="Train and move language models.")
    commands = parser.add_subparsers(dest="command", required=True)
    for stage in STAGES:
        command = commands.add_parser(stage, help=f"run the {stage} trainer")
        command.add_argument("--spec", type=Path, required=True, help="spec.json: inputs and parameters")
        command.add_argument(
            "--out", type=Path, required=True, help="folder for metrics, checkpoints, model, result.json"
        )
        command.add_argument("--supervised", action="store_true", help="stop when standard input ends")
    return parser


def _train(options: argparse.Namespace) -> int:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before torch: equal runs give equal bits on a GPU too
    from modelzoo.config import STAGES as CONFIGS
    from modelzoo.config import PretrainConfig
    from modelzoo.pretrain import pretrain
    from modelzoo.run import Trainer, execute
    from modelzoo.train_ppo import train_ppo
    from modelzoo.train_reward import train_reward
    from modelzoo.train_sft import train_sft

    trainers: dict[str, Trainer] = {"sft": train_sft, "reward": train_reward, "ppo": train_ppo, "pretrain": pretrain}
    configs = {**CONFIGS, "pretrain": PretrainConfig}
    stage = options.command
    return execute(stage, trainers[stage], configs[stage], options.spec, options.out, supervised=options.supervised)


if __name__ == "__main__":
    sys.exit(main())
