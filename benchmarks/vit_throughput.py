"""Images a second: the ``vit`` backbone (tokens, keys, cls) beside timm's plain ``forward_features`` on the same model and images.

    python benchmarks/vit_throughput.py [--model dino_vits16] [--size 480 320] [--images 8] [--batch 8] [--rounds 5] [--device auto]

Weights are random: speed does not depend on them. Both sides start from the same uint8 images and pay for their normalisation; timm's
side ends with tokens on the device, ours with facets in NumPy. Rounds alternate, so a busy machine slows both, and the fastest
round of each counts. The target is a ratio of at least 0.9 at the batch the backbone uses. On a CPU that is one image, for the sake
of equal bytes; another line then shows what timm gains there from ``--batch``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402

from uss_dagster.backbones import vit  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Throughput of the vit backbone beside plain timm.")
    parser.add_argument("--model", default="dino_vits16")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 320), metavar=("HEIGHT", "WIDTH"), help="multiples of the patch")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()

    import torch

    params = vit.Params(
        model=arguments.model, facets=("tokens", "keys", "cls"), checkpoint="random", batch=arguments.batch, precision=arguments.precision
    )
    extract = vit.load(params, arguments.device)
    plain = vit.load(vit.Params(model=arguments.model, facets=("tokens",), checkpoint="random"), arguments.device)
    model, device = plain.model, plain.device  # no hooks
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*arguments.size, 3), dtype=np.uint8) for _ in range(arguments.images)]

    def timm_alone(batch: int) -> None:
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(np.stack(images[start : start + batch])).to(device).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
                model.forward_features((pixels - plain.mean) / plain.std)
        if device.type == "cuda":
            torch.cuda.synchronize()

    sides: dict[str, Callable[[], object]] = {
        "tokens + keys + cls": lambda: extract(images),
        f"timm, batch {extract.batch}": lambda: timm_alone(extract.batch),
        f"timm, batch {arguments.batch}": lambda: timm_alone(arguments.batch),
    }
    best = dict.fromkeys(sides, float("inf"))
    for turn in range(arguments.rounds + 1):
        for name, run in sides.items():
            begun = time.perf_counter()
            run()
            if turn:  # the first round warms up
                best[name] = min(best[name], time.perf_counter() - begun)
    height, width = arguments.size
    print(f"{arguments.model}, {height}×{width}, {arguments.precision}, {device}, {torch.get_num_threads()} threads")
    ours = best["tokens + keys + cls"]
    for name, seconds in best.items():
        print(f"{name:24s}{len(images) / seconds:8.2f} images/s   ours / this {seconds / ours:.2f}")


if __name__ == "__main__":
    main()
