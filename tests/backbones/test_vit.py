"""ViT facets against timm's own forward pass, on random weights; what is refused; what happens without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.backbones import vit
from uss_dagster.errors import BadData, Unavailable, UsageError

TINY = "timm:vit_tiny_patch16_224"


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def extractor(**values: Any) -> Any:
    values = {"model": TINY, "checkpoint": "random", "facets": vit.SPEC.facets} | values
    return vit.load(registry.build_params(vit.Params, values, "backbone 'vit'"), device="cpu")


def timm_forward(extract: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(final tokens (N, D), last block's qkv (N, 3D)) by timm's own forward on an image already of a fitting size."""
    import torch

    kept: list[torch.Tensor] = []
    hook = extract.model.blocks[-1].attn.qkv.register_forward_hook(lambda module, inputs, output: kept.append(output))
    mean, std = extract.model.pretrained_cfg["mean"], extract.model.pretrained_cfg["std"]
    if extract.model.pretrained_cfg["architecture"] == "vit_small_patch16_224":  # here MoCo-v3, trained on ImageNet's
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = (image.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    with torch.inference_mode():
        tokens = extract.model.forward_features(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    hook.remove()
    return tokens[0].numpy(), kept[0][0].numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (TINY, (480, 320)),
        ("timm:vit_xsmall_patch16_clip_224", (96, 64)),  # CLIP: a norm before the blocks
        ("dinov2_vits14_reg", (70, 98)),  # four registers between the class token and the patches
        ("mocov3_vits16", (64, 64)),  # 12 heads of 32
        pytest.param("mae_vitb16", (64, 80), marks=pytest.mark.slow),
    ],
)
def test_facets_are_those_of_timm(model: str, size: tuple[int, int]) -> None:
    extract = extractor(model=model)
    image = noise(*size)
    facets = extract([image])[0]
    patch, prefix = extract.cell[0], extract.model.num_prefix_tokens
    h, w = size[0] // patch, size[1] // patch
    tokens, qkv = timm_forward(extract, image)
    width = tokens.shape[1]
    assert facets["tokens"].shape == facets["keys"].shape == (h, w, width)
    assert np.allclose(facets["tokens"].reshape(-1, width), tokens[prefix:], atol=1e-5)
    assert np.allclose(facets["cls"], tokens[0], atol=1e-5)
    for place, facet in enumerate(("queries", "keys", "values")):
        assert np.allclose(facets[facet].reshape(-1, width), qkv[prefix:, place * width : (place + 1) * width], atol=1e-5)

    heads = extract.model.blocks[-1].attn.num_heads
    q, k, _ = qkv.reshape(len(qkv), 3, heads, width // heads).astype(np.float64).transpose(1, 2, 0, 3)
    full = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(width // heads)).mean(0)  # (N, N)
    attention = full[prefix:, prefix:] / full[prefix:, prefix:].sum(1, keepdims=True)
    assert np.allclose(facets["attention"].sum(1), 1, atol=1e-5)
    assert np.allclose(facets["attention"], attention, atol=1e-6)
    assert np.allclose(facets["cls_attention"].ravel(), full[0, prefix:] / full[0, prefix:].sum(), atol=1e-6)
    assert np.isclose(facets["cls_attention"].sum(), 1, atol=1e-5)
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in facets.values())


def test_model_without_class_token() -> None:
    extract = extractor(model="timm:vit_base_patch32_siglip_256")
    facets = extract([noise(96, 128)])[0]
    assert np.allclose(facets["cls"], facets["tokens"].mean((0, 1)), atol=1e-5)
    assert np.allclose(facets["cls_attention"].ravel(), facets["attention"].mean(0), atol=1e-6)
    assert np.isclose(facets["cls_attention"].sum(), 1, atol=1e-5)


def test_sizes_go_to_the_nearest_multiple_of_the_patch() -> None:
    extract = extractor(facets=["keys"])
    assert extract.input_size(481, 321) == (480, 320)
    assert extract.input_size(24, 23) == (32, 16)
    assert extract.input_size(3, 40) == (16, 48)
    assert extractor(image_size=224).input_size(300, 400) == (224, 304)
    assert extract([noise(481, 321)])[0]["keys"].shape == (30, 20, 192)


def test_same_bytes_in_any_batch_and_order() -> None:
    images = [noise(64, 48, 0), noise(48, 64, 1), noise(65, 47, 2), noise(64, 48, 3), noise(64, 48, 4)]
    extract = extractor()
    together = extract(images)
    for image, facets in zip(images, together, strict=True):
        alone = extract([image])[0]
        assert all(alone[name].tobytes() == facets[name].tobytes() for name in facets)


def test_random_weights_come_from_the_seed_alone() -> None:
    import torch

    image = noise(32, 32)
    state = torch.random.get_rng_state()
    first = extractor()([image])[0]["keys"]
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left as it was"
    torch.manual_seed(5)
    assert np.array_equal(extractor()([image])[0]["keys"], first)
    assert not np.array_equal(extractor(seed=1)([image])[0]["keys"], first)


def test_bfloat16_stays_close() -> None:
    images = [noise(64, 96, 0), noise(64, 96, 1)]
    for exact, rough in zip(extractor()(images), extractor(precision="bfloat16")(images), strict=True):
        for facet in ("tokens", "keys", "cls"):
            a, b = exact[facet].reshape(-1, 192), rough[facet].reshape(-1, 192)
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            assert cosine.min() > 0.99
            assert rough[facet].dtype == np.float32
        assert np.allclose(rough["attention"].sum(1), 1, atol=1e-5)


def test_layer_counts_as_in_a_list() -> None:
    import torch

    image = noise(32, 48)
    whole, early = extractor(), extractor(layer=3)
    assert len(early.model.blocks) == 4
    assert np.array_equal(early([image])[0]["keys"], extractor(layer=-9)([image])[0]["keys"])
    pixels = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - whole.mean) / whole.std
    tokens = whole.model.forward_intermediates(pixels, indices=[3], norm=True, intermediates_only=True, output_fmt="NLC")[0]
    assert np.allclose(early([image])[0]["tokens"].reshape(6, 192), tokens[0].numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="12 blocks"):
        extractor(layer=12)


def test_fused_attention_stays_on() -> None:
    extract = extractor()
    assert all(block.attn.fused_attn for block in extract.model.blocks)
    assert not extractor(facets=["tokens", "cls"]).model.blocks[-1].attn.qkv._forward_hooks


def test_full_memory_halves_the_batch_and_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    images = [noise(32, 32, seed) for seed in range(5)]
    want = extractor()(images)
    extract = extractor()
    extract.batch = 4  # as on a GPU
    forward, passes = extract.model.forward_features, []

    def small_memory(pixels: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixels))
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(pixels)

    limit = 2
    monkeypatch.setattr(extract.model, "forward_features", small_memory)
    got = extract(images)
    assert passes == [4, 2, 2, 2], "one failure, then batches of two, the last filled up"
    assert len(got) == 5
    assert all(np.allclose(a["keys"], b["keys"], atol=1e-5) for a, b in zip(want, got, strict=True))
    extract(images)
    assert capsys.readouterr().err.count("going on with batch 2") == 1
    limit = 0
    with pytest.raises(UsageError, match="does not fit the memory"):
        extract(images)


def test_local_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = extractor(seed=7)
    state = {name: tensor.contiguous() for name, tensor in source.model.state_dict().items()}
    image = noise(32, 48)
    want = source([image])[0]["keys"]
    # With a head, and under the prefix MoCo-v3's training code gives its encoder.
    import torch

    save_file(state | {"head.weight": torch.zeros(10, 192)}, tmp_path / "plain.safetensors")
    save_file(
        {f"module.base_encoder.{name}": t for name, t in state.items()} | {"module.predictor.0.weight": torch.zeros(2)},
        tmp_path / "moco.safetensors",
    )
    for name in ("plain", "moco"):
        assert np.array_equal(extractor(checkpoint=str(tmp_path / f"{name}.safetensors"))([image])[0]["keys"], want)

    with pytest.raises(BadData, match=r"patch_embed.proj.weight is \(192, 3, 16, 16\), the model's is \(384, 3, 16, 16\)"):
        extractor(model="timm:vit_small_patch16_224", checkpoint=str(tmp_path / "plain.safetensors"))
    with pytest.raises(BadData, match=r"is \(192, 3, 8, 8\)"):
        extractor(model="timm:vit_tiny_patch16_384", checkpoint=_other_patch(state, tmp_path))
    del state["norm.weight"]
    save_file(state | {"blocks.12.norm1.weight": torch.zeros(192)}, tmp_path / "odd.safetensors")
    with pytest.raises(BadData, match=r"norm.weight is missing; blocks.12.norm1.weight is not in the model"):
        extractor(checkpoint=str(tmp_path / "odd.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    with pytest.raises(BadData, match="not a readable"):
        extractor(checkpoint=str(tmp_path / "broken.safetensors"))


def _other_patch(state: dict[str, Any], folder: Path) -> str:
    from safetensors.torch import save_file

    path = folder / "patch8.safetensors"
    save_file(state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"][..., :8, :8].contiguous()}, path)
    return str(path)


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    for suffix in (".pth", ".bin", ".ckpt", ".pt"):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(b"")
        with pytest.raises(UsageError, match="pickles can run code"):
            extractor(checkpoint=str(path))
    with pytest.raises(UsageError, match="does not exist"):
        extractor(checkpoint=str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": "dino_vit16"}, "Did you mean 'dino_vit[bs]16'"),
        ({"model": "timm:vit_tinny_patch16_224"}, "Did you mean 'vit_tiny_patch16_224'"),
        ({"model": "timm:vit_tiny_patch16_224.augreg"}, "Did you mean 'vit_tiny_patch16_224.augreg_in21k'"),
        ({"model": "timm:resnet18"}, "no plain vision transformer"),
        ({"model": "timm:vit_pwee_patch16_reg1_gap_256"}, "no plain vision transformer"),  # one layer for attention and MLP
        ({"model": "timm:vit_relpos_small_patch16_224"}, "relative positions"),
        ({"model": "mocov3_vits16", "checkpoint": None}, "Set 'checkpoint'"),
        ({"facets": ["key"]}, "Did you mean 'keys'"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "float16"}, "Did you mean"),
    ],
)
def test_refusals(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        extractor(**values)


def test_unknown_device() -> None:
    params = vit.Params(model=TINY, checkpoint="random")
    with pytest.raises(UsageError, match="expected auto, cpu"):
        vit.load(params, device="gpu")
    with pytest.raises(UsageError, match="CUDA devices"):
        vit.load(params, device="cuda:99")


def test_fresh_process_without_a_network(tmp_path: Path) -> None:
    """An empty cache and a hub that does not answer: one sentence, soon. On the way there the torchvision guard has let timm in."""
    program = (
        "from uss_dagster.backbones import vit\nfrom uss_dagster.torchvision_import import ensure_torchvision\n"
        "from uss_dagster.errors import Unavailable\n"
        "print(ensure_torchvision(), ensure_torchvision(), sep=', ')\n"
        "try:\n    vit.load(vit.Params(), device='cpu')\nexcept Unavailable as error:\n    print(error)\n"
        "import torchvision.transforms\nprint(ensure_torchvision())\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert time.monotonic() - begun < 20
    before, sentence, after = done.stdout.splitlines()
    assert before in {"native, native", "names only, names only"}
    assert after == "loaded"
    assert "http://127.0.0.1:9 cannot be reached" in sentence
    assert "Set 'checkpoint' to a local .safetensors" in sentence
    assert "HF_HOME" in sentence
    assert done.stderr == ""


def test_offline_by_choice_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set"):
        extractor(checkpoint=None)


def test_cached_weights_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A hub cache laid out by hand is read offline; the commit found there is said when no revision is set."""
    from huggingface_hub import constants
    from safetensors.torch import save_file

    source = extractor(seed=3)
    folder = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    save_file({k: t.contiguous() for k, t in source.model.state_dict().items()}, folder / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    image = noise(32, 32)
    for revision in (None, commit):
        extract = extractor(model=f"{TINY}.augreg_in21k", checkpoint=None, revision=revision)
        assert np.array_equal(extract([image])[0]["keys"], source([image])[0]["keys"])
        assert (commit in capsys.readouterr().err) == (revision is None)


def test_every_friendly_name_is_known_to_timm() -> None:
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm

    for name, source in vit.MODELS.items():
        assert timm.is_model(source.timm.partition(".")[0]), name
        if source.hub:
            config = timm.get_pretrained_cfg(source.timm)
            assert config is not None
            assert (config.hf_hub_id or "").startswith("timm/"), name


def test_reading_the_spec_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom uss_dagster import registry\nregistry.load('backbone', 'vit')\nregistry.load('backbone', 'patches')\n"
        "print(sorted({'torch', 'timm', 'scipy', 'skimage', 'PIL', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
