"""`python -m modelzoo`: train, import, export and sample. docs/files.md says what the trainers read and write."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modelzoo.commands import COMMANDS, run_command
from modelzoo.config import STAGES
from modelzoo.prepare_ppo import ppo
from modelzoo.pretrain import pretrain
from modelzoo.pretrain_config import PretrainConfig
from modelzoo.run import Trainer, execute
from modelzoo.train_dpo import train_dpo
from modelzoo.train_reward import train_reward
from modelzoo.train_sft import train_sft

TRAINERS: dict[str, Trainer] = {
    "sft": train_sft,
    "reward": train_reward,
    "ppo": ppo,
    "dpo": train_dpo,
    "pretrain": pretrain,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m modelzoo", description="Train, move and sample language models.")
    commands = parser.add_subparsers(dest="command", required=True)
    for stage, trainer in TRAINERS.items():
        described = (trainer.__doc__ or "").splitlines()[0]
        command = commands.add_parser(stage, help=described, description=described)
        command.add_argument("--spec", type=Path, required=True, help="JSON: inputs and parameters")
        command.add_argument("--out", type=Path, required=True, help="folder for metrics, checkpoints and the model")
        command.add_argument("--supervised", action="store_true", help="stop when standard input ends")
    for name, other in COMMANDS.items():
        other.add_arguments(commands.add_parser(name, help=other.help, description=other.help))
    options = parser.parse_args(arguments)
    if options.command in COMMANDS:
        return run_command(COMMANDS[options.command], options)
    config = STAGES.get(options.command, PretrainConfig)
    trainer = TRAINERS[options.command]
    return execute(options.command, trainer, config, options.spec, options.out, supervised=options.supervised)


if __name__ == "__main__":
    sys.exit(main())
