"""Decoding on a GPU: a step is recorded once as a CUDA graph and then replayed.

A step of few rows is hundreds of small kernels, and starting them from Python takes longer than they do. A recording
holds as long as rows, prompts and memories stay where they are; what differs from step to step goes in through tensors
that are written in place. Rows then look at all columns of their memory, with a bias on those that hold nothing yet.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modelzoo.decoding import Decoding
from modelzoo.transformer import Transformer

PLAIN = 2  # steps of a new shape before it is recorded: rows that soon leave are not worth it

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""What returns a function again as a recording: called, it repeats the same kernels on the same memory."""


class _Inputs(NamedTuple):
    """What changes from step to step; see `Decoding` for the shapes."""

    tokens: Tensor
    positions: Tensor
    next: Tensor
    place: Tensor
    member: Tensor
    bias: Tensor


class ReplayedDecoding(Decoding):
    """`Decoding`, its steps replayed."""

    def __init__(self, model: Transformer, record: Record) -> None:
        super().__init__(model)
        self.native = None
        self.record = record
        self.steps = 0  # of the present shape
        self.shape: tuple[object, ...] = ()
        self.inputs: _Inputs | None = None
        self.replay: Callable[[], Tensor] | None = None

    def step(self, tokens: Tensor) -> Tensor:
        self._make_room()
        self.longest = self.keys[0].shape[2]  # all columns: their number seldom changes
        positions = (self.prompt_lengths[self.prompt_of] + self.said)[:, None]
        bias = self._bias(positions)
        inputs = _Inputs(tokens[:, None], positions, self.next, self.place, self.member, bias)
        memories = (*self.keys, *self.values, *self.prompt_keys, *self.prompt_values)
        shape = (*(part.shape for part in inputs), self.most, self.in_order, *(m.data_ptr() for m in memories))
        if shape != self.shape:
            self.shape, self.steps, self.replay = shape, 0, None
        self.steps += 1
        logits = self._run(inputs) if self.steps <= PLAIN else self._replayed(inputs)
        self.said = self.said + 1
        return logits

    def _replayed(self, inputs: _Inputs) -> Tensor:
        if self.replay is None:
            self.inputs = kept = _Inputs(*(part.clone() for part in inputs))
            self.replay = self.record(lambda: self._run(kept))
        assert self.inputs is not None
        for kept_part, part in zip(self.inputs, inputs, strict=True):
            kept_part.copy_(part)
        return self.replay().clone()

    def _run(self, inputs: _Inputs) -> Tensor:
        """The step itself: nothing in it waits for the GPU, and its shapes are those of its inputs."""
        self.next, self.place, self.member, self.bias = inputs.next, inputs.place, inputs.member, inputs.bias
        states = self.model.hidden(inputs.tokens, positions=inputs.positions, attend=self._attend)[:, 0]
        return self.model.logits(states)


def cuda_graph(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record a function's kernels: it runs once on a stream of its own, to warm up, and once to be recorded."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def decoding_of(model: Transformer) -> Decoding:
    """How a model decodes on the device where it is."""
    on_gpu = model.model.embed_tokens.weight.is_cuda
    return ReplayedDecoding(model, cuda_graph) if on_gpu else Decoding(model)
