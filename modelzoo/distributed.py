"""The processes of one training run, as `torchrun` started them; alone where it did not.

Each process holds the whole model (or a part of it, see `sharding.py`), works on its share of every step's examples,
and adds up gradients with the others before they are clipped. DistributedDataParallel would be wrong here: it averages
the processes' gradients, after every backward. Our losses are divided by the token count of the whole batch, so the
gradient is the plain sum over all micro-batches, however ragged the shares are; summing once, after the last of them,
is exact and the least traffic.
"""

import contextlib
import ctypes
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # before a group is joined: as default arguments it would keep that one open to the end
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from modelzoo.progress import TrainingState

if TYPE_CHECKING:
    from modelzoo.sharding import Sharding

Item = TypeVar("Item")
Model = TypeVar("Model", bound=nn.Module)
BUCKET = 64 << 20  # bytes of gradients that are added up at once
WAIT = timedelta(minutes=30)  # for a process that writes a checkpoint or samples for longer than the others
PR_SET_PDEATHSIG = 1  # prctl(2)
LAST_WORDS = timedelta(seconds=5)  # for what another process says of its end


class PeerLost(RuntimeError):
    """Another process of this run ended; without all of them there is no next step."""


class Processes:
    """How many processes this run has and which of them this one is. With one, nothing is ever sent."""

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.device = _device()
        self._sharding: Sharding | None = None

    @classmethod
    def join(cls) -> "Processes":
        """Meet the other processes that torchrun started, if it started any."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        _die_with_launcher()
        store, rank, size = next(rendezvous("env://"))
        processes = cls(rank, size, PrefixStore("run", store))
        if processes.device.type == "cuda":
            torch.cuda.set_device(processes.device)
        backend = "nccl" if processes.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=WAIT)
        return processes

    @property
    def is_first(self) -> bool:
        """The first process speaks and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item], cost: Callable[[Item], int]) -> list[Item]:
        """This process's part of the items. Costs are spread evenly: the dearest first, each to who has least."""
        if self.size == 1:
            return list(items)
        shares: list[list[Item]] = [[] for _ in range(self.size)]
        loads = [0] * self.size
        for item in sorted(items, key=cost, reverse=True):
            least = loads.index(min(loads))
            shares[least].append(item)
            loads[least] += cost(item)
        return shares[self.rank]

    def sum_gradients(self, model: nn.Module) -> None:
        """Leave in every process the sum of all processes' gradients; one that had no example counts as zeros."""
        if self.size == 1:
            return
        if self._sharding:  # they were summed, and each process left its part, while going back
            return self._sharding.meet()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for bucket in _buckets([weight.grad for weight in weights if weight.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self._add_up(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def sum(self, *numbers: float) -> list[float]:
        """The sum over all processes of each number."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self._add_up(total)
        return [float(number) for number in total]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            self._add_up(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process; the same answer in all."""
        return self.sum(float(flag))[0] > 0

    def gather(self, value: Any) -> list[Any]:
        """What each process passed, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._meet()
        with _alive():
            dist.all_gather_object(values, value)
        return values

    def spread(self, state: TrainingState, frozen: Iterable[nn.Module] = ()) -> None:
        """Spread the weights of a run that begins, and what Adam will keep of them, over the processes."""
        from modelzoo.sharding import Sharding  # what it needs of PyTorch takes seconds to import

        self._sharding = Sharding(self.device, self.size, self._most)
        self._sharding.spread(state)
        for model in frozen:
            self._sharding.spread_model(model)

    def whole(self, model: Model, device: torch.device | None = None) -> Model:
        """The model with all of its weights; where they are spread, a gathered copy, on the run's device or another."""
        return self._sharding.whole(model, device or self.device) if self._sharding else model

    def rest(self) -> None:
        """Between steps, before weights are looked at: hold no more of what is spread than one's part."""
        if self._sharding:
            self._sharding.rest()

    def _add_up(self, tensor: Tensor) -> None:
        self._meet()
        with _alive():
            dist.all_reduce(tensor)

    def _meet(self) -> None:
        if self._sharding:
            self._sharding.meet()

    def _most(self, number: int) -> int:
        most = torch.tensor(number, device=self.device)
        with _alive():
            dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    # --- The end ---------------------------------------------------------------------------------------------------
    # torchrun ends all processes as soon as one has failed, so nobody leaves before the first has written result.json.

    def leave(self, kind: str | None = None, message: str = "") -> None:
        """Say, unless this is the first process, why it ends, and wait until the first has written the result."""
        if self._store is None or self.is_first:
            return
        if kind is not None:
            self._store.set("failure", json.dumps([kind, message]))
        dist.destroy_process_group()  # whoever waits for this process learns now that it does not come
        with contextlib.suppress(RuntimeError):
            self._store.wait(["result"], WAIT)  # where the first was killed, torchrun ends this one too

    def result_written(self) -> None:
        if self._store is not None and self.is_first:
            self._store.set("result", "")

    def failure_elsewhere(self) -> tuple[str, str] | None:
        """Kind and message of what ended another process; None where it was killed and could not say."""
        if self._store is None:
            return None
        try:
            self._store.wait(["failure"], LAST_WORDS)
        except RuntimeError:
            return None
        kind, message = json.loads(self._store.get("failure"))
        return kind, message


def tells_of_lost_peer(error: BaseException) -> bool:
    """Whether an exception comes of another process's end; within a pass through a spread model backends raise it."""
    return isinstance(error, PeerLost | dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    """Turn what the backends raise when another process has gone into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost("another process of this run ended") from error


def _die_with_launcher() -> None:
    """torchrun gives each process a session of its own: what kills it, or its group, would not reach them (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(member.nbytes for member in [*bucket, tensor]) > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _device() -> torch.device:
    """This process's GPU where there is one, told to give equal bits to equal runs where it can."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
