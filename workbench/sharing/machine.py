"""Device, memory, threads, and the folder of downloads."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from workbench.results import many
from workbench.sharing.checks import Check

GIB = 2**30
LITTLE = 2 * GIB  # of memory: a layer of a large model and its Gram matrix
FULL = 5 * GIB  # of disk: a checkpoint of a few billion parameters


def machine_checks() -> Iterator[Check]:
    """What computations find here."""
    yield _device()
    yield _memory()
    yield _threads()
    yield _downloads()


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
        told = ", ".join(f"{card.name} ({card.total_memory / GIB:.0f} GiB)" for card in cards)
        return Check("device", f"CUDA {torch.version.cuda}: {told}")
    if shutil.which("nvidia-smi"):
        why = "is built without CUDA" if torch.version.cuda is None else "cannot use it"
        advice = f"install a torch that fits the driver (pytorch.org): {torch.__version__} {why}"
        return Check("device", "cpu, though there is an NVIDIA driver", "warn", advice)
    return Check("device", "cpu")


def _memory() -> Check:
    found = _available()
    if found is None:
        return Check("memory", "not known on this system")
    little = found < LITTLE
    advice = "one tensor at a time is held: close other kernels before layers of more than a few hundred MB"
    return Check("memory", f"{found / GIB:.1f} GiB available", "warn" if little else "ok", advice if little else "")


def _available() -> int | None:
    """Bytes that can be had: the system's, or what is left below the limit of a container."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    return min(found, limit - used) if limit is not None and used is not None else found


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def processors() -> int:
    """How many this process may use at once, by its affinity and the quota of its container."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # no Linux
        count = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return count


def _threads() -> Check:
    import torch

    threads, count = torch.get_num_threads(), processors()
    crowded = threads > count
    advice = f"threads wait for each other: set OMP_NUM_THREADS={count} before Python starts" if crowded else ""
    told = f"{threads} of torch on {many(count, 'processor')}"
    return Check("threads", told, "warn" if crowded else "ok", advice)


def _downloads() -> Check:
    """Where hf:// ids are kept; `cache=` is a folder of the caller's choice."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free
    told = f"{tilde(folder)}, {free / GIB:.0f} GiB free"
    if not os.access(there, os.W_OK):
        return Check("downloads", told, "warn", "the folder cannot be written: set HF_HOME to one that can")
    full = free < FULL
    return Check("downloads", told, "warn" if full else "ok", "make room, or set HF_HOME elsewhere" if full else "")


def tilde(path: Path) -> str:
    """A path from the home folder on; of others the last part, since reports are pasted into issues."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else f"…/{path.name}"
