"""Training the small diffusion network: the loss, crops, going on after a stop, and the folder that comes out."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.backbones import diffusion
from uss_dagster.backbones.unet import pictures
from uss_dagster.errors import BadData, UsageError


def pool(count: int = 3, side: int = 24) -> np.ndarray:
    """Pictures of two colours each."""
    rng = np.random.default_rng(0)
    pictures = np.empty((count, side, side, 3), np.uint8)
    for picture in pictures:
        picture[:] = rng.integers(0, 256, 3)
        picture[:, rng.integers(8, 16) :] = rng.integers(0, 256, 3)
    return pictures


def settings(**values: Any) -> Any:
    from uss_dagster.backbones.unet.training import Settings

    return Settings(**({"steps": 6, "size": 16, "fold": 2, "channels": (16, 16), "head": 16, "batch": 2, "full_share": 0.34} | values))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps, four of them on crops of half the side."""
    from uss_dagster.backbones.unet.training import Source, Trainer, repeatable

    out = tmp_path_factory.mktemp("run")
    with repeatable(1):
        trainer = Trainer(pool(), settings())
        trainer.run(out)
        trainer.publish(out, Source("Trained on stripes.", "mit", "uss train diffusion --images stripes"))
    return out


def test_the_loss_is_min_snr_of_the_velocity() -> None:
    import torch
    from torch.nn.functional import pixel_unshuffle

    from uss_dagster.backbones.unet.training import loss_of, scheduler

    levels = scheduler()
    generator = torch.Generator().manual_seed(0)
    pixels, noise = torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1, torch.randn(3, 12, 4, 4, generator=generator)
    times = torch.tensor([20, 400, 980])
    guess = torch.randn(3, 12, 4, 4, generator=generator)

    class Unet:
        def __call__(self, noised: Any, timesteps: Any) -> Any:
            assert torch.allclose(noised, levels.add_noise(clean, noise, times), atol=1e-6)
            assert torch.equal(timesteps, times)
            return type("Output", (), {"sample": guess})

    clean = pixel_unshuffle(pixels, 2)
    found = loss_of(Unet(), pixels, noise, times, levels.alphas_cumprod, 2)
    error = (levels.get_velocity(clean, noise, times) - guess).square().mean((1, 2, 3))
    expected = []
    for value, time in zip(error.tolist(), times.tolist(), strict=True):
        alpha = float(levels.alphas_cumprod[time])
        ratio = alpha / (1 - alpha)
        expected.append(value * min(ratio, 5) / (ratio + 1))
    assert math.isclose(float(found), np.mean(expected), rel_tol=1e-5)


def test_what_is_published_computes_what_was_trained() -> None:
    """The 3×3 kernels of diffusers' network do what the pointwise ones did, at the border too; and nothing but attention leaves a cell."""
    import torch

    from uss_dagster.backbones.unet.attention_capture import self_attention_layers
    from uss_dagster.backbones.unet.training import network, pointwise, whole

    small = settings()
    trained, published = pointwise(small), network(small)
    published.load_state_dict(whole(trained.state_dict(), published.state_dict()))
    generator = torch.Generator().manual_seed(0)
    noised = torch.randn(1, 12, 8, 8, generator=generator)
    with torch.inference_mode():
        assert torch.allclose(trained(noised, 300).sample, published(noised, 300).sample, atol=1e-5)
        for layer in self_attention_layers(published):
            layer.to_out[0].weight.zero_()
        for module in published.modules():  # its mean and deviation are over all cells
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda values: values
        before = published(noised, 300).sample
        noised[:, :, 2, 5] += 1
        changed = (published(noised, 300).sample - before).abs().amax((0, 1)) > 1e-6
    assert changed[2:4, 4:6].any()
    assert not changed.sum() > 4


def test_crops_are_pictures_again_and_follow_their_generator() -> None:
    from uss_dagster.backbones.unet.training import crops

    first, second = (crops(pool(), 5, 12, (0.3, 1.0), np.random.default_rng(seed)) for seed in (1, 2))
    assert first.shape == (5, 3, 12, 12)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 1
    assert np.array_equal(first, crops(pool(), 5, 12, (0.3, 1.0), np.random.default_rng(1)))
    assert not np.array_equal(first, second)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(run: Path, tmp_path: Path) -> None:
    from uss_dagster.backbones.unet.training import CHECKPOINT, LOSSES, WEIGHTS, Source, Trainer, repeatable

    with repeatable(1):
        begun = Trainer(pool(), settings(steps=9))  # meant to be longer at first
        for _ in range(3):
            begun.step()
        begun.save(tmp_path)
        trainer = Trainer(pool(), settings())
        trainer.resume(tmp_path)
        assert trainer.done == 3
        trainer.run(tmp_path)
        trainer.publish(tmp_path, Source("", "mit", ""))
    assert (tmp_path / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
    assert (tmp_path / LOSSES).read_bytes() == (run / LOSSES).read_bytes()

    with pytest.raises(UsageError, match=r"other settings \(steps 6 → 7\)") as refused:  # the rate has begun to fall
        Trainer(pool(), settings(steps=7)).resume(tmp_path)
    assert str(tmp_path / CHECKPOINT) in str(refused.value)
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(BadData, match="not a checkpoint"):
        Trainer(pool(), settings()).resume(tmp_path)


def test_the_folder_is_one_of_diffusers(run: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel.from_pretrained(run, use_safetensors=True)
    assert unet.config.in_channels == 12
    assert DDPMScheduler.from_pretrained(run).config.prediction_type == "v_prediction"
    values = {"checkpoint": str(run), "facets": ("attention", "tokens"), "grid": 8}
    extract = diffusion.load(registry.build_params(diffusion.Params, values, "backbone 'diffusion'"), device="cpu")
    found = extract([pool()[0]])[0]
    assert found["attention"].shape == (64, 64)
    assert np.allclose(found["attention"].sum(1), 1, atol=1e-5)


def test_the_card_and_the_losses_say_what_was_done(run: Path) -> None:
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert "uss train diffusion --images stripes" in card
    assert "Seed 0; 6 steps, 4 of them on 4 crops of 8×8 pixels and the others on 2 of 16×16" in card
    lines = (run / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:2] for line in lines] == [["step", "side"], ["4", "8"], ["6", "16"]]


def test_weights_move_and_the_mean_follows() -> None:
    import torch

    from uss_dagster.backbones.unet.training import Trainer, network, repeatable

    with repeatable(1):
        trainer = Trainer(pool(), settings(steps=40, full_share=0.0, rate=3e-3))
        values = [trainer.step() for _ in range(40)]
    assert np.mean(values[-10:]) < np.mean(values[:10])
    fresh = network(trainer.settings).state_dict()
    assert all(not torch.equal(value, fresh[name]) for name, value in trainer.average.items())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 20}, "multiple of 8"),
        ({"channels": (20, 20)}, "multiples of 16"),
        ({"steps": 0}, "steps is 0"),
        ({"full_share": 2.0}, "0 to 1"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings(**values)


def test_pictures_are_checked() -> None:
    from uss_dagster.backbones.unet.training import Trainer

    with pytest.raises(BadData, match="expected uint8"):
        Trainer(np.zeros((2, 8, 9, 3), np.uint8), settings())


def test_pools(tmp_path: Path) -> None:
    from PIL import Image

    for number, picture in enumerate(pool()):
        Image.fromarray(picture[: 12 + number]).save(tmp_path / f"{number}.png")
    everything = pictures.folder_images(tmp_path, None, seed=0)
    assert everything.shape == (3, pictures.SIDE, pictures.SIDE, 3)
    two = pictures.folder_images(tmp_path, 2, seed=0)
    assert len(two) == 2
    assert all(any(np.array_equal(one, other) for other in everything) for one in two)
    with pytest.raises(UsageError, match="choose 1 to 3"):
        pictures.folder_images(tmp_path, 4, seed=0)
    with pytest.raises(UsageError, match="not a folder"):
        pictures.folder_images(tmp_path / "none", None, seed=0)
    with pytest.raises(UsageError, match="at least 1"):
        pictures.drawn_scenes(0)


def test_the_embedded_model_is_the_one_that_was_tested(tmp_path: Path) -> None:
    """Its card and configuration belong to its weights, images of any shape pass, and damage is noticed."""
    values = {"model": "embedded", "facets": ("attention", "tokens")}
    extract = diffusion.load(registry.build_params(diffusion.Params, values, "backbone 'diffusion'"), device="cpu")
    rng = np.random.default_rng(0)
    for facets in extract([rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((60, 301), (4, 4))]):
        assert facets["attention"].shape == (1024, 1024)
        assert facets["tokens"].shape[:2] == (32, 32)
        assert np.allclose(facets["attention"].sum(1), 1, atol=1e-5)
    assert sum(file.stat().st_size for file in diffusion.EMBEDDED.iterdir()) < 12e6
    assert set(diffusion.EMBEDDED_SHA256) | {"README.md", "losses.csv"} == {file.name for file in diffusion.EMBEDDED.iterdir()}
    card = (diffusion.EMBEDDED / "README.md").read_text(encoding="utf-8")
    assert "uss train diffusion --images scenes" in card

    copy = Path(shutil.copytree(diffusion.EMBEDDED, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"dropout": 0.5}), encoding="utf-8")
    with pytest.raises(BadData, match="is not the file of this version"):
        diffusion._embedded_folder(copy)
    (copy / "config.json").unlink()
    with pytest.raises(BadData, match="lacks"):
        diffusion._embedded_folder(copy)


def test_attention_of_the_embedded_model_knows_what_belongs_together() -> None:
    """A disc on a ground: a cell's attention stays on its own side far more than by chance, and the untrained network's does not."""
    y, x = np.indices((128, 128))
    disc = (y - 60) ** 2 + (x - 70) ** 2 < 34**2
    image = np.where(disc[..., None], (200, 120, 60), (70, 110, 160)).astype(np.uint8)
    values = {"model": "embedded", "facets": ("attention",)}
    extract = diffusion.load(registry.build_params(diffusion.Params, values, "backbone 'diffusion'"), device="cpu")
    attention = extract([image])[0]["attention"]
    inside = disc[2::4, 2::4].ravel()
    stays = attention[inside][:, inside].sum(axis=1).mean()
    assert stays > 1.5 * inside.mean()


@pytest.mark.slow
def test_the_command_from_a_folder_of_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for number, picture in enumerate(pool()):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    from typer.testing import CliRunner

    from uss_dagster.cli import app

    words = ["train", "diffusion", "--images", str(tmp_path), "--steps", "2", "--threads", "1"]
    for folder in ("a", "b"):
        assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / folder)], catch_exceptions=False).exit_code == 0
    names = ("diffusion_pytorch_model.safetensors", "config.json", "scheduler_config.json", "losses.csv")
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "Licence: other." in card
    assert "--count 3 --steps 2 --seed 0 --threads 1" in card


def test_settings_are_as_the_card_of_the_embedded_model_says() -> None:
    from uss_dagster.backbones.unet.training import Settings

    card = (diffusion.EMBEDDED / "README.md").read_text(encoding="utf-8")
    config = json.loads((diffusion.EMBEDDED / "config.json").read_text(encoding="utf-8"))
    usual = Settings()
    assert f"{usual.steps} steps, {usual.halves} of them" in card
    assert tuple(config["block_out_channels"]) == usual.channels
    assert dataclasses.asdict(usual)["fold"] ** 2 * 3 == config["in_channels"]
