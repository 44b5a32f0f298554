"""`native.cpp`, compiled for this machine on first use: what a decoding step spends its time on, in float32 on CPUs.

Where no C++ compiler is found torch's operations do the same, up to rounding, in half as many tokens a second.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SOURCE = Path(__file__).with_name("native.cpp")
COMPILERS = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
HEAD_WIDTHS = (16, 32, 64, 80, 96, 128)

logger = logging.getLogger(__name__)


class Step(ctypes.Structure):
    """What `attend` reads and writes, as native.cpp declares it."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("queries", "keys", "values")),
        *((name, ctypes.c_int64) for name in ("query_stride", "key_stride", "value_stride")),
        *((name, ctypes.c_void_p) for name in ("prompt_keys", "prompt_values", "own_keys", "own_values")),
        *((name, ctypes.c_void_p) for name in ("prompt_lengths", "prompt_of", "said", "mixed")),
        *((name, ctypes.c_int64) for name in ("rows", "heads", "groups", "prompt_columns", "own_columns")),
        ("scale", ctypes.c_float),
    ]


class Int8Weights(ctypes.Structure):
    """What `linear_int8` reads, as native.cpp declares it."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weights", "scales", "corrections", "bias")),
        *((name, ctypes.c_int64) for name in ("inputs", "groups", "outputs")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None where it cannot be had; the log says why."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        logger.info("no C++ compiler: sampling takes torch's operations. On Debian and Ubuntu: apt-get install g++")
        return None
    try:
        built = _built(compiler)
        found = ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("native.cpp could not be compiled, sampling takes torch's operations: %s", error)
        return None
    found.linear.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3 + [ctypes.c_int]
    found.linear.restype = None
    found.linear_int8.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(Int8Weights),
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int,
    ]
    found.linear_int8.restype = None
    found.rms_norm.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_float, ctypes.c_int]
    found.rms_norm.restype = None
    found.rotate.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 4 + [ctypes.c_int]
    found.rotate.restype = None
    found.swiglu.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_int]
    found.swiglu.restype = None
    found.attend.argtypes = [ctypes.POINTER(Step), ctypes.c_int64, ctypes.c_int]
    found.attend.restype = None
    return found


def _built(compiler: str) -> Path:
    """The library's path; compiled unless this source was for this processor before."""
    processor = "".join(line for line in _processor() if line.startswith(("model name", "flags")))
    digest = hashlib.sha256("\n".join([SOURCE.read_text(), *FLAGS, compiler, processor]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nanochatgpt"
    path = folder / f"native-{digest[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # two processes may compile at once: last one wins
            unfinished = Path(scratch) / path.name
            command = [compiler, *FLAGS, str(SOURCE), "-o", str(unfinished)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise OSError(f"{compiler} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
            unfinished.rename(path)
    return path


def _processor() -> list[str]:
    try:
        return sorted(set(Path("/proc/cpuinfo").read_text().splitlines()))
    except OSError:
        return [f"model name: {platform.processor()}"]


class NativeLinear:
    """x (..., I) -> (..., O) by weight (O, I), kept in the order in which it will be read, and a bias (O) or none."""

    def __init__(self, native: ctypes.CDLL, weight: Tensor, bias: Tensor | None) -> None:
        panel = native.panel_width()
        self.native, (self.outputs, self.inputs) = native, weight.shape
        self.panels = weight.new_zeros(-(-self.outputs // panel), self.inputs, panel)
        for number, rows in enumerate(weight.detach().split(panel)):
            self.panels[number, :, : len(rows)] = rows.t()
        self.bias = None if bias is None else bias.detach().contiguous()
        self.pointers = self.panels.data_ptr(), None if self.bias is None else self.bias.data_ptr()

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float().contiguous()
        y = x.new_empty(*x.shape[:-1], self.outputs)
        rows = x.numel() // self.inputs
        self.native.linear(
            x.data_ptr(), *self.pointers, y.data_ptr(), rows, self.inputs, self.outputs, torch.get_num_threads()
        )
        return y


class NativeInt8Linear:
    """`NativeLinear` with weights in 8 bits; 64 inputs share a scale, in each row of weights and of x."""

    def __init__(self, native: ctypes.CDLL, weight: Tensor, bias: Tensor | None) -> None:
        self.native, (self.outputs, inputs) = native, weight.shape
        half, together = native.int8_outputs(), native.int8_together()
        panels, groups = -(-self.outputs // (2 * half)), -(-inputs // 64)
        padded = F.pad(weight.detach(), (0, groups * 64 - inputs, 0, panels * 2 * half - self.outputs))
        blocks = padded.view(panels, 2, half, groups, 64)
        scales = blocks.abs().amax(dim=-1, keepdim=True) / 127
        rounded = (blocks / scales.clamp_min(1e-30)).round().to(torch.int8)
        by_instruction = rounded.view(panels, 2, half, groups, 64 // together, together)
        self.weights = by_instruction.permute(0, 3, 4, 1, 2, 5).contiguous()
        self.scales = scales[..., 0].permute(0, 3, 1, 2).contiguous()  # (panels, groups, 2, half)
        self.corrections = (-128 * rounded.sum(dim=-1, dtype=torch.int32)).permute(0, 3, 1, 2).contiguous()
        self.bias = None if bias is None else bias.detach().contiguous()
        parts = (self.weights, self.scales, self.corrections, self.bias)
        pointers = [None if part is None else part.data_ptr() for part in parts]
        self.described = Int8Weights(*pointers, inputs, groups, self.outputs)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float().contiguous()
        y = x.new_empty(*x.shape[:-1], self.outputs)
        rows = x.numel() // x.shape[-1]
        self.native.linear_int8(x.data_ptr(), self.described, y.data_ptr(), rows, torch.get_num_threads())
        return y


class NativeNorm(nn.Module):
    """`RMSNorm` with its weight (D)."""

    def __init__(self, native: ctypes.CDLL, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.native, self.weight, self.eps = native, weight.detach().clone(), eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float().contiguous()
        y, width, threads = torch.empty_like(x), x.shape[-1], torch.get_num_threads()
        rows = x.numel() // width
        self.native.rms_norm(x.data_ptr(), self.weight.data_ptr(), y.data_ptr(), rows, width, self.eps, threads)
        return y


def rotated(native: ctypes.CDLL, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """`rotate` of `transformer.py` for x (B, T, heads, E), a part of what one product made for B and T."""
    x, places = x.float(), (*x.shape[:2], 1, x.shape[3])
    cos, sin = (part.float().expand(places).contiguous() for part in angles)
    y = x.new_empty(x.shape)
    rows, heads, width = x.shape[0] * x.shape[1], *x.shape[2:]
    pointers = (part.data_ptr() for part in (x, cos, sin, y))
    native.rotate(*pointers, rows, heads, width, x.stride(1), torch.get_num_threads())
    return y


def swiglu(native: ctypes.CDLL, gates_ups: Tensor) -> Tensor:
    """(..., 2 * I), gates and what they let through side by side, -> (..., I) (Shazeer 2020)."""
    width = gates_ups.shape[-1] // 2
    gates_ups = gates_ups.float()
    y = gates_ups.new_empty(*gates_ups.shape[:-1], width)
    native.swiglu(gates_ups.data_ptr(), y.data_ptr(), y.numel() // width, width, torch.get_num_threads())
    return y
