"""Can the tests of the checklist fail? Break the code in a copy, in the way each row warns of, and run its tests.

    python -m benchmarks.mutations            # all rows of the checklist in docs/training.md, some ten minutes
    python -m benchmarks.mutations 9 14 18

Every test that the checklist names must pass on the code as it is, and fail for at least one mutation of its row.
Prints which tests noticed what, and fails where one noticed nothing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from benchmarks.alternate import CORES, ROOT

CHECKLIST = ROOT / "docs" / "training.md"
TESTS = "modelzoo/tests"
SECONDS = 300  # for the tests of a row; a mutation that makes them hang is noticed, too


@dataclass(frozen=True)
class Mutation:
    """One replacement in one file of modelzoo, where `before` stands exactly once."""

    row: int
    file: str
    before: str
    after: str

    def apply(self, tree: Path) -> None:
        path = tree / "modelzoo" / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise SystemExit(f"{self.file} holds {self.before!r} {text.count(self.before)} times; renew the mutation")
        path.write_text(text.replace(self.before, self.after))

    def __str__(self) -> str:
        first, second = (" ".join(text.split()) for text in (self.before, self.after))
        return f"row {self.row}, {self.file}: {first}  ->  {second or '(nothing)'}"


MUTATIONS = [
    Mutation(1, "transformer.py", "x.roll(x.shape[-1] // 2, dims=-1)", "x.roll(1, dims=-1)"),
    Mutation(1, "huggingface.py", "tensor.float() for name", "tensor.float() * 1.0001 for name"),
    Mutation(2, "transformer.py", "((mask[:, None, :] & (column", "((torch.ones_like(mask)[:, None, :] & (column"),
    Mutation(
        2,
        "transformer.py",
        "positions = new.cumsum(1) - new.long()",
        "positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)",
    ),
    Mutation(
        3,
        "decoding.py",
        "positions = (self.prompt_lengths[self.prompt_of] + self.said)",
        "positions = (self.prompt_lengths[self.prompt_of] + self.said + 3)",
    ),
    Mutation(4, "tokenizer.py", "if self.pad_id in self.stop_ids:", "if False:"),
    Mutation(
        4,
        "tokenizer.py",
        "self.encode(text) + ([self.end_of_turn_id] if finished else [])",
        "self.encode(text)",
    ),
    Mutation(
        5,
        "transformer.py",
        "last = (mask.long() * torch.arange(mask.shape[1], device=mask.device)).argmax(1)",
        "last = torch.full((len(mask),), mask.shape[1] - 1, device=mask.device)",
    ),
    Mutation(6, "transformer.py", "generator=generator) / math.sqrt(width + 1)", "generator=generator) * 0.02"),
    Mutation(7, "rankings.py", "return losses.mean()", "return losses.sum()"),
    Mutation(7, "rankings.py", "difference[won] - margin", "difference[won] + margin"),
    Mutation(
        8, "train_reward.py", "(share * micro_loss / len(rankings)).backward()", "(share * micro_loss).backward()"
    ),
    Mutation(8, "rankings.py", "return losses.mean()", "return losses.sum()"),
    Mutation(9, "rankings.py", "won = tiers[:, None] < tiers[None, :]", "won = tiers[:, None] <= tiers[None, :]"),
    Mutation(
        9,
        "rankings.py",
        "-(F.logsigmoid(difference[tied]) + F.logsigmoid(-difference[tied])) / 2",
        "-F.logsigmoid(difference[tied])",
    ),
    Mutation(10, "transformer.py", "return scores - self.score_offset", "return scores"),
    Mutation(
        10,
        "rankings.py",
        "difference = (scores[:, None] - scores[None, :])[",
        "difference = (scores[:, None] / scores[None, :] - 1)[",
    ),
    Mutation(
        11,
        "transformer.py",
        "x = x + self.mlp(self.post_attention_layernorm(x))",
        "x = x + F.dropout(self.mlp(self.post_attention_layernorm(x)), 0.1)",
    ),
    Mutation(12, "logprobs.py", "logits = logits / temperature", "logits = logits * temperature"),
    Mutation(12, "choose.py", "scores = scores / sampling.temperature", "scores = scores * sampling.temperature"),
    Mutation(
        13,
        "logprobs.py",
        "logits = policy.logits(hidden).float()",
        "logits = policy.logits(hidden * (1.0001 if entropy else 1)).float()",
    ),
    Mutation(13, "train_ppo.py", "kept = None  # it was of the weights before this update", "pass"),
    Mutation(
        13,
        "train_ppo.py",
        'metrics["grad_norm"] = step("policy", models.policy)',
        'metrics["grad_norm"] = 0.0',
    ),
    Mutation(14, "losses.py", "gamma * gae_lambda * advantage)", "gamma * advantage)"),
    Mutation(14, "losses.py", "gae_lambda * advantage) * mask[:, t]", "gae_lambda * advantage)"),
    Mutation(
        15,
        "losses.py",
        "last = torch.where(mask, positions, -1).max(dim=1).values",
        "last = (torch.where(mask, positions, -1).max(dim=1).values + 1).clamp(max=mask.shape[1] - 1)",
    ),
    Mutation(15, "losses.py", "scores, accumulate=True)", "scores, accumulate=False)"),
    Mutation(16, "train_ppo.py", "(config.ptx_coef * loss).backward()", "loss.backward()"),
    Mutation(
        16,
        "train_ppo.py",
        '    if pretraining:\n        metrics["ptx_loss"]',
        '    if pretraining:\n        step("policy", models.policy)\n        metrics["ptx_loss"]',
    ),
    Mutation(
        16,
        "prepare_ppo.py",
        "if not run.config.ptx_coef:\n        return [], None",
        "if False:\n        return [], None",
    ),
    Mutation(17, "losses.py", "return (whitened if shift_mean else whitened + mean) * mask", "return whitened * mask"),
    Mutation(17, "losses.py", "inside = values[mask]", "inside = values.flatten()"),
    Mutation(17, "rollout.py", "advantages = whiten(advantages, batch.response)", "advantages = advantages * 1"),
    Mutation(17, "train_ppo.py", "(losses[said].sum() / tokens).backward()", "losses[said].mean().backward()"),
    Mutation(18, "losses.py", "return 0.5 * torch.maximum(", "return 0.5 * torch.minimum("),
    Mutation(
        18, "losses.py", "(values - old_values).clamp(-clip_range, clip_range)", "(values - old_values).clamp(-1, 1)"
    ),
    Mutation(19, "losses.py", "d = ref_logprobs - logprobs", "d = logprobs - ref_logprobs"),
    Mutation(20, "rollout.py", "config.missing_eos_penalty * ~ended", "config.missing_eos_penalty * ended"),
    Mutation(
        20,
        "rollout.py",
        "torch.where(ended[:, None], tokenizer.end_of_turn_id, batch.tokens.gather(1, last))",
        "batch.tokens.gather(1, last)",
    ),
    Mutation(21, "prepare_ppo.py", 'seeded(config.seed, "rollout", step, row)', 'seeded(config.seed, "rollout")'),
    Mutation(22, "train_ppo.py", "ratio[said].sum().item()", "ratio.sum().item()"),
    Mutation(22, "logprobs.py", "* distribution).sum(-1)", "* distribution).mean(-1)"),
    Mutation(23, "optimizer.py", "eps=config.adam_eps", "eps=config.adam_eps * 4.5"),
    Mutation(23, "run.py", "params=asdict(self.config)", "params={}"),
    Mutation(24, "state.py", "        _load_moments(optimizer, name, tensors)", "        pass"),
    Mutation(25, "packing.py", "self.lengths = lengths\n", "self.lengths = [sum(lengths)]\n"),
    Mutation(26, "train_sft.py", ".sum() / targets", ".sum() / micro.response.sum()"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="of the checklist (default: all)")
    parser.add_argument("--jobs", type=int, default=CORES, help="mutations at once (default: cores)")
    options = parser.parse_args()
    named = {row: tests for row, tests in checklist().items() if row in (options.rows or checklist())}
    mutations = [mutation for mutation in MUTATIONS if mutation.row in named]
    with trees(options.jobs) as free, ThreadPoolExecutor(options.jobs) as pool:
        broken = list(pool.map(lambda row: noticed(free, named[row], None), named))
        if any(broken):
            raise SystemExit(f"fail on the code as it is: {', '.join(sorted(set().union(*broken)))}")
        unseen = {(row, test) for row, tests in named.items() for test in tests}
        results = pool.map(lambda mutation: noticed(free, named[mutation.row], mutation), mutations)
        for mutation, failing in zip(mutations, results, strict=True):
            print(f"{mutation}\n    {', '.join(sorted(failing)) or 'NOBODY NOTICED'}", flush=True)
            unseen -= {(mutation.row, test) for test in failing}
    for row, test in sorted(unseen):
        print(f"row {row}: no mutation makes {test} fail")
    print(
        f"{len(mutations)} mutations, {sum(map(len, named.values())) - len(unseen)} tests failed, {len(unseen)} never"
    )
    return 1 if unseen else 0


def checklist() -> dict[int, list[str]]:
    """The tests that each row of the checklist names."""
    rows = re.findall(r"^\| (\d+) \|.*\| (`test_.*`) \|$", CHECKLIST.read_text(), re.MULTILINE)
    return {int(number): re.findall(r"`(test_\w+)`", tests) for number, tests in rows}


@contextmanager
def trees(count: int) -> Iterator["SimpleQueue[Path]"]:
    """Copies of the project to break."""
    free: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        for number in range(count):
            tree = Path(folder) / str(number)
            listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
            for name in listed.splitlines():
                if (ROOT / name).is_file():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, tree / name)
            free.put(tree)
        yield free


def noticed(free: "SimpleQueue[Path]", tests: Sequence[str], mutation: Mutation | None) -> set[str]:
    """Which of `tests` fail in a tree with this mutation."""
    tree = free.get()
    try:
        if mutation:
            mutation.apply(tree)
        return failing_tests(tree, tests)
    finally:
        if mutation:
            shutil.copy2(ROOT / "modelzoo" / mutation.file, tree / "modelzoo" / mutation.file)
        free.put(tree)


def failing_tests(tree: Path, tests: Sequence[str]) -> set[str]:
    """Run `tests` and name those that fail, hang, or cannot be run."""
    files = [
        path for path in (tree / TESTS).glob("test_*.py") if any(f"def {test}(" in path.read_text() for test in tests)
    ]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rA", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-o", "addopts=", "-k", " or ".join(tests), *(str(path.relative_to(tree)) for path in files)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return set(tests)
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE)
    passed = {test for outcome, test in outcomes if outcome == "PASSED"}
    failed = {test for outcome, test in outcomes if outcome != "PASSED"}
    return {test for test in tests if test in failed or test not in passed}


if __name__ == "__main__":
    sys.exit(main())
