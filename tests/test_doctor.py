"""A report that says what is missing and what to do, wherever it runs."""

import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.sharing import front_end, installed, machine

ROOT = Path(__file__).parents[1]
PLACES = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "JPY_SESSION_NAME")


def row(report: wb.Doctor, item: str) -> dict[str, str]:
    (found,) = [vars(check) for check in report.checks if check.item == item]
    return dict(found)


def test_what_is_needed_is_what_pyproject_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for own, said in (
        (installed.CORE, project["dependencies"]),
        (installed.LAB, extras["lab"]),
        (installed.HUB, extras["hub"]),
    ):
        assert own == dict(line.split(">=") for line in said)
    assert project["requires-python"] == ">=" + ".".join(map(str, installed.PYTHON))


def test_the_report_is_readable_and_names_no_machine() -> None:
    report = wb.doctor()
    text = repr(report)
    assert text.splitlines()[0] == report.facts() and text.endswith("next: .frame()")
    assert not re.search(r"/(home|root|tmp|usr|opt|Users|mnt)/", text)
    frame = report.frame()
    assert list(frame.columns) == ["item", "value", "verdict", "advice"] and frame["item"].is_unique
    assert set(frame["verdict"]) <= {"ok", "warn", "fail"}
    for check in report.checks:
        assert (check.verdict == "ok") or check.advice, check
        assert check.item in text and check.value in report._repr_html_().replace("&#x27;", "'"), check


def test_the_worst_verdict_counts() -> None:
    from workbench.sharing.checks import Check

    checks = Check("a", "1"), Check("b", "2", "warn", "do"), Check("c", "3", "fail", "<stop>")
    assert [wb.Doctor(checks[:count]).verdict for count in (0, 1, 2, 3)] == ["ok", "ok", "warn", "fail"]
    assert wb.Doctor(checks).facts() == "Doctor: 1 ok, 1 warn, 1 fail"
    assert "&lt;stop&gt;" in wb.Doctor(checks)._repr_html_()


@pytest.mark.parametrize(
    "name, version, verdict, advice",
    [
        ("torch", "2.5.1+cu121", "fail", "2.6 or newer is needed: pip install -U torch"),
        ("torch", "2.6.0rc1", "ok", ""),
        ("torch", "2.13.0", "ok", ""),  # above 2.6, though its text sorts below
        ("torch", None, "fail", "pip install 'weight-workbench'"),
        ("nbconvert", None, "warn", "pip install 'weight-workbench[lab]'"),
        ("huggingface_hub", None, "ok", ""),
    ],
)
def test_packages(name: str, version: str | None, verdict: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = installed.installed
    monkeypatch.setattr(installed, "installed", lambda one: version if one == name else known(one))
    found = row(wb.doctor(), name)
    assert (found["verdict"], found["advice"]) == (verdict, advice)


def shell(monkeypatch: pytest.MonkeyPatch, *, kernel: bool, names: tuple[str, ...] = ()) -> None:
    """A running IPython, as its module tells of it."""
    running = SimpleNamespace(user_ns=dict.fromkeys(names, ""), **({"kernel": object()} if kernel else {}))
    module: Any = ModuleType("IPython")
    module.get_ipython = lambda: running
    monkeypatch.setitem(sys.modules, "IPython", module)


@pytest.mark.parametrize(
    "kernel, names, variable, place",
    [
        (True, (), "JPY_SESSION_NAME", "JupyterLab or Notebook"),
        (True, ("__vsc_ipynb_file__",), "JPY_SESSION_NAME", "VS Code"),
        (True, (), "COLAB_RELEASE_TAG", "Colab"),
        (True, (), "KAGGLE_KERNEL_RUN_TYPE", "Kaggle"),
        (True, (), None, "a kernel without a page"),
        (False, (), None, "IPython in a terminal"),
        (None, (), None, "a script or a terminal"),
    ],
)
def test_front_ends(
    kernel: bool | None, names: tuple[str, ...], variable: str | None, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    if kernel is not None:
        shell(monkeypatch, kernel=kernel, names=names)
    if variable:
        monkeypatch.setenv(variable, "1")
    report = wb.doctor()
    found = row(report, "front end")
    assert found["value"] == place and found["advice"] == front_end.PLACES[place]
    assert (found["verdict"] == "warn") == (place in front_end.BLIND)
    assert ("no page to show them" in row(report, "widgets")["value"]) == (place in front_end.BLIND)


@pytest.mark.parametrize(
    "versions, verdict, said",
    [
        ({"ipywidgets": "8.1.9", "jupyterlab_widgets": "3.0.17"}, "ok", ""),
        ({"ipywidgets": "8.1.9", "jupyterlab_widgets": "1.1.7"}, "warn", "'jupyterlab_widgets==3.*'"),
        ({"ipywidgets": "7.7.2", "jupyterlab_widgets": "3.0.17"}, "warn", "'jupyterlab_widgets==1.*'"),
        ({"ipywidgets": "8.1.9", "jupyterlab_widgets": None}, "ok", ""),  # JupyterLab runs elsewhere
        ({"anywidget": None}, "warn", "restart the kernel"),
        ({"ipywidgets": None}, "warn", "restart the kernel"),
    ],
)
def test_widgets_and_their_extension_fit(
    versions: dict[str, str | None], verdict: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = front_end.installed
    monkeypatch.setattr(front_end, "installed", lambda one: versions[one] if one in versions else known(one))
    found = row(wb.doctor(), "widgets")
    assert found["verdict"] == verdict and said in found["advice"]


def test_labextensions_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_end, "_jupyter_folders", lambda: iter([tmp_path]))
    monkeypatch.setattr(front_end, "installed", lambda name: "0.11.0" if name == "anywidget" else "8.1.9")
    for item in ("labextension jupyterlab-manager", "labextension anywidget"):
        found = row(wb.doctor(), item)
        assert (found["value"], found["verdict"]) == ("not found", "warn") and "where JupyterLab runs" in found[
            "advice"
        ]
    for name, version in (("anywidget", "0.9.1"), ("@jupyter-widgets/jupyterlab-manager", "5.0.16")):
        (tmp_path / "labextensions" / name).mkdir(parents=True)
        (tmp_path / "labextensions" / name / "package.json").write_text(json.dumps({"version": version}))
    found = row(wb.doctor(), "labextension anywidget")
    assert (found["value"], found["verdict"]) == ("0.9.1, and 0.11.0 in the kernel", "warn")
    assert row(wb.doctor(), "labextension jupyterlab-manager")["verdict"] == "ok"


def test_an_absent_extension_is_no_fault_of_vs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_end, "_jupyter_folders", lambda: iter([tmp_path]))
    monkeypatch.setattr(front_end, "front_end", lambda: "VS Code")
    assert row(wb.doctor(), "labextension anywidget")["verdict"] == "ok"


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "processors", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    found = row(wb.doctor(), "threads")
    assert found["verdict"] == "warn" and "OMP_NUM_THREADS=2" in found["advice"]


def test_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30)
    for name, value in (("is_available", True), ("device_count", 2), ("get_device_properties", card)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert row(wb.doctor(), "device")["value"] == "CUDA 13.0: NVIDIA H100 (80 GiB), NVIDIA H100 (80 GiB)"


def test_a_driver_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/nvidia-smi" if name == "nvidia-smi" else None)
    report = wb.doctor()
    assert row(report, "device")["verdict"] == "warn" and "is built without CUDA" in row(report, "device")["advice"]
    assert row(report, "chromium")["verdict"] == "warn" and "apt-get install" in row(report, "chromium")["advice"]


def test_little_memory_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_available", lambda: 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    report = wb.doctor()
    assert row(report, "memory")["value"] == "1.0 GiB available" and row(report, "memory")["verdict"] == "warn"
    assert row(report, "downloads")["verdict"] == "warn" and "HF_HOME" in row(report, "downloads")["advice"]


def test_a_check_that_breaks_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(machine, "_device", broken)
    report = wb.doctor()
    assert row(report, "machine")["value"] == "not checked: OSError: no such thing"
    assert row(report, "front end")["item"] == "front end", "the other checks go on"


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", asked)
    monkeypatch.setattr("socket.getaddrinfo", asked)
    assert not [check for check in wb.doctor().checks if check.value.startswith("not checked")]
