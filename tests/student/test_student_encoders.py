"""Encoders of timm: maps of any size of image, their own weights, frozen ones, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from student_cases import settings, source

from uss_dagster.artifacts.training_runs import read_run
from uss_dagster.errors import BadData, UsageError
from uss_dagster.student import export
from uss_dagster.student.encoders import load_encoder
from uss_dagster.student.model import WEIGHTS, Student, build, read_config
from uss_dagster.student.settings import StudentSettings
from uss_dagster.student.stored_features import FOLDER
from uss_dagster.student.training import CARD, CHECKPOINT, Trainer, train
from uss_dagster.student.tuning import parameter_groups
from uss_dagster.torchvision_import import ensure_torchvision
from uss_dagster.weights.store import identity

VIT = {"encoder": "vit_tiny_patch16_224", "weights": "random", "tune": "frozen"}


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    return Student.load(folder).net.encoder.get_submodule("model").state_dict()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of stored windows with a frozen ViT."""
    out = tmp_path_factory.mktemp("frozen")
    assert train(source(), source(2), settings(**VIT, views=2, steps=5), out).finished
    return out


def test_a_frozen_encoder_stays_and_what_follows_it_learns(frozen: Path) -> None:
    before, after = build(settings(**VIT)).state_dict(), Student.load(str(frozen)).net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith("encoder.model.")]
    assert {"encoder.pyramid.reduce.0.weight", "encoder.pyramid.stem.0.0.0.weight", "pixel.weight"} <= changed
    assert not (frozen / FOLDER).exists()


def test_a_stopped_run_with_stored_windows_goes_on_to_the_same_bytes(frozen: Path, tmp_path: Path) -> None:
    values = settings(**VIT, views=2, steps=5)
    assert not train(source(), source(2), values, tmp_path, stop=iter([False, False, True]).__next__).finished
    tensors, _ = read_run(tmp_path / CHECKPOINT)
    assert not [name for name in tensors if ".encoder.model." in name]
    assert len(list((tmp_path / FOLDER).rglob("*.safetensors"))) in (6, 8)  # of three batches of two, and perhaps of the next
    assert train(source(), source(2), values, tmp_path).finished
    assert (tmp_path / WEIGHTS).read_bytes() == (frozen / WEIGHTS).read_bytes()


def test_the_maps_of_a_fixed_window_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[tuple[int, ...]] = []
    features = Trainer._features
    monkeypatch.setattr(Trainer, "_features", lambda self, images: sides.append(tuple(images.shape)) or features(self, images))
    train(source(3), None, settings(**VIT, views=2, steps=8), tmp_path)
    assert sides == [(1, 3, 32, 32)] * 3 * 2  # of 16 windows that were learned from


ENCODERS = (
    "swin_tiny_patch4_window7_224",
    "vit_small_patch16_224",
    "dinov2_vits14",
    "convnext_tiny",
    "hiera_tiny_224",
    "resnet18",
    "resnet50",
)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_of_timm_learns_and_is_exported(encoder: str, tmp_path: Path) -> None:
    """With a learned and a validated size, neither of which is that of the model."""
    # Eight prompts a window: some are boxes, and some are corrected.
    values = settings(encoder=encoder, weights="random", input=64, test_input=96, steps=20, rate=5e-4, every=20, clicks=8)
    result = train(source(), source(1), values, tmp_path / "student")
    assert result.finished
    assert result.losses[-1][1] < result.losses[0][1]
    student = Student.load(tmp_path / "student")
    before, after = build(values).state_dict(), student.net.state_dict()
    same = [name for name, value in before.items() if value.dtype == torch.float32 and torch.equal(value, after[name])]
    assert not [name for name in same if "running_" not in name], "every tensor learns, except the statistics of batch norms"
    assert export.export_program(student, tmp_path / "student.pt2") <= 1e-5
    if importlib.util.find_spec("onnx"):
        assert export.export_onnx(student, tmp_path / "student.onnx") <= export.TOLERANCE


def saved(encoder: str, path: Path, seed: int = 5) -> dict[str, torch.Tensor]:
    """Random weights of a model of timm with its head, as timm publishes them."""
    ensure_torchvision()
    import timm

    torch.manual_seed(seed)
    state = timm.create_model(encoder, pretrained=False).state_dict()
    save_file(state, path)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "dinov2_vits14"])
def test_weights_as_timm_publishes_them_are_loaded(encoder: str, tmp_path: Path) -> None:
    """With equal maps at the size of the model."""
    import timm

    state = saved(encoder, tmp_path / "whole.safetensors")
    net = build(settings(encoder=encoder))
    load_encoder(net.encoder, tmp_path / "whole.safetensors")
    model = timm.create_model(encoder, pretrained=False).eval()
    model.load_state_dict(state)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    own = net.eval().encoder
    with torch.no_grad():
        expected = model.forward_intermediates(
            x * own.scale + own.shift, indices=own.indices, norm=own.pyramid is not None, intermediates_only=True
        )
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own.features(x), expected, strict=True))


@pytest.mark.slow
def test_swin_with_another_size_is_what_timm_makes_for_it(tmp_path: Path) -> None:
    import timm

    state = saved("swin_tiny_patch4_window7_224", tmp_path / "whole.safetensors")
    net = build(settings(encoder="swin_tiny_patch4_window7_224")).eval()
    load_encoder(net.encoder, tmp_path / "whole.safetensors")
    model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=256).eval()
    model.load_state_dict(state, strict=False)
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.forward_intermediates(x, indices=net.encoder.indices, intermediates_only=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(net.encoder.features(x), expected, strict=True))


@pytest.mark.slow
def test_weights_are_loaded_and_unfit_ones_refused_in_one_sentence(tmp_path: Path) -> None:
    state = saved("resnet18", tmp_path / "own.safetensors")
    train(source(), None, settings(steps=1, rate=1e-9, encoder="resnet18", weights=str(tmp_path / "own.safetensors")), tmp_path / "out")
    assert torch.allclose(model_of(tmp_path / "out")["conv1.weight"], state["conv1.weight"], atol=1e-5)
    config, _ = read_config(tmp_path / "out")
    assert config["encoder"] == {"weights": "own.safetensors", "identity": identity(tmp_path / "own.safetensors"), "labels": ""}
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(
        BadData, match=r"'.*foreign\.safetensors' does not fit this model: .* Choose the 'encoder' these weights"
    ) as refused:
        train(source(), None, settings(encoder="resnet18", weights=str(tmp_path / "foreign.safetensors")), tmp_path / "none")
    assert "\n" not in str(refused.value)
    with pytest.raises(BadData, match="lack 30 tensors of this encoder"):
        train(source(), None, settings(weights=str(tmp_path / "foreign.safetensors")), tmp_path / "none")
    for wrong, sentence in (
        ("resnot18", "Did you mean"),
        ("qqq", "Use 'conv', or a name"),
        ("gmixer_12_224", "not take images of any size"),
    ):
        with pytest.raises(UsageError, match=sentence) as refused:
            build(settings(encoder=wrong))
        assert len(str(refused.value)) < 250
    with pytest.raises(UsageError, match="not exist"):
        train(source(), None, settings(encoder="resnet18", weights=str(tmp_path / "nowhere.safetensors")), tmp_path / "none")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tune": "half"}, "expected one of all, frozen"),
        ({"tune": "frozen"}, "has no weights of its own"),
        ({"views": 3, "encoder": "resnet18"}, "Set tune to frozen"),
        ({"layer_decay": 0.0}, "layer_decay is 0"),
    ],
)
def test_settings_of_encoders_that_cannot_be_are_refused(values: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        StudentSettings(**values)


@pytest.mark.slow
def test_a_name_of_the_catalogue_stands_for_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config and card say which, and what labels these have seen; the student loads without them."""
    monkeypatch.setenv("USS_WEIGHTS", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    file = tmp_path / "store" / "dinov2_vits14_saliency.safetensors"
    state = saved("vit_small_patch14_dinov2", file)
    train(source(), None, settings(encoder="dinov2_vits14_saliency", tune="frozen", steps=1), tmp_path / "out")
    config, _ = read_config(tmp_path / "out")
    assert config["encoder"] == {"weights": "dinov2_vits14_saliency", "identity": identity(file), "labels": "labels of saliency"}
    card = (tmp_path / "out" / CARD).read_text()
    assert f"dinov2_vits14_saliency (hash of its tensors {identity(file)}), which have seen labels of saliency" in card
    file.unlink()
    assert torch.equal(model_of(tmp_path / "out")["blocks.3.mlp.fc1.weight"], state["blocks.3.mlp.fc1.weight"])


def test_earlier_layers_learn_more_slowly(tmp_path: Path) -> None:
    values = settings(encoder="vit_tiny_patch16_224", weights="random", layer_decay=0.5)
    net = build(values)
    parameters = dict(net.named_parameters())
    groups = parameter_groups(net, parameters, values, True)
    rate = {name: group["lr"] / values.rate for group in groups for name, p in parameters.items() if any(p is q for q in group["params"])}
    assert rate["pixel.weight"] == 1
    assert rate["encoder.pyramid.reduce.0.weight"] == 1
    assert rate["encoder.model.norm.weight"] == pytest.approx(0.1)
    assert rate["encoder.model.blocks.11.mlp.fc1.weight"] == pytest.approx(0.1)
    assert rate["encoder.model.blocks.0.mlp.fc1.weight"] == pytest.approx(0.1 * 0.5**11)
    assert rate["encoder.model.patch_embed.proj.weight"] == pytest.approx(0.1 * 0.5**12)
