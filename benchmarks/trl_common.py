# mypy: ignore-errors
"""What the runs of TRL's trainers share; imported in TRL's own venv, beside the script that is run."""

import resource
import tempfile
import time

from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Each optimizer step, from before its first forward until its gradients are cleared."""

    def __init__(self):
        self.seconds, self.cpu_seconds = [], []

    def on_step_begin(self, *_, **__):
        self.started = time.perf_counter(), time.process_time()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.started[0])
        self.cpu_seconds.append(time.process_time() - self.started[1])


class Recording:
    """The trainer as it is, and its losses without the logger's rounding."""

    losses = ()

    def compute_loss(self, *arguments, **named):
        loss = super().compute_loss(*arguments, **named)
        self.losses = [*self.losses, loss.item()]
        return loss


def quiet():
    """Settings of a run on the CPU in float32 that writes nothing."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
    }


def peak_memory_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
