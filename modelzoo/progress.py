"""What a training loop and the run around it share: the state a checkpoint holds, and whom to tell of each step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn


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
