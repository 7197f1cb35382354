"""Features of a network, from encoded images to stored shards, beside the bare model on batches that lie on the device.

    python benchmarks/gpu_features.py [--model dinov2_vits14_reg] [--side 518] [--images 4096] [--batch 64] [--devices cuda:0,cuda:1] [--loaders 8]

The bare model is timm's ``forward_features`` under the same precision, on one batch that is on the device already: no decoding, no copies,
no files. Ours decodes JPEG files of 640 × 480 from a dataset's shards, resizes them, runs the model, copies tokens and CLS back as float16
and writes safetensors, as the stage ``features`` does. The target is .9 of the bare model's images a second, on each device. Weights are random:
speed does not depend on them. A run on the CPU (``--devices cpu --images 16 --side 224``) shows only that the program works.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
from dataset_preparation import photograph  # noqa: E402

from uss_dagster.artifacts.devices import DEVICES, device_names  # noqa: E402
from uss_dagster.artifacts.images import Images, ImageShards  # noqa: E402
from uss_dagster.artifacts.phases import LOADERS  # noqa: E402
from uss_dagster.artifacts.schemas import IMAGES  # noqa: E402
from uss_dagster.artifacts.shard_runner import ShardRunner  # noqa: E402
from uss_dagster.artifacts.shard_store import ShardStore  # noqa: E402
from uss_dagster.artifacts.staging import Staging  # noqa: E402
from uss_dagster.artifacts.tables import write_table  # noqa: E402
from uss_dagster.backbones import vit  # noqa: E402
from uss_dagster.feature_shards import feature_jobs, write_features  # noqa: E402
from uss_dagster.planning.cells import FeatureSpec, Plugin  # noqa: E402


def write_images(folder: Path, count: int, distinct: int = 64) -> Images:
    """A dataset's images: JPEG files of noise, each in its place with the others' content."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photographs = [photograph(rng, 640, 480) for _ in range(min(count, distinct))]
    shards = ImageShards(folder)
    for number in range(count):
        shards.add(f"{number:08d}", photographs[number % len(photographs)], ".jpg", 480, 640, "train")
    shards.close()
    write_table(folder / "images.parquet", shards.table(), IMAGES)
    return Images(folder)


def bare_rate(params: vit.Params, device: str, side: int, batch: int, rounds: int = 20) -> float:
    """Images a second of the model alone."""
    import torch

    extract = vit.load(params, device)
    model, place = extract.model, extract.device
    pixels = torch.randn(batch, 3, side, side, device=place)

    def run(times: int) -> float:
        started = time.perf_counter()
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=params.precision == "bfloat16"):
            for _ in range(times):
                model.forward_features(pixels)
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter() - started

    run(3)
    return batch * rounds / run(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Features from encoded images to stored shards beside the bare model.")
    parser.add_argument("--model", default="dinov2_vits14_reg")
    parser.add_argument("--side", type=int, default=518)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--shard", type=int, default=256, help="images in a shard")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--devices", default="")
    parser.add_argument("--loaders", default="")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    os.environ.update({name: value for name, value in ((DEVICES, arguments.devices), (LOADERS, arguments.loaders)) if value})
    side = arguments.side
    values = {
        "model": arguments.model,
        "facets": ["tokens", "cls"],
        "checkpoint": "random",
        "batch": arguments.batch,
        "precision": arguments.precision,
        "image_size": [side, side],
    }
    spec = FeatureSpec(encoder=Plugin(family="backbone", name="vit", params=values), weights="", store="float16")
    names = device_names()
    rates = [
        bare_rate(spec.encoder.build(), name, side, 1 if name == "cpu" else arguments.batch, 2 if name == "cpu" else 20) for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / "images", arguments.images)

        def seconds(count: int) -> float:
            shards = Images(images.folder).shards(arguments.shard)[: -(-count // arguments.shard)]
            runner = ShardRunner(Staging(Path(folder), f"features/{count}", None), ShardStore(Path(folder) / "stored"))
            started = time.perf_counter()
            write_features(runner, feature_jobs(shards, lambda number, ids: ""), spec, images, silent=True)
            return time.perf_counter() - started

        first, whole = seconds(arguments.shard), seconds(arguments.images)
    print(f"{arguments.model}, {side}×{side}, {arguments.precision}, devices {', '.join(names)}")
    print(f"bare model            {sum(rates):9.1f} images/s")
    print(
        f"features, {arguments.images} images {arguments.images / whole:9.1f} images/s, {arguments.images / whole / sum(rates):.2f} of it"
    )
    print(f"the first {arguments.shard} images took {first:.1f} s with starting processes and loading the network")
    if arguments.images > arguments.shard and whole > first:
        steady = (arguments.images - arguments.shard) / (whole - first)
        print(f"without that start    {steady:9.1f} images/s, {steady / sum(rates):.2f} of it")


if __name__ == "__main__":
    main()
