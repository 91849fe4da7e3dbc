"""Versions of packages against what the workbench needs."""

import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from workbench.sharing.checks import Check
from workbench.version import __version__

PYTHON = (3, 11)
# as in pyproject.toml, which an installed package need not have (a test compares them)
CORE = {
    "torch": "2.6",
    "numpy": "2.0",
    "jaxtyping": "0.3",
    "safetensors": "0.5",
    "scipy": "1.13",
    "threadpoolctl": "3.5",
    "xxhash": "3.4",
    "pandas": "2.2",
    "graspologic-native": "1.3.1",
    "matplotlib": "3.9",
    "plotly": "6.0",
}
LAB = {
    "jupyterlab": "4.4",
    "ipywidgets": "8.1",
    "anywidget": "0.9.18",
    "itables": "2.5",
    "ipykernel": "6.29",
    "nbconvert": "7.16",
    "latex2mathml": "3.77",
    "scikit-learn": "1.6",
}
HUB = {"huggingface_hub": "0.30"}


def package_checks() -> Iterator[Check]:
    """Python, the workbench, and every package of the core and of the extras `lab` and `hub`."""
    old = sys.version_info[:2] < PYTHON
    advice = "the workbench needs Python 3.11 or newer" if old else ""
    yield Check("python", f"{platform.python_version()} on {platform.system()}", "fail" if old else "ok", advice)
    yield Check("weight-workbench", __version__)
    for name, least in CORE.items():
        yield package(name, least, needed=True)
    for name, least in LAB.items():
        yield package(name, least, extra="lab")
    for name, least in HUB.items():
        found = package(name, least, extra="hub")
        yield found if installed(name) else Check(name, "not installed; only hf:// ids need it")


def package(name: str, least: str, *, needed: bool = False, extra: str = "") -> Check:
    """One package's version, which must be at least `least`."""
    own = installed(name)
    what = f"pip install 'weight-workbench{f'[{extra}]' if extra else ''}'"
    if own is None:
        return Check(name, "not installed", "fail" if needed else "warn", what)
    if release(own) < release(least):
        return Check(name, own, "fail" if needed else "warn", f"{least} or newer is needed: pip install -U {name}")
    return Check(name, own)


def installed(name: str) -> str | None:
    """A package's version; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them: `2.13.0+cpu` is (2, 13)."""
    numbers = re.match(r"[\d.]*", text)
    parts = [int(part) for part in (numbers[0] if numbers else "").split(".") if part]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
