"""Where the code runs, and whether explorers can be shown there."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.sharing.checks import Check
from workbench.sharing.installed import installed, release

WITHOUT = "analyses, figures and .run() of the explorers work here; open a notebook to see the explorers"
PLACES = {
    "JupyterLab or Notebook": "",
    "VS Code": "if explorers stay blank, set jupyter.widgetScriptSources to jsdelivr.com and unpkg.com",
    "Colab": "run once: from google.colab import output; output.enable_custom_widget_manager()",
    "Kaggle": "",
    "a kernel without a page": "a headless run (nbclient, papermill) or a console: explorers show their text",
    "IPython in a terminal": WITHOUT,
    "a script or a terminal": WITHOUT,
}
BLIND = {"a kernel without a page", "IPython in a terminal", "a script or a terminal"}


def front_end() -> str:
    """Where the code runs, one of `PLACES`, as far as the kernel can know."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "Colab"
    shell = _shell()
    if shell is None:
        return "a script or a terminal"
    if not hasattr(shell, "kernel"):
        return "IPython in a terminal"
    if "__vsc_ipynb_file__" in shell.user_ns:
        return "VS Code"
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "Kaggle"
    return "JupyterLab or Notebook" if "JPY_SESSION_NAME" in os.environ else "a kernel without a page"


def _shell() -> Any:
    """The running IPython, if there is one; it is not imported for this."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def front_end_checks() -> Iterator[Check]:
    """Front end, widgets, their extensions of JupyterLab, and the browser of the tests."""
    place = front_end()
    yield Check("front end", place, "warn" if place in BLIND else "ok", PLACES[place])
    yield _widgets(place)
    if installed("jupyterlab"):
        yield _extension("@jupyter-widgets/jupyterlab-manager", "jupyterlab_widgets", place)
        yield _extension("anywidget", "anywidget", place)
    if installed("playwright"):
        chromium = any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
        advice = "" if chromium else "apt-get install chromium; without it the browser tests are skipped"
        yield Check("chromium", "found" if chromium else "not found", "ok" if chromium else "warn", advice)


def _widgets(place: str) -> Check:
    """Whether the kernel's packages for widgets fit each other."""
    own, lab = installed("ipywidgets"), installed("jupyterlab_widgets")
    if own is None or installed("anywidget") is None:
        return Check("widgets", "no explorers", "warn", "pip install 'weight-workbench[lab]', and restart the kernel")
    expected = {7: 1, 8: 3}.get(release(own)[0])
    if lab is not None and expected is not None and release(lab)[0] != expected:
        advice = f"pip install -U ipywidgets 'jupyterlab_widgets=={expected}.*', restart JupyterLab, reload its page"
        return Check("widgets", f"ipywidgets {own} with jupyterlab_widgets {lab}", "warn", advice)
    told = f"ipywidgets {own}" + (f" with jupyterlab_widgets {lab}" if lab else "")
    return Check("widgets", told if place not in BLIND else f"{told}; no page to show them")


def _extension(name: str, package: str, place: str) -> Check:
    """Whether JupyterLab would find the JavaScript of a package, in this environment."""
    item = f"labextension {name.rpartition('/')[2]}"
    files = [folder / "labextensions" / name / "package.json" for folder in _jupyter_folders()]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        elsewhere = place in ("VS Code", "Colab", "Kaggle")
        advice = f"pip install -U --force-reinstall {package} where JupyterLab runs, restart it, reload its page"
        return Check(item, "not found", "ok" if elsewhere else "warn", "" if elsewhere else advice)
    found, own = str(json.loads(file.read_text(encoding="utf-8")).get("version", "")), installed(package)
    if package == "anywidget" and own is not None and found != own:
        advice = f"pip install -U --force-reinstall {package}, restart JupyterLab, reload its page"
        return Check(item, f"{found}, and {own} in the kernel", "warn", advice)
    return Check(item, found)


def _jupyter_folders() -> Iterator[Path]:
    """Where JupyterLab looks for extensions, nearest first."""
    yield from (Path(one) for one in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if one)
    yield Path(sys.prefix, "share", "jupyter")
    yield Path(os.environ.get("JUPYTER_DATA_DIR", "~/.local/share/jupyter")).expanduser()
    yield from (Path("/usr/local/share/jupyter"), Path("/usr/share/jupyter"))
