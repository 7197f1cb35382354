"""How this process uses the machine: thread counts, wait policy, device, and what a run cost.

Belongs here: settings that must be made before a heavy library is imported. Does not belong here:
anything about segmentation.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from uss_dagster.errors import UsageError

DEVICE = "USS_DEVICE"
"""Environment variable: the device of this process; the engine sets it."""
DEVICES = "USS_DEVICES"
"""Environment variable: the devices that a stage may use, with commas between them."""


def quiet_environment() -> None:
    """Set, before torch, dvc or great_expectations are imported, what they only read at import time.

    ``OMP_WAIT_POLICY=PASSIVE`` stops OpenMP threads from spinning while another process holds their core: on a
    shared two-core machine a two-thread ViT ran four to seven times faster with it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def peak_memory_mb() -> float:
    """Peak resident memory of this process and its finished children, in MiB."""
    import resource
    import sys

    unit = 1024**2 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "linux":  # there ru_maxrss also counts what the process that started this one held at that moment
        with open("/proc/self/status", encoding="ascii") as status:
            peak = next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), peak)
    return max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / unit


def single_thread() -> None:
    """One compute thread for this process: workers get one core each, and sums come out in one order."""
    import sys

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def worker_setup(parent: int) -> None:
    """One thread a worker process, and an end when its parent dies: a killed stage must leave nothing running."""
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    quiet_environment()
    single_thread()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def torch_device(name: str) -> Any:
    """The torch device of a name: 'auto', 'cpu', 'cuda', 'cuda:1', …; one that is not here is refused.

    'auto' is the device that ``USS_DEVICE`` names, which worker processes are started with, else the first of ``USS_DEVICES``, else the
    first GPU, else the CPU.
    """
    import torch

    if name == "auto":
        name = os.environ.get(DEVICE) or os.environ.get(DEVICES, "").split(",")[0] or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is '{name}', expected auto, cpu, cuda or cuda:<number>.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device is '{name}', but torch sees {torch.cuda.device_count()} CUDA devices here. Use 'auto' or 'cpu'.")
    return device


@contextlib.contextmanager
def signals_noted() -> Iterator[Callable[[], int]]:
    """Inside the block, SIGTERM and Ctrl-C do not end the process: the callable gives the number of the first, 0 where there was none.

    A second one ends the process at once. Outside the main thread, which alone gets signals, nothing changes.
    """
    noted = 0

    def note(number: int, frame: object) -> None:
        nonlocal noted
        noted = number
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
