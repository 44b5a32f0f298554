"""What native.cpp computes is what torch computes, whatever the shapes and whoever shares a step."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from modelzoo.decoding import Decoding
from modelzoo.native import HEAD_WIDTHS, NativeInt8Linear, NativeLinear, library
from modelzoo.packed import packed
from modelzoo.tests.test_decoding import assert_alike, text
from modelzoo.tests.test_variants import config, wilder
from modelzoo.transformer import Transformer


@pytest.mark.parametrize("rows", [1, 2, 5, 9, 12, 13, 40])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 31), (64, 32), (33, 65), (256, 100)])
def test_a_product_is_that_of_the_matrices(rows: int, inputs: int, outputs: int) -> None:
    native = library()
    assert native is not None, "g++ is on the list of what the tests need"
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    for added in (None, bias):
        got = NativeLinear(native, weight, added)(x)
        expected = x.double() @ weight.double().t() + (0 if added is None else added.double())
        assert (got - expected).abs().max() < 2e-6 * inputs**0.5 * 10
    alone = NativeLinear(native, weight, bias)(x[-1:])
    assert alone.equal(NativeLinear(native, weight, bias)(x)[-1:]), "company changed a row"


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 40])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (64, 32), (100, 33), (320, 65)])
def test_an_int8_product_is_that_of_the_rounded_matrices(rows: int, inputs: int, outputs: int) -> None:
    native = library()
    assert native is not None
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    x[:, ::7] *= 30  # what stands out costs its own group of 64 precision, no other
    for added in (None, bias):
        product = NativeInt8Linear(native, weight, added)
        got = product(x)
        expected = rounded(x) @ rounded(weight).t() + (0 if added is None else added.double())
        step = float((x.abs().max() / 127) * weight.abs().max())  # one number rounded the other way at a tie
        assert (got - expected).abs().max() < 1.01 * step
        assert (got - expected).abs().mean() < 1e-2 * step
        assert product(x[-1:]).equal(got[-1:]), "company changed a row"


def rounded(matrix: torch.Tensor) -> torch.Tensor:
    """To 127 steps on either side of 0 in groups of 64 columns."""
    rows, columns = matrix.shape
    groups = F.pad(matrix.double(), (0, -columns % 64)).view(rows, -1, 64)
    step = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((groups / step).round() * step).view(rows, -1)[:, :columns]


def test_an_int8_product_of_what_is_no_number_is_none() -> None:
    native = library()
    assert native is not None
    x = torch.randn(3, 100)
    x[1, 70] = float("nan")
    assert NativeInt8Linear(native, torch.randn(40, 100), None)(x).isnan().all(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("width", HEAD_WIDTHS)
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 4), (5, 1)])
def test_attention_is_that_of_whole_sequences(width: int, heads: int, groups: int) -> None:
    model = Transformer(
        config("llama", hidden_size=48, head_dim=width, num_attention_heads=heads, num_key_value_heads=groups)
    )
    model = packed(wilder(model).requires_grad_(False))
    draw = random.Random(width)
    decoding = Decoding(model)
    assert decoding.native is not None
    rows: list[list[int]] = []
    with torch.inference_mode():
        for step in range(40):
            if step % 9 == 0:
                prompts = [text(draw.randint(1, 20), draw) for _ in range(2)]
                decoding.join(prompts, [3, 1])
                rows += [list(prompts[0])] * 3 + [list(prompts[1])]
            if step % 13 == 12:
                order = decoding.leave(sorted(draw.sample(range(len(rows)), 2)))
                rows = [rows[old] for old in order]
            said = text(len(rows), draw)
            rows = [[*row, token] for row, token in zip(rows, said, strict=True)]
            logits = decoding.step(torch.tensor(said))
            if step % 6 == 0 or step == 39:
                assert_alike(logits, model, rows)


def test_what_a_row_gets_does_not_depend_on_its_company_to_the_bit() -> None:
    model = packed(wilder(Transformer(config("llama", head_dim=16))).requires_grad_(False))
    draw = random.Random(0)
    prompts, said = [text(length, draw) for length in (5, 9, 2)], text(30, draw)

    def logits(company: list[list[int]]) -> torch.Tensor:
        decoding = Decoding(model)
        decoding.join([prompts[0], *company], [1] * (1 + len(company)))
        return torch.stack([decoding.step(torch.tensor([token] * (1 + len(company))))[0] for token in said])

    with torch.inference_mode():
        assert logits([]).equal(logits(prompts[1:]))


def test_numbers_that_are_none_stay_seen() -> None:
    model = wilder(Transformer(config("llama", head_dim=16))).requires_grad_(False)
    model.model.layers[0].self_attn.k_proj.weight[0, 0] = float("nan")
    decoding = Decoding(packed(model))
    with torch.inference_mode():
        decoding.join([[1, 2, 3]], [2])
        assert decoding.step(torch.tensor([4, 5])).isnan().any(dim=-1).all()


def test_without_a_compiler_torch_does_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = wilder(Transformer(config("llama", head_dim=16))).requires_grad_(False)

    def logits() -> torch.Tensor:
        decoding = Decoding(packed(model))
        with torch.inference_mode():
            decoding.join([[1, 2, 3], [4]], [2, 1])
            return torch.stack([decoding.step(torch.tensor([5, 6, 7])) for _ in range(3)])

    expected = logits()
    try:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        library.cache_clear()
        assert library() is None
        assert (logits() - expected).abs().max() < 1e-4
        with pytest.raises(ValueError, match="int8 weights need a C.. compiler: install g"):
            packed(model, "int8")
        broken = tmp_path / "c++"
        broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
        broken.chmod(0o755)
        library.cache_clear()
        assert library() is None, "a compiler that fails is as good as none"
    finally:
        library.cache_clear()
