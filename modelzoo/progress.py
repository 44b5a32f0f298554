"""What a training loop and the run around it share: what a checkpoint holds, whom to tell, who else is at work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

Item = TypeVar("Item")
Model = TypeVar("Model", bound=nn.Module)


@dataclass
class TrainingState:
    """What changes while a run goes on. `numbers` holds what is neither weight nor optimizer, such as the KL weight."""

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    numbers: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # of the last step
    step: int = 0
    seconds: float = 0.0


class Progress(Protocol):
    """The run, as a loop sees it; `modelzoo.run.Run` writes files, a test or a notebook may do less."""

    def log(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def end_step(self, metrics: dict[str, float]) -> None:
        """Count the step in the state and write its metrics. May raise, to stop the loop between two steps."""

    def check_stop(self) -> None:
        """Raise if the loop is to stop; what the step did so far is then done again."""


class Team(Protocol):
    """The processes at work on one run: each does its share, then the sums are the same in all of them."""

    def share(self, items: Sequence[Item], cost: Callable[[Item], int]) -> list[Item]: ...

    def sum(self, *numbers: float) -> list[float]: ...

    def sum_tensor(self, tensor: Tensor) -> Tensor: ...

    def sum_gradients(self, model: nn.Module) -> None: ...

    def gather(self, value: Any) -> list[Any]: ...

    def whole(self, model: Model) -> Model: ...  # to speak with, where its weights are spread over the processes


class Alone:
    """A team of one; `modelzoo.distributed.Processes` is one of several."""

    def share(self, items: Sequence[Item], cost: Callable[[Item], int]) -> list[Item]:
        return list(items)

    def sum(self, *numbers: float) -> list[float]:
        return list(numbers)

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        pass

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def whole(self, model: Model) -> Model:
        return model


ALONE = Alone()
