"""Weights, gradients and Adam's moments spread over the processes of a run (FSDP2), where none can hold them whole.

`fully_shard` gathers a layer's weights when it is its turn and drops them after it; going back it adds the gradients
up and leaves each process its part. Every such exchange needs all processes, while our shares of a batch are ragged:
one may need more passes through a model than another. So before each pass the processes say what comes next, and who
has nothing left of it goes along with one token whose loss counts for nothing. Trainers know nothing of this.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from modelzoo.progress import TrainingState
from modelzoo.state import whole_tensor
from modelzoo.transformer import RewardModel, Transformer

NOTHING, JUDGE, LEARN, BACK = range(4)  # what may come next: no pass; one without gradients, one with, its way back
KINDS = 3

Model = TypeVar("Model", bound=nn.Module)

Most = Callable[[int], int]
"""The largest of the numbers that all processes passed."""


class Sharding:
    """The models of a run that are spread over its processes, and who goes along with whom."""

    def __init__(self, device: torch.device, processes: int, most: Most) -> None:
        self._mesh = init_device_mesh(device.type, (processes,))
        self._device, self._most = device, most
        self._models: list[nn.Module] = []
        self._passes: list[Callable[[], Tensor]] = []  # of one token, through each model
        self._unreturned: dict[int, list[Tensor]] = {}  # what such passes gave, by model, until gradients are due

    def spread(self, state: TrainingState) -> None:
        """Spread the models of a run that has not begun; its optimizers then train the parts."""
        parts: dict[int, nn.Parameter] = {}
        for model in state.models.values():
            whole = dict(model.named_parameters())
            self.spread_model(model)
            parts |= {id(whole[name]): part for name, part in model.named_parameters()}
        for optimizer in state.optimizers.values():
            for group in optimizer.param_groups:
                group["params"] = [parts[id(weight)] for weight in group["params"]]

    def spread_model(self, model: nn.Module) -> None:
        """Layers are gathered one at a time; what else there is stays gathered from a pass to its way back."""
        assert isinstance(model, Transformer | RewardModel)
        number = len(self._models)
        for layer in model.model.layers:
            fully_shard(layer, mesh=self._mesh)
        fully_shard(model, mesh=self._mesh, reshard_after_forward=False)
        assert isinstance(model, FSDPModule)
        for part in model.modules():
            if isinstance(part, FSDPModule):  # sums, as losses are divided by the whole batch; gloo knows no means
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)
        model._forward_pre_hooks.clear()  # a pass is a call of `hidden`, from wherever it comes, and none besides
        model._forward_hooks.clear()
        register_fsdp_forward_method(model, "hidden")
        hidden = model.hidden

        def announced(*arguments: Any, **named: Any) -> Tensor:
            learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in model.parameters())
            self.meet(number * KINDS + (LEARN if learns else JUDGE))
            states: Tensor = hidden(*arguments, **named)
            before_backward = partial(self.meet, number * KINDS + BACK)
            return _Announced.apply(states, before_backward) if learns else states  # type: ignore[no-untyped-call]

        def one_token() -> Tensor:
            states = hidden(torch.zeros(1, 1, dtype=torch.long, device=self._device))
            return model.logits(states) if isinstance(model, Transformer) else model.scores(states)

        model.hidden = announced  # type: ignore[method-assign]
        self._models.append(model)
        self._passes.append(one_token)

    def meet(self, next_pass: int = NOTHING) -> None:
        """Return when all processes are at `next_pass`, or at nothing; until then go along with the others."""
        while (wanted := self._most(next_pass)) != next_pass:
            model, kind = divmod(wanted - 1, KINDS)
            if kind + 1 == BACK:
                (0.0 * self._unreturned[model].pop().sum()).backward()
            else:
                with torch.set_grad_enabled(kind + 1 == LEARN):
                    went = self._passes[model]()
                if kind + 1 == LEARN:
                    self._unreturned.setdefault(model, []).append(went)

    def whole(self, model: Model, device: torch.device) -> Model:
        """The model gathered in every process, with weights of its own on `device`; itself where it is not spread."""
        if not isinstance(model, FSDPModule):
            return model
        assert isinstance(model, Transformer | RewardModel)
        self.meet()
        model.reshard()
        with torch.device("meta"):
            scoring = isinstance(model, RewardModel)
            gathered = RewardModel(model.config, model.score_offset) if scoring else Transformer(model.config)
        weights = {name: whole_tensor(weight.detach()).to(device) for name, weight in model.named_parameters()}
        gathered.load_state_dict(weights, assign=True)
        return cast(Model, gathered.requires_grad_(False))

    def rest(self) -> None:
        """Spread again what a pass without gradients left gathered."""
        self.meet()
        for model in self._models:
            assert isinstance(model, FSDPModule)
            model.reshard()


class _Announced(torch.autograd.Function):
    """The same values; on the way back the others hear of it before anything is gathered."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, before_backward: Callable[[], None]) -> Tensor:
        ctx.before_backward = before_backward
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.before_backward()
        return gradients[0], None
