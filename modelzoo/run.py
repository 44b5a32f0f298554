"""The life of one training run: its folder, its metrics, its step checkpoints, its end.

A trainer is a function of a `Run`. It raises what went wrong; `execute` turns that into result.json and an exit code.
Under torchrun every process runs the same trainer, and the first one speaks and writes for all.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from modelzoo.allocator import keep_freed_memory
from modelzoo.checkpoint import CheckpointError, save_checkpoint
from modelzoo.config import TrainingConfig
from modelzoo.data import LeftOut
from modelzoo.distributed import Processes, tells_of_lost_peer
from modelzoo.failures import Stopped, explained, require_space
from modelzoo.generate import SamplingStoppedError
from modelzoo.memory import require_fitting
from modelzoo.optimizer import require_finite, trained
from modelzoo.progress import TrainingState
from modelzoo.spec import BadInput, Config, Spec, load_spec
from modelzoo.state import KEPT, StateMismatch, restore_step, save_step, saved_tensors, step_checkpoints
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import RewardModel, Transformer

EXIT_CODES = {"succeeded": 0, "bad_input": 2, "stopped": 3}  # anything else: 1
RESERVE = 256 * 1024  # bytes kept back for the last words of a run that filled the disk


class Run(Generic[Config]):
    """What a trainer talks to: `log`, `warn`, `begin`, then `end_step` after each step and `check_stop` in between."""

    def __init__(self, spec: Spec[Config], out: Path, processes: Processes | None = None) -> None:
        self.spec, self.config, self.out = spec, spec.config, out
        self.processes = processes or Processes()
        self.device = self.processes.device
        self.warnings: list[str] = []
        self.total = 0
        self.sharded = False  # over the processes
        self.state: TrainingState | None = None
        self._inputs: dict[str, Any] = {}
        self._saved_step = 0
        self._started = time.monotonic()
        self._asked = threading.Event()
        self._agreed = False

    def log(self, message: str) -> None:
        if self.processes.is_first:
            print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """A warning ends up in result.json, before the eyes of whoever started the run."""
        self.warnings.append(message)
        self.log(f"warning: {message}")

    def report(self, what: str, used: int, left_out: LeftOut) -> None:
        """Say how many rows are used and, as a warning, how many are not and why."""
        self.log(f"{used} {what}")
        if left_out:
            self.warn(f"Left out of the {what}: {left_out}.")

    def longest(self, positions: int) -> int:
        """The longest sequence in tokens that the parameters and the model's `positions` allow."""
        return min(self.config.max_length, positions)

    @property
    def model_directory(self) -> Path:
        return self.out / "model"

    @property
    def in_bfloat16(self) -> bool:
        """Whether matrix products are; weights, their gradients and Adam's moments are float32 in any case."""
        return self.config.precision == "bfloat16" or (self.config.precision == "auto" and self.device.type == "cuda")

    def mixed_precision(self) -> torch.autocast:
        """Within it products are computed as the parameters want. No casts are kept: they would outlive a step."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16, cache_enabled=False)

    @property
    def seconds(self) -> float:
        """Seconds of work so far, earlier attempts included."""
        return time.monotonic() - self._started

    def begin(
        self,
        state: TrainingState,
        total: int,
        inputs: dict[str, str | None],
        *,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        """Continue from the furthest step checkpoint that verifies, or start at step 0.

        `inputs` names what the run reads by hash. A checkpoint made from other inputs or parameters raises BadInput.
        `frozen` models are used besides those in the state.
        """
        parameters = {name: value for name, value in asdict(self.config).items() if name != "checkpoint_every"}
        parameters["precision"] = "bfloat16" if self.in_bfloat16 else "float32"
        parameters["sharding"] = "always" if self.sharded else "never"
        languages = self.spec.languages
        self._inputs = {**inputs, "stage": self.spec.stage, "languages": languages and list(languages), **parameters}
        self.state, self.total = state, total
        for model in state.models.values():
            model.get_submodule("model").recompute = self.config.gradient_checkpointing  # type: ignore[assignment]
        if self.sharded:
            self.processes.spread(state, frozen)
            self.log(f"weights, gradients and Adam's moments are spread over {self.processes.size} processes")
        self._require_room(state)
        attempts = [self.out, *self.spec.resume_from]
        for checkpoint in step_checkpoints(attempt / "checkpoints" for attempt in attempts):
            try:
                restore_step(checkpoint, state, self._inputs)
            except CheckpointError as error:
                self.warn(f"The step checkpoint {checkpoint} is damaged and was passed over ({error}).")
                continue
            except StateMismatch as error:
                raise BadInput(
                    f"The earlier attempt in {checkpoint.parent.parent} differs in {error}; "
                    "resume with the same inputs and parameters, or start a new run."
                ) from None
            self._saved_step, self._started = state.step, self._started - state.seconds
            self.log(f"continuing after step {state.step} of {total}, from {checkpoint}")
            break
        else:
            self.log(f"starting: {total} steps")
        if self.processes.size > 1:
            self.log(f"{self.processes.size} processes share the work")
        self._forget_metrics_after(state.step)
        self.check_stop()

    def end_step(self, metrics: dict[str, float]) -> None:
        """Count the step, write its metrics, and a checkpoint when one is due. Raises Stopped when asked to stop."""
        state = self._running()
        state.step += 1
        state.metrics = metrics
        self.log_metrics(metrics)
        self._agreed = self.processes.any(self._asked.is_set())
        if state.step % self.config.checkpoint_every == 0 and state.step < self.total:
            self.save_checkpoint()
        self.check_stop()

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """One line in metrics.jsonl and one on stderr, for the step that ended last."""
        if not metrics:
            return
        state = self._running()
        line = {"step": state.step, "total": self.total, "seconds": round(self.seconds, 2), **metrics}
        if self.processes.is_first:
            with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.log(f"step {state.step}/{self.total}  {values}")

    def stopping(self) -> bool:
        """Whether this run was asked to stop. Several processes learn of it at the end of a step, all in the same."""
        return self._agreed or (self.processes.size == 1 and self._asked.is_set())

    def check_stop(self) -> None:
        """Raises Stopped when asked to stop; call it only where `state` is that of a whole number of steps."""
        if self.stopping():
            raise Stopped

    def save_checkpoint(self) -> None:
        state = self._running()
        self.processes.rest()
        require_finite(state.models.values())
        state.seconds = self.seconds
        tensors = saved_tensors(state, keep=self.processes.is_first)
        if self.processes.is_first:
            save_step(self.out / "checkpoints", state, self._inputs, tensors)
        self._saved_step = state.step

    def stopped(self) -> None:
        """Save what a stop would lose, which is nothing before the first step."""
        if self.state is not None and self.state.step > self._saved_step:
            self.save_checkpoint()

    def export(
        self,
        model: Transformer | RewardModel,
        tokenizer: Tokenizer,
        *,
        kind: str,
        parents: list[str],
        languages: list[str],
        metrics: dict[str, float],
        snapshot: str | None = None,
    ) -> None:
        """Write the finished checkpoint."""
        model = self.processes.whole(model, torch.device("cpu"))
        require_finite([model])
        if not self.processes.is_first:
            return
        save_checkpoint(
            self.model_directory,
            model,
            tokenizer,
            kind=kind,
            parents=parents,
            snapshot=snapshot,
            languages=languages,
            params=asdict(self.config),
            metrics=metrics,
            seed=self.config.seed,
        )
        self.log(f"the model is in {self.model_directory}")

    @contextlib.contextmanager
    def listening(self, supervised: bool) -> Iterator[None]:
        """Take SIGTERM, SIGINT and (supervised) the end of standard input as the wish to stop."""

        def ask(number: int, frame: object) -> None:
            self._asked.set()
            signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once

        def wait_for_end() -> None:
            with contextlib.suppress(OSError):  # closed from the start: there is nobody to supervise
                while os.read(0, 65536):  # not sys.stdin: its lock would be held when the interpreter shuts down
                    pass
            self._asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        if supervised:
            threading.Thread(target=wait_for_end, daemon=True).start()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _forget_metrics_after(self, step: int) -> None:
        """Drop the lines, in this run's own folder, of steps that will be done again, and a line cut off by a kill."""
        path = self.out / "metrics.jsonl"
        if not path.exists() or not self.processes.is_first:
            return
        *whole, _ = path.read_text(encoding="utf-8").split("\n")
        path.write_text(
            "".join(f"{line}\n" for line in whole if 0 < step >= json.loads(line)["step"]), encoding="utf-8"
        )

    def _require_room(self, state: TrainingState) -> None:
        """Three step checkpoints stand side by side while one is written, or fewer in a short run, and the model."""
        models, optimizers = state.models.values(), state.optimizers.values()
        saved = sum(weight.nbytes for model in models for weight in trained(model))
        exported = max(sum(weight.nbytes for weight in model.parameters()) for model in models)
        stepped = sum(weight.nbytes for adam in optimizers for group in adam.param_groups for weight in group["params"])
        checkpoints = min(KEPT + 1, 1 + self.total // self.config.checkpoint_every)
        require_space(self.out, checkpoints * (saved + 2 * stepped) + exported)

    def _running(self) -> TrainingState:
        if self.state is None:
            raise RuntimeError("begin() comes before the first step")
        return self.state


Model = TypeVar("Model", bound=nn.Module)


def owned(model: Model, device: torch.device) -> Model:
    """The model with weights in memory of their own on `device`: no views of a file, aligned alike for equal bits."""
    for weight in model.parameters():
        weight.data = weight.data.to(device, copy=True)
    return model


Trainer = Callable[[Run[Any]], dict[str, float]]
"""Trains, writes `run.model_directory` and returns the metrics of the finished model."""


def execute(
    stage: str,
    train: Trainer,
    config_class: type[TrainingConfig],
    spec_path: Path,
    out: Path,
    *,
    supervised: bool = False,
) -> int:
    """Run a trainer to its end, whatever that is; returns the exit code after writing result.json."""
    keep_freed_memory()
    run: Run[Any] | None = None
    processes = Processes()
    result: dict[str, Any] = {"status": "failed", "model": None, "metrics": {}, "error": None}
    try:
        processes = Processes.join()
        if processes.is_first:
            out.mkdir(parents=True, exist_ok=True)
            (out / "result.json").unlink(missing_ok=True)
            (out / ".reserve").write_bytes(b"\0" * RESERVE)
        run = Run(load_spec(spec_path, stage, config_class), out, processes)
        if run.model_directory.exists():
            raise BadInput(f"{out} already holds a finished model; give a new folder.")
        must_share = require_fitting(run.spec, run.device, processes.size, run.warn)
        run.sharded = processes.any(must_share)  # each sees the free memory of its own card and moment
        with run.listening(supervised), run.mixed_precision():
            result["metrics"] = train(run)
        result.update(status="succeeded", model="model")
        result["metrics"].update(seconds=round(run.seconds, 1), peak_memory_mb=peak_memory_mb())
    except BaseException as error:
        result.update(_ended(run, processes, out, error))
    kind, message = result["error"].values() if result["error"] else (None, "")
    if not processes.is_first:
        processes.leave(kind, message)
    elif kind != "lost":  # as after kill -9: whoever supervises the run sees no result and starts it again
        state = run.state if run else None
        result.update(step=state.step if state else 0, total=run.total if run else 0)
        _write_result(out, result | {"warnings": run.warnings if run else []})
        if result["status"] == "succeeded":  # nothing is left to resume, and step checkpoints are large
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        processes.result_written()
    return EXIT_CODES.get(kind or result["status"], 1)


def _ended(run: Run[Any] | None, processes: Processes, out: Path, error: BaseException) -> dict[str, Any]:
    """What result.json says about an exception that ended the run."""
    if isinstance(error, Stopped | SamplingStoppedError) and run is not None:
        try:
            run.stopped()
            run.log("stopped on request")
            return {"status": "stopped", "metrics": run.state.metrics if run.state else {}}
        except Exception as failed:  # no space for the checkpoint, say
            error = failed
    step = run.state.step if run and run.state else 0
    if tells_of_lost_peer(error):
        kind, message = processes.failure_elsewhere() or ("lost", f"{error}; start the run again to resume it.")
    else:
        kind, message = explained(error, out, run.config if run else None, step)
    if kind == "crash":
        traceback.print_exception(error)
    if processes.is_first:
        print(f"{kind}: {message}", file=sys.stderr, flush=True)
    return {"error": {"kind": kind, "message": message}}


def _write_result(out: Path, result: dict[str, Any]) -> None:
    (out / ".reserve").unlink(missing_ok=True)
    temporary = out / "result.json.part"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out / "result.json")
    except OSError as error:
        print(f"result.json cannot be written in {out}: {error}", file=sys.stderr, flush=True)


def peak_memory_mb() -> float:
    """The most memory this process has held so far, in MB (10^6 bytes), of the accelerator where there is one."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
