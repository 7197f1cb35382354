"""Cost of reading self-attention off a UNet of Stable Diffusion 1.5's size: a plain forward pass, our capture, and a naive one.

    python benchmarks/attention_capture.py [--latent 64] [--grid 32] [--rounds 2] [--precision float32] [--modes plain ours naive]

Weights are random (860 million: cost does not depend on them), the latent is 4×64×64, batch 1, on the CPU; all 16 self-attention layers are
captured. *ours* ends with the aggregated n×n attention on the grid, tokens and keys. *naive* is the processor a user would write first:
it computes every head's whole map, uses it for the output, and keeps the mean over heads, layer by layer; it has neither tokens nor
aggregation to pay for. Every mode runs in a process of its own, whose peak memory is its own, and there its rounds alternate with plain
passes (which need less memory), so that a busy machine slows both; the fastest round of each counts. CPU seconds are those of all threads.
Targets: at most 1.3 times the memory and 1.6 times the time of a plain pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from uss_dagster.runtime import peak_memory_mb, quiet_environment

quiet_environment()

MODES = ("plain", "ours", "naive")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of capturing self-attention.")
    parser.add_argument("--latent", type=int, default=64, help="side of the latent, a multiple of 8")
    parser.add_argument("--grid", type=int, default=32, help="side of the grid: the latent's side halved some times")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--one", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
        return

    options = [f"--{name}={getattr(arguments, name)}" for name in ("latent", "grid", "rounds", "precision")]
    found: dict[str, dict[str, float]] = {}
    for mode in arguments.modes:
        done = subprocess.run([sys.executable, __file__, *options, f"--one={mode}"], stdout=subprocess.PIPE, text=True, check=True)
        found[mode] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"latent {arguments.latent}×{arguments.latent}, grid {arguments.grid}, {arguments.precision}, {found[arguments.modes[0]]['threads']} threads"
    )
    base = found.get("plain")
    for mode, cost in found.items():
        memory = f", memory {cost['mb'] / base['mb']:.2f}×" if base else ""
        print(
            f"{mode:6s}{cost['seconds']:7.2f} s, {cost['cpu']:7.2f} CPU s, {cost['mb']:6.0f} MiB at the peak ({cost['loaded_mb']:.0f} once built)   "
            f"beside plain: time {cost['seconds'] / cost['plain_seconds']:.2f}×, CPU time {cost['cpu'] / cost['plain_cpu']:.2f}×{memory}"
        )


def measure(mode: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of the fastest pass and of the fastest plain one, peak memory, and memory before the first pass."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import torch

    unet = build(getattr(torch, arguments.precision))
    loaded = peak_memory_mb()
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, arguments.latent, arguments.latent, generator=generator).to(unet.dtype)
    text = torch.randn(1, 77, 768, generator=generator).to(unet.dtype)

    def forward() -> Any:
        return unet(latent, 100, encoder_hidden_states=text).sample

    run = {"plain": forward, "ours": lambda: ours(unet, forward, arguments), "naive": lambda: naive(unet, forward)}[mode]
    best = dict.fromkeys(("plain_seconds", "plain_cpu", "seconds", "cpu"), float("inf"))
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for prefix, once in (("plain_", forward), ("", run)):
                begun, begun_cpu = time.perf_counter(), time.process_time()
                once()
                cost = {f"{prefix}seconds": time.perf_counter() - begun, f"{prefix}cpu": time.process_time() - begun_cpu}
                best |= {name: min(best[name], value) for name, value in cost.items()}
    return best | {"mb": peak_memory_mb(), "loaded_mb": loaded, "threads": torch.get_num_threads()}


def build(dtype: Any) -> Any:
    """Stable Diffusion 1.5's UNet with small random weights, without the slow initialisation of its layers."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    torch.nn.Module.to(unet, dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in unet.parameters():
        parameter.requires_grad_(False).uniform_(-0.03, 0.03, generator=generator)
    return unet.eval()


def ours(unet: Any, forward: Any, arguments: argparse.Namespace) -> Any:
    from uss_dagster.backbones.unet.attention_capture import Recorder

    side = arguments.latent
    recorder = Recorder(unet, (side, side), (arguments.grid, arguments.grid))
    with recorder.recording():
        forward()
    return recorder.attention("proportional"), recorder.of_layer("outputs"), recorder.of_layer("keys")


def naive(unet: Any, forward: Any) -> Any:
    kept: list[Any] = []

    def processor(attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, attention_mask: Any = None, temb: Any = None) -> Any:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)))
        maps = attn.get_attention_scores(q, k, attention_mask)
        if encoder_hidden_states is None:
            kept.append(maps.mean(0))
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(maps @ v)))

    before = unet.attn_processors
    unet.set_attn_processor(processor)
    forward()
    unet.set_attn_processor(before)
    return kept


if __name__ == "__main__":
    main()
