"""The completions of benchmarks/sampling.py by transformers' `generate`. Run by it in transformers' own venv.

python hf_generate.py MODEL CASES.json
"""

import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    directory, path = sys.argv[1:]
    with open(path) as file:
        content = json.load(file)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    torch.manual_seed(0)
    greedy = generated(model, content["greedy"]["prompts"], content["greedy"] | {"greedy": True}, content)
    result = {"greedy": greedy[0], "seconds": 0.0, "cpu_seconds": 0.0}
    for name, case in content["cases"].items():
        generated(model, case["prompts"][:1], case | {"tokens": 4}, content)  # warm up
        rates = {}
        for size in case["prompts_at_once"]:
            started, cpu_started = time.perf_counter(), time.process_time()
            tokens = 0
            for first in range(0, len(case["prompts"]), size):
                tokens += sum(map(len, generated(model, case["prompts"][first : first + size], case, content)))
            seconds = time.perf_counter() - started
            rates[size] = tokens / seconds
            result["seconds"] += seconds
            result["cpu_seconds"] += time.process_time() - cpu_started
        result[name], result[f"{name}, by prompts at once"] = max(rates.values()), rates
    result["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(result))


@torch.inference_mode()
def generated(model, prompts, case, content):
    """What each row says, its stop token included."""
    stop, pad = (content["stop_ids"] if case["stops"] else []), content["pad_id"]
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    output = model.generate(
        ids,
        attention_mask=mask.long(),
        num_return_sequences=case["k"],
        do_sample=not case.get("greedy"),
        **({} if case.get("greedy") else {"temperature": 1.0, "top_p": 1.0, "top_k": 0}),
        max_new_tokens=case["tokens"],
        min_new_tokens=None if stop else case["tokens"],
        eos_token_id=stop or None,
        pad_token_id=pad,
    )[:, width:].tolist()
    return [said[: next((n + 1 for n, token in enumerate(said) if token in stop), len(said))] for said in output]


main()
