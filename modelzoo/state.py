"""Step checkpoints: everything a run needs to continue bit for bit after it was killed.

Random numbers and data order are functions of (seed, step), see `batches.seeded`, so the step is their whole state.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelzoo.checkpoint import CheckpointError, load_state, save_state
from modelzoo.progress import TrainingState

KEPT = 2  # the one before the newest is there for the day the newest is damaged


class StateMismatch(ValueError):
    """A step checkpoint was written by a run with other inputs; the text names them."""


def saved_tensors(state: TrainingState, *, keep: bool) -> dict[str, Tensor]:
    """Weights and moments, whole. Every process of a run has to ask, but one alone need keep them."""
    tensors = {}
    for name, tensor in (_weights(state) | _moments(state)).items():
        whole = whole_tensor(tensor)  # one at a time: a card may not hold all
        if keep:
            tensors[name] = whole.cpu()
    return tensors


def save_step(folder: Path, state: TrainingState, inputs: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write `folder`/step-00000050 and remove all but the newest two.

    `inputs` is what a continuing run must share, `tensors` the state's `saved_tensors`.
    """
    counters = {
        "step": state.step,
        "seconds": state.seconds,
        "numbers": state.numbers,
        "metrics": state.metrics,
        "inputs": inputs,
    }
    save_state(folder / f"step-{state.step:08d}", tensors, counters)
    for old in step_checkpoints([folder])[KEPT:]:
        shutil.rmtree(old)


def step_checkpoints(folders: Iterable[Path]) -> list[Path]:
    """The step checkpoints in the given folders, the furthest step first."""
    found = (path for folder in folders for path in folder.glob("step-????????"))
    return sorted(found, key=lambda path: path.name, reverse=True)


def restore_step(directory: Path, state: TrainingState, inputs: dict[str, Any]) -> None:
    """Fill `state` from a step checkpoint.

    Raises CheckpointError where it is damaged, StateMismatch where it has other inputs; `state` is then untouched.
    """
    tensors, counters = load_state(directory)
    differing = sorted(name for name in inputs if counters["inputs"].get(name) != inputs[name])
    if differing:
        raise StateMismatch(", ".join(differing))
    weights = _weights(state)
    if not weights.keys() <= tensors.keys():
        raise CheckpointError(f"{directory} holds the weights of another kind of model")
    for name, weight in weights.items():
        weight.copy_(spread_like(tensors[name], weight))
    for name, optimizer in state.optimizers.items():
        _load_moments(optimizer, name, tensors)
    state.step, state.seconds = counters["step"], counters["seconds"]
    state.numbers, state.metrics = dict(counters["numbers"]), dict(counters["metrics"])


def _weights(state: TrainingState) -> dict[str, Tensor]:
    """Weights that are trained; frozen ones are those of the inputs."""
    return {
        f"model/{name}/{key}": weight.data
        for name, model in state.models.items()
        for key, weight in model.named_parameters()
        if weight.requires_grad
    }


def _moments(state: TrainingState) -> dict[str, Tensor]:
    return {
        f"optimizer/{name}/{index}/{key}": tensor
        for name, optimizer in state.optimizers.items()
        for index, values in optimizer.state_dict()["state"].items()
        for key, tensor in values.items()
    }


def _load_moments(optimizer: torch.optim.Optimizer, name: str, tensors: dict[str, Tensor]) -> None:
    values: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, tensor in tensors.items():
        kind, owner, rest = key.split("/", 2)
        if (kind, owner) == ("optimizer", name):
            index, moment = rest.split("/")
            model = weights[int(index)]
            part = spread_like(tensor, model) if tensor.dim() else tensor  # the count of steps is each process's own
            values.setdefault(int(index), {})[moment] = part.clone()  # not a view of the file
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that is spread over the processes of a run, in each of them; any other as it is."""
    whole: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return whole


def spread_like(tensor: Tensor, model: Tensor) -> Tensor:
    """This process's part of a whole `tensor`, if `model` is such a part."""
    if not hasattr(model, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor  # takes seconds to import

    assert isinstance(model, DTensor)
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)
