"""Captured self-attention against softmax(q kᵀ scale) written out; the UNet it is read from is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.errors import BadData, UsageError


@pytest.fixture(scope="module")
def unet() -> Any:
    """Three scales of cross-attention blocks, heads of different width, random weights: 16×16, 8×8 and 4×4."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import torch
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=(2, 4, 2),
            norm_num_groups=4,
        )
        for module in model.modules():  # random keys and queries are small, and their maps nearly uniform
            if hasattr(module, "to_k"):
                module.to_k.weight.data *= 8
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plain_unet() -> Any:
    """A UNet2DModel: its attention gets (B, C, h, w), normalises inside and adds its own residual; no text, no attn_processors."""
    import torch
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = UNet2DModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
            attention_head_dim=4,
            norm_num_groups=4,
        )
    return model.eval().requires_grad_(False)


def run(unet: Any, size: tuple[int, int] = (16, 16), batch: int = 1, seed: int = 0) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(batch, unet.config.in_channels, *size, generator=generator)
    arguments = {}
    if type(unet).__name__ == "UNet2DConditionModel":
        arguments["encoder_hidden_states"] = torch.randn(1, 3, 8, generator=generator).expand(batch, -1, -1)
    with torch.inference_mode():
        return unet(latent, 100, **arguments).sample


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def lumped(full: np.ndarray, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Columns added and rows averaged inside blocks, on the whole map, in NumPy."""
    (h, w), (rows, columns) = size, grid
    x = full.reshape(rows, h // rows, columns, w // columns, rows, h // rows, columns, w // columns)
    return x.sum((5, 7)).mean((1, 3)).reshape(rows * columns, rows * columns)


def written_out(unet: Any, **arguments: Any) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Size and head-mean map (B, N, N) in float64 of every self-attention layer in running order, by hooks on to_q and to_k alone."""
    from uss_dagster.backbones.unet.attention_capture import self_attention_layers

    kept: list[list[Any]] = []
    hooks = []
    for layer in self_attention_layers(unet):
        hooks.append(layer.to_q.register_forward_hook(lambda m, i, out, layer=layer: kept.append([layer, out])))
        hooks.append(layer.to_k.register_forward_hook(lambda m, i, out: kept[-1].append(out)))
    run(unet, **arguments)
    for hook in hooks:
        hook.remove()
    maps = []
    height, width = arguments.get("size", (16, 16))
    for layer, q, k in kept:
        q, k = (x.double().numpy().reshape(len(x), x.shape[1], layer.heads, -1).transpose(0, 2, 1, 3) for x in (q, k))
        full = softmax(q @ k.transpose(0, 1, 3, 2) * layer.scale).mean(1)
        shrink = round((height * width / full.shape[1]) ** 0.5)
        maps.append(((height // shrink, width // shrink), full))
    return maps


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_captured_rows_are_the_softmax(unet: Any, size: tuple[int, int]) -> None:
    """At the finest scale nothing is lumped: rows are those of the written-out maps, averaged over layers, for each image of a batch."""
    from uss_dagster.backbones.unet.attention_capture import Recorder

    recorder = Recorder(unet, size, grid=size)
    with recorder.recording():
        run(unet, size, batch=2)
    maps = written_out(unet, size=size, batch=2)
    assert [s for s, _ in maps].count(size) == 3
    assert len({s for s, _ in maps}) == 3
    for scale, total in recorder._sums.items():
        want = np.mean([full for s, full in maps if s == scale], axis=0)
        got = total.numpy() / recorder._counts[scale]
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-5
        assert np.abs(want - 1 / want.shape[-1]).max() > 1e-3  # not a uniform map, which anything would fit


def test_a_plain_unet_is_read_too(plain_unet: Any) -> None:
    from uss_dagster.backbones.unet.attention_capture import Recorder

    recorder = Recorder(plain_unet, (16, 16), grid=(16, 16))
    with recorder.recording():
        with_capture = run(plain_unet)
    assert np.array_equal(with_capture, run(plain_unet))
    maps = written_out(plain_unet)
    assert len(maps) == 7  # 2 down, 1 in the middle, 4 up
    for scale, total in recorder._sums.items():
        assert np.allclose(total.numpy() / recorder._counts[scale], np.mean([full for s, full in maps if s == scale], axis=0), atol=1e-5)
    assert np.allclose(recorder.attention("uniform").sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("block_bytes", [1, 40_000, 10**9])
def test_lumping_by_blocks_is_lumping_the_whole_map(unet: Any, block_bytes: int) -> None:
    """One cell and one head at a time, a few, or all at once: the same lumped maps at every scale and their weighted mean."""
    from uss_dagster.backbones.unet.attention_capture import Recorder

    size, grid = (16, 24), (4, 6)
    recorder = Recorder(unet, size, grid, block_bytes=block_bytes)
    with recorder.recording():
        run(unet, size)
    maps = written_out(unet, size=size)
    want, weight = 0, 0
    for scale in {s for s, _ in maps}:
        mean = np.mean([lumped(full[0], scale, grid) for s, full in maps if s == scale], axis=0)
        assert np.allclose(recorder._sums[scale][0].numpy() / recorder._counts[scale], mean, atol=1e-6)
        want, weight = want + scale[0] * mean, weight + scale[0]
    attention = recorder.attention("proportional")[0].numpy()
    assert np.allclose(attention, want / weight, atol=1e-6)
    assert attention.dtype == np.float32
    assert np.allclose(attention.sum(-1), 1, atol=1e-6)


def test_a_block_constant_chain_lumps_to_the_block_chain() -> None:
    """Queries and keys constant inside 2×2 blocks: the lumped map is the softmax among the blocks, exactly that chain."""
    import torch

    from uss_dagster.backbones.unet.attention_capture import lumped_attention

    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 3, 4, 6, 5)).astype(np.float32)  # (heads, rows, columns, d)
    fine_q, fine_k = (torch.from_numpy(x.repeat(2, 1).repeat(2, 2).reshape(3, 96, 5)) for x in (q, k))
    got = lumped_attention(fine_q, fine_k, 0.5, (8, 12), (4, 6), 10_000).numpy()
    want = softmax(0.5 * q.reshape(3, 24, 5) @ k.reshape(3, 24, 5).transpose(0, 2, 1)).mean(0)
    assert np.allclose(got, want, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    block=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    heads=st.integers(1, 3),
    block_bytes=st.integers(1, 20_000),
    sharpness=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_any_block_size_lumps_alike(grid: tuple[int, int], block: tuple[int, int], heads: int, block_bytes: int, sharpness: float) -> None:
    import torch

    from uss_dagster.backbones.unet.attention_capture import lumped_attention

    size = (grid[0] * block[0], grid[1] * block[1])
    q, k = np.random.default_rng(0).standard_normal((2, heads, size[0] * size[1], 4)).astype(np.float32)
    got = lumped_attention(torch.from_numpy(q), torch.from_numpy(k), sharpness, size, grid, block_bytes).numpy()
    full = softmax(sharpness * q.astype(np.float64) @ k.astype(np.float64).transpose(0, 2, 1)).mean(0)
    assert np.allclose(got, lumped(full, size, grid), atol=1e-4 if sharpness > 1 else 1e-6)
    assert np.allclose(got.sum(1), 1, atol=1e-5)


def test_going_up_keeps_rows_stochastic_and_shares_them() -> None:
    import torch

    from uss_dagster.backbones.unet.attention_capture import spread_attention

    small = softmax(3 * np.random.default_rng(0).standard_normal((1, 6, 6))).astype(np.float32)
    big = spread_attention(torch.from_numpy(small), (2, 3), (4, 6)).numpy()[0].reshape(4, 6, 4, 6)
    assert np.allclose(big.sum((2, 3)), 1, atol=1e-6)
    assert np.array_equal(big[0, 0], big[1, 1])  # fine cells of one coarse cell
    assert not np.array_equal(big[0, 0], big[0, 2])
    # Bilinear weights of the corner: the fine corner cell is the coarse one, its neighbour three quarters of it.
    a, b = small[0, 0, 0], small[0, 0, 1]
    assert np.isclose(big[0, 0, 0, 1] / big[0, 0, 0, 0], (0.75 * a + 0.25 * b) / a, rtol=1e-5)
    constant = spread_attention(torch.full((1, 6, 6), 1 / 6), (2, 3), (4, 6))
    assert np.allclose(constant, 1 / 24)


def test_grid_between_the_scales(unet: Any) -> None:
    """Grid 8×8 of 16, 8 and 4: one scale goes down, one stays, one goes up; weights 16, 8 and 4, or one each."""
    from uss_dagster.backbones.unet.attention_capture import Recorder, spread_attention

    recorder = Recorder(unet, (16, 16), (8, 8))
    with recorder.recording():
        run(unet)
    mean = {size: recorder._sums[size] / recorder._counts[size] for size in recorder._sums}
    parts = [mean[16, 16], mean[8, 8], spread_attention(mean[4, 4], (4, 4), (8, 8))]
    for weights, values in (("proportional", (16, 8, 4)), ("uniform", (1, 1, 1))):
        want = sum(v * p for v, p in zip(values, parts, strict=True)) / sum(values)
        got = recorder.attention(weights)  # type: ignore[arg-type]
        assert np.allclose(got, want, atol=1e-6)
        assert np.abs(got.sum(-1) - 1).max() < 1e-5


def test_output_is_the_same_to_the_last_bit(unet: Any) -> None:
    from uss_dagster.backbones.unet.attention_capture import Recorder

    before = run(unet)
    recorder = Recorder(unet, (16, 16), (8, 8))
    with recorder.recording():
        during = run(unet)
    assert np.array_equal(before, during)
    assert np.array_equal(before, run(unet))


def test_processors_are_back_whatever_happens(unet: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    from uss_dagster.backbones.unet.attention_capture import Recorder, observed, self_attention_layers

    special = AttnProcessor()
    layer = self_attention_layers(unet)[2]
    default = layer.get_processor()
    layer.set_processor(special)
    try:
        before = dict(unet.attn_processors)
        assert special in before.values()

        def fail(attn: Any, hidden: Any, output: Any) -> None:
            raise RuntimeError("in the middle of a pass")

        with observed(unet, fail):
            assert unet.attn_processors != before
        assert unet.attn_processors == before
        with pytest.raises(RuntimeError, match="in the middle"), observed(unet, fail):
            run(unet)
        assert unet.attn_processors == before

        recorder = Recorder(unet, (16, 16), (8, 8))
        with pytest.raises(KeyboardInterrupt), recorder.recording():
            raise KeyboardInterrupt
        assert unet.attn_processors == before

        # a processor that cannot be put in: those already in are taken out again
        def refuse(processor: Any) -> None:
            if processor is not default_of_last:
                raise RuntimeError("no other processor")

        last = self_attention_layers(unet)[-1]
        default_of_last = last.get_processor()
        last.set_processor = refuse
        try:
            with pytest.raises(RuntimeError, match="no other"), observed(unet, fail):
                pass
        finally:
            del last.set_processor
        assert unet.attn_processors == before
    finally:
        layer.set_processor(default)


def test_only_self_attention_is_watched(unet: Any) -> None:
    from uss_dagster.backbones.unet.attention_capture import self_attention_layers

    names = {id(module): name for name, module in unet.named_modules()}
    found = sorted(names[id(layer)] for layer in self_attention_layers(unet))
    assert found == sorted(name for name in names.values() if name.endswith("attn1"))
    assert len(found) == 10


def test_tokens_and_keys_are_those_of_the_layer(unet: Any) -> None:
    """By default the last layer on the way down at the grid's scale; else any in running order; means over passes."""
    import torch

    from uss_dagster.backbones.unet.attention_capture import Recorder

    kept: dict[str, list[Any]] = {"out": [], "keys": []}
    layer = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    hooks = [
        layer.register_forward_hook(lambda m, i, out: kept["out"].append(out)),
        layer.to_k.register_forward_hook(lambda m, i, out: kept["keys"].append(out)),
    ]
    recorder = Recorder(unet, (16, 16), (8, 8), maps=False)
    for seed in (0, 1):
        with recorder.recording():
            run(unet, seed=seed)
    for hook in hooks:
        hook.remove()
    assert np.allclose(recorder.of_layer("outputs"), torch.stack(kept["out"]).mean(0).view(1, 8, 8, 8), atol=1e-6)
    assert np.allclose(recorder.of_layer("keys"), torch.stack(kept["keys"][::2]).mean(0).view(1, 8, 8, 8), atol=1e-6)
    assert recorder._sums == {}

    first, last = (Recorder(unet, (16, 16), (8, 8), maps=False, layer=number) for number in (1, -9))
    for one in (first, last):
        with one.recording():
            run(unet)
    assert np.array_equal(first.of_layer("outputs"), last.of_layer("outputs"))
    assert recorder.of_layer("outputs").shape == first.of_layer("outputs").shape

    for number in (0, 3):  # 16×16 and 4×4 come onto the grid of 8×8
        one = Recorder(unet, (16, 16), (8, 8), maps=False, layer=number)
        with one.recording():
            run(unet)
        assert one.of_layer("outputs").shape[:3] == one.of_layer("keys").shape[:3] == (1, 8, 8)


def test_every_facet_of_a_layer_is_what_the_layer_computes(unet: Any) -> None:
    from uss_dagster.backbones.unet.attention_capture import Recorder

    layer = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    seen: dict[str, Any] = {}
    hooks = [
        getattr(layer, name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: (i[0], out)}))
        for name in ("to_q", "to_k", "to_v")
    ]
    recorder = Recorder(unet, (16, 16), (8, 8), maps=False, facets=("queries", "keys", "values", "hidden"))
    with recorder.recording():
        run(unet)
    for hook in hooks:
        hook.remove()
    for facet, name in (("queries", "to_q"), ("keys", "to_k"), ("values", "to_v")):
        assert np.allclose(recorder.of_layer(facet), seen[name][1].view(1, 8, 8, 8), atol=1e-6)
    assert np.allclose(recorder.of_layer("hidden"), seen["to_v"][0].view(1, 8, 8, 8), atol=1e-6)


def test_weights_and_layers_of_attention_are_those_given(unet: Any) -> None:
    """The mean over chosen layers, and the sum over resolutions with weights of one's own; the same weights written out change nothing."""
    from uss_dagster.backbones.unet.attention_capture import Recorder, self_attention_layers

    def recorded(layers: Any = None) -> Any:
        recorder = Recorder(unet, (16, 16), (8, 8), layers=layers)
        with recorder.recording():
            run(unet)
        return recorder

    everything = recorded()
    count, sizes = len(self_attention_layers(unet)), sorted(everything._sums, reverse=True)
    assert np.array_equal(everything.attention("uniform"), everything.attention((1.0,) * len(sizes)))
    sides = tuple(float(min(size)) for size in sizes)
    assert np.array_equal(everything.attention("proportional"), everything.attention(sides))
    assert np.array_equal(everything.attention("uniform"), recorded(range(count)).attention("uniform"))
    alone = [everything.attention(tuple(float(i == number) for i in range(len(sizes)))) for number in range(len(sizes))]
    mixed = everything.attention((3.0, 1.0, *[0.0] * (len(sizes) - 2)))
    assert np.allclose(mixed, 0.75 * alone[0] + 0.25 * alone[1], atol=1e-6)

    each = [recorded([number]) for number in (count - 1, count - 2)]  # the last block has two, at the finest resolution
    assert all(list(one._sums) == [sizes[0]] for one in each)
    mean = (each[0].attention("uniform") + each[1].attention("uniform")) / 2
    assert np.allclose(recorded([-2, count - 1]).attention("uniform"), mean, atol=1e-6)
    assert np.array_equal(recorded([-1]).attention("uniform"), each[0].attention("uniform"))
    with pytest.raises(UsageError, match=rf"weights has 1 values, but attention has {len(sizes)} resolutions \(16×16, "):
        everything.attention((1.0,))


def test_tokens_go_to_a_grid_by_means_of_blocks() -> None:
    import torch

    from uss_dagster.backbones.unet.attention_capture import tokens_on_grid

    tokens = torch.arange(2 * 4 * 6 * 3.0).view(2, 4, 6, 3)
    assert np.allclose(tokens_on_grid(tokens, (2, 3)), tokens.view(2, 2, 2, 3, 2, 3).mean((2, 4)))
    assert tokens_on_grid(tokens, (8, 12)).shape == (2, 8, 12, 3)


def test_refusals(unet: Any) -> None:
    from diffusers import UNet2DModel

    from uss_dagster.backbones.unet.attention_capture import Recorder, check_layers

    check_layers(unet, [])
    check_layers(unet, [-10, 9])
    with pytest.raises(UsageError, match="has 10 self-attention layers: choose -10 to 9"):
        check_layers(unet, [0, 10])
    blind = UNet2DModel(
        block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4, add_attention=False
    )
    with pytest.raises(UsageError, match="no self-attention layer"):
        check_layers(blind, [])
    recorder = Recorder(unet, (32, 32), (8, 8))
    with pytest.raises(BadData, match=r"384 positions.*32×32"), recorder.recording():
        run(unet, (16, 24))
