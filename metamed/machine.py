"""The machine that a run was made on, and what it took there: time, memory, energy."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torchvision", "numpy", "scikit-learn")
_RAPL = Path("/sys/class/powercap")


class Meter:
    """What a run takes from here on, on a torch device: time, peak memory and, where the driver tells it, energy.

    Energy is that of the whole processor package or GPU, other work on it included.
    """

    def __init__(self, device):
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        self._forget_peak()
        self._start, self._joules = self._seconds(), self._energy()

    @property
    def seconds(self) -> float:
        """Compute so far: core-seconds on a CPU, whatever else the machine is doing; wall seconds on a GPU."""
        return self._seconds() - self._start

    def read(self) -> dict[str, str]:
        """Peak memory of the process (and on the GPU) in MiB, energy in joules; what cannot be told is absent."""
        found = {"peak_memory_mb": f"{peak / 2**20:.0f}"} if (peak := _peak_memory()) else {}
        if self.device.type == "cuda":
            import torch

            found["peak_gpu_memory_mb"] = f"{torch.cuda.max_memory_allocated(self.device) / 2**20:.0f}"
        now = self._energy()
        spent = sum(max(joules - self._joules[name], 0.0) for name, joules in now.items() if name in self._joules)
        return found | ({"energy_j": f"{spent:.1f}", "energy_of": " ".join(now)} if spent > 0 else {})

    def _seconds(self) -> float:
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def _energy(self) -> dict[str, float]:
        return dict(_gpu_joules(self.device) if self.device.type == "cuda" else _package_joules())

    @staticmethod
    def _forget_peak() -> None:
        with suppress(OSError):  # Linux: the peak of this run, not of the process's whole life
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int:
    """Bytes of resident memory at their highest, since the kernel was last told to forget; 0 if unknown."""
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return _peak_of_the_process()


def _peak_of_the_process() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def _package_joules(folder: Path = _RAPL) -> Iterator[tuple[str, float]]:
    """Energy counters of processor packages (RAPL), where the kernel lets this user read them."""
    for path in sorted(folder.glob("intel-rapl:*/energy_uj")):
        name = path.parent.name
        if name.count(":") == 1:  # a whole package; its parts are counted in it
            try:
                yield name, int(path.read_text()) / 1e6
            except (OSError, ValueError):
                continue


def _gpu_joules(device) -> Iterator[tuple[str, float]]:
    """Energy counter of a GPU, from NVIDIA's management library as the driver brings it."""
    import torch

    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    if nvml.nvmlInit_v2() == 0:  # 0 is success, of every call
        found = nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)) == 0
        if found and nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) == 0:
            yield "gpu", millijoules.value / 1e3
        nvml.nvmlShutdown()


def environment(device) -> dict[str, str]:
    """Device, hardware, threads and versions, as they are kept with a run."""
    import torch

    import metamed

    cuda = device.type == "cuda"
    found = {
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if cuda else _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "metamed": metamed.__version__,
    }
    return found | _versions() | ({"cuda": str(torch.version.cuda)} if cuda else {})


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _processor() -> str:
    """The processor's name as its maker gave it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
