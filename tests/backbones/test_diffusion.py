"""The diffusion backbone on tiny random models saved in diffusers' layout: its arithmetic, its folders, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.backbones import diffusion
from uss_dagster.errors import BadData, Unavailable, UsageError

TINY = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
CROSS: dict[str, Any] = TINY | {
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
}
SELF: dict[str, Any] = TINY | {
    "down_block_types": ("AttnDownBlock2D",) * 2,
    "up_block_types": ("AttnUpBlock2D",) * 2,
    "attention_head_dim": 4,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sd: a latent text-to-image pipeline. sdxl: two text encoders and a pooled one. pixels: an unconditional pipeline. patches: one UNet in
    a folder of its own, 2×2 pixels folded into 12 channels, with cross-attention and no text encoder."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel, UNet2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    root = tmp_path_factory.mktemp("models")
    text = CLIPTextConfig(
        vocab_size=3,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_dim=8,
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)

    def save(part: Any, place: str) -> None:
        part.save_pretrained(root / place)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(sample_size=16, **CROSS)
        save(_sharper(unet), "sd/unet")
        down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
        vae = AutoencoderKL(block_out_channels=(4, 8), latent_channels=4, norm_num_groups=2, down_block_types=down, up_block_types=up)
        for folder in ("sd", "sdxl"):
            save(vae, f"{folder}/vae")
            save(scheduler, f"{folder}/scheduler")
            for part in ("", "_2")[: 1 + (folder == "sdxl")]:
                (root / folder / f"tokenizer{part}").mkdir(parents=True)
                _write_tokenizer(CLIPTokenizer, root / folder / f"tokenizer{part}")
        save(CLIPTextModel(text), "sd/text_encoder")
        save(CLIPTextModel(text), "sdxl/text_encoder")
        save(CLIPTextModelWithProjection(text), "sdxl/text_encoder_2")
        added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 8 + 24}
        save(UNet2DConditionModel(sample_size=16, **CROSS | {"cross_attention_dim": 32} | added), "sdxl/unet")
        save(_sharper(UNet2DModel(sample_size=16, **SELF)), "pixels/unet")
        save(DDPMScheduler(prediction_type="sample"), "pixels/scheduler")
        save(UNet2DConditionModel(sample_size=8, in_channels=12, out_channels=12, **CROSS), "patches")
        save(DDPMScheduler(prediction_type="v_prediction"), "patches")
    return root


def _sharper(unet: Any) -> Any:
    for name, parameter in unet.named_parameters():
        if ".to_k.weight" in name:
            parameter.data *= 8
    return unet


def _write_tokenizer(kind: Any, folder: Path) -> None:
    kind(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}, merges=[], model_max_length=7).save_pretrained(folder)


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Any:
    """A copy of one of the models that a test may damage."""
    return lambda name: Path(shutil.copytree(models / name, tmp_path / name))


def extractor(folder: Path, **values: Any) -> Any:
    values = {"checkpoint": str(folder), "facets": diffusion.SPEC.facets, "grid": 8} | values
    return diffusion.load(registry.build_params(diffusion.Params, values, "backbone 'diffusion'"), device="cpu")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("name", "values", "short"),
    [
        ("sd", {}, 32),
        ("sd", {"extraction": "clean"}, 32),
        ("sd", {"extraction": "ddim", "n_steps": 2}, 32),
        ("sdxl", {}, 32),
        ("sdxl", {"conditioning": "zeros"}, 32),
        ("pixels", {}, 16),
        ("pixels", {"extraction": "ddim", "n_steps": 2}, 16),
        ("patches", {"conditioning": "zeros"}, 16),
        ("patches", {"conditioning": "zeros", "extraction": "ddim", "n_steps": 2}, 16),
    ],
)
def test_facets_of_every_kind_of_model(models: Path, name: str, values: dict[str, Any], short: int) -> None:
    extract = extractor(models / name, **values)
    assert extract.input_size(30, 45) == (short, short)
    image = noise(30, 45)
    facets = extract([image])[0]
    n = 64
    assert {key: value.shape for key, value in facets.items()} == {
        "attention": (n, n),
        "tokens": (8, 8, facets["keys"].shape[2]),
        **dict.fromkeys(("keys", "queries", "values"), (8, 8, facets["keys"].shape[2])),
    }
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in facets.values())
    assert np.allclose(facets["attention"].sum(1), 1, atol=1e-5)
    assert facets["attention"].min() >= 0
    again = extractor(models / name, **values)([noise(20, 20, seed=5), image, noise(30, 45, seed=6)])
    assert same(again[1], facets)  # neighbours and order do not matter
    assert not np.allclose(again[0]["tokens"], facets["tokens"])


def test_single_follows_its_seed_and_timestep(models: Path) -> None:
    image = noise(32, 32)
    first = extractor(models / "sd")([image])[0]
    assert same(first, extractor(models / "sd", seed=42, timestep=100)([image])[0])
    for other in ({"seed": 1}, {"timestep": 300}, {"extraction": "clean"}):
        assert not np.allclose(first["attention"], extractor(models / "sd", **other)([image])[0]["attention"], atol=1e-6)


def test_single_is_what_diffusers_computes(models: Path) -> None:
    """Latent, noise level, text and UNet call written with diffusers' own pieces: same keys, by a hook on the layer."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = models / "sd"
    image = noise(32, 32)
    got = extractor(folder, grid=16)([image])[0]
    with torch.inference_mode():
        vae, unet = AutoencoderKL.from_pretrained(folder / "vae"), UNet2DConditionModel.from_pretrained(folder / "unet")
        text = CLIPTextModel.from_pretrained(folder / "text_encoder")(torch.tensor([[0, 1, 1, 1, 1, 1, 1]])).last_hidden_state
        latent = vae.encode(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mean * 0.18215
        drawn = torch.from_numpy(np.random.default_rng(42).standard_normal((1, 4, 16, 16), np.float32))
        noised = DDIMScheduler.from_pretrained(folder / "scheduler").add_noise(latent, drawn, torch.tensor([100]))
        kept: list[Any] = []
        unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_k.register_forward_hook(lambda m, i, out: kept.append(out))
        unet(noised, 100, encoder_hidden_states=text)
    assert np.allclose(got["keys"], kept[0].view(16, 16, 8), atol=1e-5)


@pytest.mark.parametrize(("name", "prediction"), [("sd", "epsilon"), ("pixels", "sample"), ("patches", "v_prediction")])
def test_ddim_steps_are_those_of_diffusers(models: Path, name: str, prediction: str) -> None:
    """A step down by diffusers' DDIM scheduler (eta 0, nothing clipped), and a step up undoes a step down for the same output."""
    import torch
    from diffusers import DDIMScheduler

    extract = extractor(models / name, conditioning="zeros")
    assert extract.model.prediction == prediction
    config = dict(DDIMScheduler.from_config(json.loads(next((models / name).rglob("scheduler_config.json")).read_text())).config)
    scheduler = DDIMScheduler.from_config(config | {"clip_sample": False, "steps_offset": 0, "timestep_spacing": "leading"})
    scheduler.set_timesteps(50)
    x, output = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 1, 3, 4, 4), np.float32))
    want = scheduler.step(output, 200, x).prev_sample
    assert np.allclose(extract._ddim_step(x, output, 200, 180), want, atol=1e-5)
    if prediction == "epsilon":
        assert np.allclose(extract._ddim_step(extract._ddim_step(x, output, 200, 180), output, 180, 200), x, atol=1e-5)


def test_ddim_calls_the_unet_up_and_down(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = extractor(models / "sd", extraction="ddim", n_steps=3)
    told: list[int] = []
    predict = extract._predict
    monkeypatch.setattr(extract, "_predict", lambda latent, timestep, size: told.append(timestep) or predict(latent, timestep, size))
    extract([noise(32, 32)])
    assert told == [0, 20, 40, 60, 40, 20]


def test_tokens_may_be_keys_and_of_another_layer(models: Path) -> None:
    image = noise(32, 32)
    facets = extractor(models / "sd", tokens_from="keys")([image])[0]
    assert np.array_equal(facets["tokens"], facets["keys"])
    outputs = extractor(models / "sd", facets=["tokens"])([image])[0]
    assert set(outputs) == {"tokens"}
    assert not np.allclose(outputs["tokens"], facets["tokens"])
    last = extractor(models / "sd", facets=["tokens"], layer=-1)([image])[0]["tokens"]
    assert last.shape == (8, 8, 8)  # of 16×16 on the way up


def test_a_prompt_is_what_the_text_encoder_says_of_it(models: Path) -> None:
    """The UNet's conditioning is that of diffusers' pipeline; no prompt is the empty one, byte for byte."""
    from transformers import CLIPTextModel, CLIPTokenizer

    folder, image = models / "sd", noise(32, 32)
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")("a a", padding="max_length", max_length=7, return_tensors="pt").input_ids
    expected = CLIPTextModel.from_pretrained(folder / "text_encoder")(tokens).last_hidden_state.detach()
    prompted = extractor(folder, prompt="a a")
    assert np.allclose(prompted.model.text, expected, atol=1e-6)
    empty = extractor(folder)([image])[0]
    assert same(empty, extractor(folder, prompt="")([image])[0])
    assert not np.allclose(prompted([image])[0]["tokens"], empty["tokens"])


def test_sizes_and_grids(models: Path) -> None:
    extract = extractor(models / "sd", shape="aspect", image_size=40)
    assert extract.input_size(30, 60) == (40, 80)
    assert extract.grid((40, 80)) == (10, 20)
    facets = extract([noise(30, 60)])[0]
    assert facets["attention"].shape == (200, 200)
    assert facets["tokens"].shape[:2] == (10, 20)
    assert extractor(models / "sd", grid=32).grid((32, 32)) == (16, 16)
    assert extractor(models / "sd", grid=1).grid((32, 32)) == (8, 8)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near(models: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    image = noise(32, 32)
    want, got = extractor(models / "sd")([image])[0], extractor(models / "sd", precision=precision)([image])[0]
    for facet, value in got.items():
        assert value.dtype == np.float32
        assert np.linalg.norm(value - want[facet]) < 0.05 * np.linalg.norm(want[facet])
    assert np.allclose(got["attention"].sum(1), 1, atol=1e-5)
    assert capsys.readouterr().err == ""


def test_nan_in_half_precision_falls_back(copied: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Keys beyond float16's 65504 give infinite scores, then NaN; float32 holds them. The next image is in half precision again."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = copied("sd")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    weights[f"{name}.to_k.weight"] *= 60000 / weights[f"{name}.to_k.weight"].abs().max()
    save_file(weights, path)
    images = [noise(32, 32), noise(32, 32, seed=1)]
    extract = extractor(folder, precision="float16")
    halves = extract(images)
    said = capfd.readouterr().err.splitlines()
    assert said == ["the UNet gave NaN or infinity in float16: this image is computed again in float32"] * 2
    assert extract.model.unet.dtype == torch.float16
    assert all(np.isfinite(value).all() for half in halves for value in half.values())
    assert np.allclose(halves[0]["attention"].sum(1), 1, atol=1e-5)
    for part, whole in zip(halves, extractor(folder)(images), strict=True):
        assert np.allclose(part["tokens"], whole["tokens"], atol=0.05 * np.abs(whole["tokens"]).max())

    weights[f"{name}.to_k.weight"][0, 0] = float("nan")
    save_file(weights, path)
    for precision in ("float16", "float32"):
        with pytest.raises(BadData, match="NaN or infinity in float32 too"):
            extractor(folder, precision=precision)(images)


def test_out_of_memory_asks_for_less(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a GPU of little memory: the batch is halved, then the blocks are quartered; every image comes out, the same as before."""
    import torch

    from uss_dagster.backbones.unet.attention_capture import SMALLEST_BLOCK, self_attention_layers

    images = [noise(32, 32, seed) for seed in range(5)]
    want = extractor(models / "sd")(images)
    extract = extractor(models / "sd")
    extract.batch, extract.block_bytes = 4, 8 * SMALLEST_BLOCK
    processors = [layer.get_processor() for layer in self_attention_layers(extract.model.unet)]
    predict = extract._predict

    def small(latent: Any, timestep: int, size: tuple[int, int]) -> Any:
        output = predict(latent, timestep, size)
        if len(latent) > 1 or extract.block_bytes > 2 * SMALLEST_BLOCK:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return output

    monkeypatch.setattr(extract, "_predict", small)
    for got, expected in zip(extract(images), want, strict=True):
        assert all(np.allclose(got[name], expected[name], atol=1e-5) for name in expected)
    assert extract.batch == 1
    assert capsys.readouterr().err.splitlines() == [
        "the memory of cpu is too small: going on with batch 2",
        "the memory of cpu is too small: going on with batch 1",
        "the memory of cpu is too small: going on with blocks of 2048 KiB",
    ]
    assert processors == [layer.get_processor() for layer in self_attention_layers(extract.model.unet)]

    def never(latent: Any, timestep: int, size: tuple[int, int]) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(extract, "_predict", never)
    with pytest.raises(UsageError, match=r"32×32 pixels does not fit the memory of cpu. Set 'image_size' lower"):
        extract(images[:1])


def test_a_batch_is_as_one_by_one(models: Path) -> None:
    """What a GPU does: groups filled up to one shape."""
    images = [noise(32, 32, seed) for seed in range(3)]
    want = extractor(models / "sd")(images)
    extract = extractor(models / "sd")
    extract.batch = 2
    for got, expected in zip(extract(images), want, strict=True):
        assert all(np.allclose(got[name], expected[name], atol=1e-5) for name in expected)


def test_half_size_weights_are_found(models: Path, copied: Any) -> None:
    folder = copied("sd")
    for part in ("unet", "vae"):
        (folder / part / "diffusion_pytorch_model.safetensors").rename(folder / part / "diffusion_pytorch_model.fp16.safetensors")
    image = noise(32, 32)
    assert same(extractor(folder)([image])[0], extractor(models / "sd", variant="fp16")([image])[0])


def test_nothing_is_printed_while_loading(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    extractor(models / "sdxl")
    assert capfd.readouterr() == ("", "")


# -- refusals


def test_pickles_are_refused_unread(models: Path, copied: Any, tmp_path: Path) -> None:
    for suffix in (".ckpt", ".bin", ".pt", ".pth"):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(b"")
        with pytest.raises(UsageError, match="a pickle, which can run code"):
            extractor(path)
    folder = copied("sd")
    for part, stem in (("text_encoder", "model"), ("unet", "diffusion_pytorch_model")):
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.bin")
        with pytest.raises(UsageError, match=rf"only as a pickle \({stem}.bin\).*Put {stem}.safetensors there"):
            extractor(folder)


def _remove(folder: Path, *places: str) -> Path:
    for place in places:
        path = folder / place
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_a_folder_lacks_is_said(models: Path, copied: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not there. Give a folder in diffusers' layout"):
        extractor(tmp_path / "none")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"is a file. Give a folder"):
        extractor(tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"has no text_encoder, and its UNet attends to text.*set conditioning: zeros"):
        extractor(models / "patches")
    with pytest.raises(UsageError, match=r"has no text_encoder_2, .*'tokenizer_2'"):
        extractor(_remove(copied("sdxl"), "text_encoder_2"))
    folder = copied("sd")
    with pytest.raises(UsageError, match="text_encoder but no tokenizer"):
        extractor(_remove(folder, "tokenizer"))
    with pytest.raises(UsageError, match="set extraction: clean"):
        extractor(_remove(folder, "scheduler"), conditioning="zeros")
    assert extractor(folder, conditioning="zeros", extraction="clean")([noise(32, 32)])
    with pytest.raises(BadData, match="takes 4 channels, and without a folder 'vae' images have 3"):
        extractor(_remove(folder, "vae"), conditioning="zeros")
    with pytest.raises(UsageError, match=r"has no diffusion_pytorch_model.safetensors"):
        extractor(_remove(folder, "unet/diffusion_pytorch_model.safetensors"))
    with pytest.raises(UsageError, match=r"has no config.json"):
        extractor(_remove(folder, "unet/config.json"))


def test_damaged_and_foreign_models(copied: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied("pixels")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    kept = weights.pop("conv_in.weight")
    save_file(weights, path)
    with pytest.raises(BadData, match=r"lack 1 of the tensors of its UNet2DModel \(conv_in.weight"):
        extractor(folder)
    save_file(weights | {"conv_in.weight": kept[:, :2].contiguous()}, path)
    with pytest.raises(BadData, match="do not load as a UNet2DModel"):
        extractor(folder)
    path.write_bytes(b"not tensors")
    with pytest.raises(BadData, match="do not load as a UNet2DModel"):
        extractor(folder)
    _edit(folder / "unet" / "config.json", _class_name="SD3Transformer2DModel")
    with pytest.raises(UsageError, match="holds a SD3Transformer2DModel, expected UNet2DConditionModel or UNet2DModel"):
        extractor(folder)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(BadData, match="not readable JSON"):
        extractor(folder)
    folder = copied("sd")
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{")
    with pytest.raises(BadData, match=r"'.*tokenizer' is not a readable CLIP tokenizer"):
        extractor(folder)
    _edit(folder / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(UsageError, match="prediction_type 'flow_prediction', expected epsilon"):
        extractor(folder)
    _edit(folder / "text_encoder" / "config.json", architectures=["T5EncoderModel"])
    _edit(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(UsageError, match="holds a T5EncoderModel"):
        extractor(folder)


def test_class_conditional_models_are_refused(tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    UNet2DModel(sample_size=8, num_class_embeds=3, **SELF).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="conditioned on classes"):
        extractor(tmp_path / "model")


def test_images_that_cannot_be(models: Path) -> None:
    extract = extractor(models / "sd")
    with pytest.raises(BadData, match=r"1×40 pixels is smaller than one latent patch of this model \(2×2 pixels\)"):
        extract([noise(1, 40)])
    with pytest.raises(BadData, match="expected uint8"):
        extract([np.zeros((4, 4), np.uint8)])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"checkpoint": None, "model": "sd_15"}, "Did you mean 'sd15'"),
        ({"facets": ["attentions"]}, "Did you mean 'attention'"),
        ({"facets": ["cls"]}, "has no facet 'cls'"),
        ({"extraction": "double"}, "is 'double'"),
        ({"timestep": 1000}, "timestep is 1000, but the model was trained with 1000: choose 0 to 999"),
        ({"timestep": -1}, "timestep is -1"),
        ({"extraction": "ddim", "schedule_steps": 2000}, "schedule_steps is 2000"),
        ({"n_steps": 50}, "expected fewer than schedule_steps"),
        ({"grid": 0}, "grid is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"weights": []}, "weights is \\[\\], expected 0 or more"),
        ({"weights": [0.0, 0.0]}, "not all of them 0"),
        ({"attention_layers": [7]}, "layer is 7, but this UNet has 7"),
        ({"attention_layers": []}, "attention_layers is \\[\\]"),
        ({"prompt": "a", "conditioning": "zeros"}, "prompt is 'a', expected none"),
        ({"layer": 7}, "layer is 7, but this UNet has 7 self-attention layers: choose -7 to 6"),
    ],
)
def test_refusals(models: Path, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        extractor(models / "sd", **values)([noise(32, 32)])


def test_unknown_device(models: Path) -> None:
    params = diffusion.Params(checkpoint=str(models / "sd"))
    with pytest.raises(UsageError, match="expected auto, cpu"):
        diffusion.load(params, device="gpu")
    with pytest.raises(UsageError, match="CUDA devices"):
        diffusion.load(params, device="cuda:99")


def test_no_network_is_said_in_one_sentence(tmp_path: Path) -> None:
    """An empty cache and a hub that does not answer, in a fresh process; reading the spec imports nothing heavy."""
    program = (
        "import sys\nfrom uss_dagster import registry\nfrom uss_dagster.errors import Unavailable\n"
        "module = registry.load('backbone', 'diffusion')\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)))\n"
        "try:\n    module.load(module.Params(), device='cpu')\nexcept Unavailable as error:\n    print(error)\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120)
    imported, sentence = done.stdout.splitlines()
    assert imported == "[]"
    assert sentence.startswith(
        "The weights of 'sd14' are not in the cache and http://127.0.0.1:9 cannot be reached. Set 'checkpoint' to a folder in"
    )
    assert "CompVis/stable-diffusion-v1-4/model_index.json" in sentence
    assert done.stderr == ""


def test_cached_pipeline_needs_no_network(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A hub cache laid out by hand is read offline, and the commit is said once when no revision is set; a missing part is named."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "models--somebody--tiny"
    snapshot = Path(shutil.copytree(models / "sd", cache / "snapshots" / commit))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    parts = {part: ["library", "Class"] for part in ("unet", "vae", "scheduler", "text_encoder", "tokenizer")}
    (snapshot / "model_index.json").write_text(json.dumps({"_class_name": "P", "safety_checker": [None, None]} | parts))
    (snapshot / "tokenizer" / "tokenizer.json").unlink()  # as the published repositories have it, in four files
    (snapshot / "tokenizer" / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
    (snapshot / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (snapshot / "tokenizer" / "special_tokens_map.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    want = extractor(models / "sd")([noise(32, 32)])[0]
    for revision in (None, commit):
        extract = extractor(models, checkpoint=None, model="hub:somebody/tiny", revision=revision)
        assert same(extract([noise(32, 32)])[0], want)
        assert capsys.readouterr().err.count(commit) == (revision is None)
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(Unavailable, match=r"HF_HUB_OFFLINE is set.*tiny/vae/diffusion_pytorch_model.safetensors lands in the cache"):
        extractor(models, checkpoint=None, model="hub:somebody/tiny")
