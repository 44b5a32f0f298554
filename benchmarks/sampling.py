"""Completions a second, against `generate` of transformers with the same weights.

    python -m benchmarks.sampling          # 5 rounds of a minute; with --minutes 5 call it until it is done

SmolLM2-135M in float32 (and, as an option of ours, with int8 weights) on real prompts: 9 completions of 64 tokens of a
short and of a long prompt, and 4 completions of each of 32 prompts of unequal lengths, which end when the model ends
them, at the latest after 128 tokens; there only tokens that are part of a completion count. Greedy tokens must be equal
before a time counts; transformers gets the 32 prompts in batches of several sizes, and the best counts. Prints JSON.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import RESULTS, alternate, sgemm_gflops, spread
from benchmarks.peers import peer_python
from modelzoo.checkpoint import load_policy
from modelzoo.config import SamplingConfig
from modelzoo.generate import generate, row_generators
from modelzoo.import_model import import_model
from modelzoo.run import peak_memory_mb
from modelzoo.sampler import Sampler
from modelzoo.transformer import Transformer
from worker.machine import machine

ROOT = Path(__file__).resolve().parent.parent
PEER = ("transformers==5.23.0", "torch==2.13.0")
ONE = {"prompts_at_once": [1]}
GOALS = {"ours": 4.0, "ours, int8": 6.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop before this; the next call goes on")
    parser.add_argument("--ours", choices=("float32", "int8"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = RESULTS / "sampling-model"
    if options.ours:
        print(json.dumps(our_rates(folder, options.ours)))
        return 0
    if not folder.exists():
        prepare(folder)
    python, script = str(peer_python(*PEER)), str(Path(__file__).with_name("hf_generate.py"))
    ours = [sys.executable, "-m", "benchmarks.sampling", "--ours"]
    arms = {
        "ours": [*ours, "float32"],
        "transformers": [python, script, str(folder / "policy"), str(folder / "cases.json")],
        "ours, int8": [*ours, "int8"],
    }
    report = compared(folder, alternate("sampling", arms, repeats=options.repeats, seconds=60 * options.minutes))
    print(json.dumps(report, indent=1))
    return 0 if report["greedy_tokens_equal"] and report["goals_met"] else 1


def prepare(folder: Path) -> None:
    """The starter policy and what both sides are asked, as token ids."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    import_model("starter", unfinished / "policy", languages=["en"])
    _, tokenizer, _ = load_policy(unfinished / "policy")
    lines = (ROOT / "labeling" / "starter" / "prompts.en.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["messages"][-1]["content"] for line in lines]
    prompts = sorted((tokenizer.encode_chat([{"role": "user", "content": text}]) for text in texts), key=len)
    together = tokenizer.encode_chat([{"role": "user", "content": "\n\n".join(texts)}])
    short = min(prompts, key=lambda prompt: abs(len(prompt) - 45))
    cases = {
        "k9_short": {"prompts": [short], "k": 9, "tokens": 64, "stops": False, **ONE},
        "k9_long": {"prompts": [together[:256]], "k": 9, "tokens": 64, "stops": False, **ONE},
        "k4_32_prompts": {
            "prompts": prompts[:: len(prompts) // 32][:32],  # by length, so that neighbours need little padding
            "k": 4,
            "tokens": 128,
            "stops": True,
            "prompts_at_once": [32, 16, 8],  # for transformers: the best of these counts; 4 were slower than any
        },
    }
    content = {
        "greedy": {"prompts": [short], "k": 1, "tokens": 64, "stops": False},
        "cases": cases,
        "stop_ids": list(tokenizer.stop_ids),
        "pad_id": tokenizer.pad_id,
    }
    (unfinished / "cases.json").write_text(json.dumps(content))
    unfinished.rename(folder)


def our_rates(folder: Path, weights: str) -> dict[str, Any]:
    """Tokens a second of each case, and what the machine could do."""
    result: dict[str, Any] = {}
    content = json.loads((folder / "cases.json").read_text())
    policy = Sampler.load(folder / "policy", weights=weights).model
    greedy = SamplingConfig(temperature=0, max_new_tokens=content["greedy"]["tokens"])
    said = generate(policy, content["greedy"]["prompts"], 1, greedy, (), row_generators(0, 1))[0][0].token_ids
    result |= {"greedy": said, "seconds": 0.0, "cpu_seconds": 0.0}
    for name, case in content["cases"].items():
        stop = content["stop_ids"] if case["stops"] else ()
        streams = row_generators(0, len(case["prompts"]) * case["k"])
        generate(policy, case["prompts"][:1], 1, SamplingConfig(max_new_tokens=4), stop, streams[:1])  # warm up
        sampling = SamplingConfig(max_new_tokens=case["tokens"])
        started, cpu_started = time.perf_counter(), time.process_time()
        groups = generate(policy, case["prompts"], case["k"], sampling, stop, streams)
        seconds = time.perf_counter() - started
        result[name] = sum(len(row.token_ids) for group in groups for row in group) / seconds
        result["seconds"] += seconds
        result["cpu_seconds"] += time.process_time() - cpu_started
    result["peak_memory_mb"] = peak_memory_mb()
    if weights != "float32":
        plain, _, _ = load_policy(folder / "policy")
        prompts = content["cases"]["k4_32_prompts"]["prompts"]
        result["agreement"] = agreement(plain, policy, prompts, content["stop_ids"])
    return result | {"sgemm_gflops": sgemm_gflops(), "read_gb_per_second": read_rate()}


@torch.inference_mode()
def agreement(
    plain: Transformer, other: Transformer, prompts: list[list[int]], stop_ids: list[int]
) -> dict[str, float]:
    """How near int8 weights come to float32 on what float32 says: the likeliest token, and KL in nats a token."""
    said = generate(plain, prompts, 1, SamplingConfig(max_new_tokens=64), stop_ids, row_generators(0, len(prompts)))
    same, kl = [], []
    for prompt, (response,) in zip(prompts, said, strict=True):
        ids = torch.tensor([prompt + response.token_ids])
        exact, got = (torch.log_softmax(policy(ids)[0, len(prompt) - 1 : -1], -1) for policy in (plain, other))
        same.append((exact.argmax(-1) == got.argmax(-1)).double())
        kl.append((exact.exp() * (exact - got)).sum(-1))
    return {"same_likeliest_token": torch.cat(same).mean().item(), "kl": torch.cat(kl).mean().item()}


def read_rate(bytes_read: int = 1 << 30, repeats: int = 4) -> float:
    """GB/s at which this machine reads memory: the best of some sums."""
    numbers = torch.ones(bytes_read // 4)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - started)
    return bytes_read / min(seconds) / 1e9


def compared(folder: Path, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    content = json.loads((folder / "cases.json").read_text())
    rates = {
        arm: {case: spread([line[case] for line in lines]) for case in content["cases"]}
        for arm, lines in results.items()
    }
    peer = rates["transformers"]
    faster = {
        arm: {case: round(rates[arm][case]["median"] / peer[case]["median"], 2) for case in content["cases"]}
        for arm in GOALS
    }
    reading = max(line["read_gb_per_second"] for line in results["ours"])
    gflops = max(line["sgemm_gflops"] for line in results["ours"])
    policy, _, _ = load_policy(folder / "policy")
    weights = sum(weight.numel() for weight in policy.parameters())
    limits = {  # a step of 9 rows reads all weights once and multiplies each by each row, whichever takes longer
        case: 9 / max(4 * weights / (reading * 1e9), 9 * 2 * weights / (gflops * 1e9))
        for case in ("k9_short", "k9_long")
    } | {"k4_32_prompts": gflops * 1e9 / (2 * weights)}
    return {
        "machine": machine(),
        "peer": PEER,
        "greedy_tokens_equal": all(
            line["greedy"] == results["transformers"][0]["greedy"]
            for arm in ("ours", "transformers")
            for line in results[arm]
        ),
        "tokens_per_second": rates,
        "times_faster": faster,
        "goals_met": all(min(faster[arm].values()) >= goal for arm, goal in GOALS.items()),
        "int8": results["ours, int8"][0]["agreement"],
        "peak_memory_mb": {arm: spread([line["peak_memory_mb"] for line in lines]) for arm, lines in results.items()},
        "read_gb_per_second": reading,
        "sgemm_gflops": gflops,
        "limit_tokens_per_second": limits,
        "share_of_limit": {case: rates["ours"][case]["median"] / limit for case, limit in limits.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
