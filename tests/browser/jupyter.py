"""JupyterLab, its kernels and a headless Chromium that looks at it, as tests and benchmarks start them."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
SHOTS = Path(os.environ.get("WORKBENCH_SCREENSHOTS") or Path(__file__).with_name("screenshots"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
VIEWPORT: Any = {"width": 1500, "height": 1250}
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
}
READY = """({ path, busy }) => {
  const { shell } = window.jupyterapp;
  const notebook = Array.from(shell.widgets('main')).find(widget => widget.context?.path === path);
  if (notebook && shell.currentWidget !== notebook) shell.activateById(notebook.id);  // the launcher may come late
  if (!notebook || shell.currentWidget !== notebook) return false;
  const kernel = notebook.sessionContext.session?.kernel;
  const ready = busy || notebook.sessionContext.isReady && kernel?.status === 'idle';
  return !!(ready && kernel?.connectionStatus === 'connected');
}"""
OPEN = "path => window.jupyterapp.commands.execute('docmanager:open', { path, factory: 'Notebook' }).then(() => null)"
CLOSE = """() => {
  const { shell, serviceManager } = window.jupyterapp;
  for (const widget of Array.from(shell.widgets('main'))) {
    if (widget.id.startsWith('launcher')) continue;  // without it JupyterLab makes one, when it likes
    const session = widget.sessionContext?.session?.id;
    if (widget.context) widget.context.model.dirty = false;  // nobody asks whether to save
    widget.close();
    if (session) serviceManager.sessions.shutdown(session);  // the next test does not wait for it
  }
}"""
LIGHT = "() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' })"
expect.set_options(timeout=20_000)  # machines that test are busy


@dataclass(frozen=True)
class Server:
    """A running JupyterLab.

    Attributes:
        address: of its page.
        root: the folder that it shows.
    """

    address: str
    root: Path


@dataclass
class Lab:
    """A folder of a running server, and a page on it."""

    page: Page
    folder: Path
    server: Server
    problems: list[str] = field(default_factory=list)

    def write(self, notebook: str, *codes: str) -> None:
        """Makes a notebook of code cells; what begins with `# ` is a heading."""
        cells = [
            nbformat.v4.new_markdown_cell(code) if code.startswith("# ") else nbformat.v4.new_code_cell(code)
            for code in codes
        ]
        made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
        nbformat.write(made, self.folder / notebook)

    def open(self, notebook: str, *, busy: bool = False) -> None:
        """Opens a notebook and waits until its kernel answers, or is there if it is busy."""
        path = f"{self.folder.relative_to(self.server.root)}/{notebook}"
        self.page.evaluate(OPEN, path)
        self.page.wait_for_function(READY, arg={"path": path, "busy": busy})

    def run_all(self, seconds: float = 120) -> None:
        """Runs all cells and waits for the last one; a cell that fails fails the test."""
        self.page.evaluate("""() => {
          window.finished = null;
          window.jupyterapp.commands.execute('notebook:run-all-cells').then(done => { window.finished = { done }; });
        }""")  # the promise is not awaited: it would block the page
        self.page.wait_for_function("() => window.finished !== null", timeout=seconds * 1000)
        errors = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
        assert not errors.count(), errors.all_text_contents()
        assert self.page.evaluate("() => window.finished.done"), "a cell failed"

    def shot(self, name: str) -> None:
        """Keeps a screenshot to look at."""
        keep(self.page, name)


def keep(page: Page, name: str) -> None:
    """Keeps a screenshot of a page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def chromium() -> str | None:
    """The path of a Chromium, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def browsing(path: str) -> Iterator[Browser]:
    """A headless browser.

    Args:
        path: of its program.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def forked_kernels(home: Path) -> Iterator[Path]:
    """A folder for JUPYTER_PATH, where "python3" is a fork of a process that has imported torch.

    Args:
        home: an empty folder.
    """
    forks = str(Path(__file__).with_name("forked_kernels.py"))
    (home / "kernels" / "python3").mkdir(parents=True)
    started = [sys.executable, "-S", forks, "start", f"{home}/door", "{connection_file}"]
    told = {"argv": started, "display_name": KERNEL["display_name"], "language": "python"}
    (home / "kernels" / "python3" / "kernel.json").write_text(json.dumps(told))
    serving = subprocess.Popen([sys.executable, forks, "serve", f"{home}/door"], env=os.environ | ONE_THREAD, cwd=ROOT)
    try:
        yield home
    finally:
        serving.terminate()
        serving.wait(20)


@contextmanager
def jupyterlab(home: Path, root: Path, kernels: Path) -> Iterator[Server]:
    """A JupyterLab with settings of its own.

    Args:
        home: an empty folder for them.
        root: the folder that it shows.
        kernels: as `forked_kernels` gives them.
    """
    token = secrets.token_hex(16)
    for name, value in SETTINGS.items():
        settings = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(value))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PATH": str(kernels),
        **ONE_THREAD,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with (home / "lab.log").open("w") as journal:
        running = subprocess.Popen(command, env=environment, stdout=journal, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", running, home / "lab.log")
            yield Server(f"http://127.0.0.1:{port}/lab?reset&token={token}", root)
        finally:
            running.terminate()
            running.wait(20)


class Tabs:
    """The page that tests share as long as they pass; loading JupyterLab takes longer than most of them."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.browser, self.server = browser, server
        self.page: Page | None = None

    def take(self) -> Page:
        """The page, without anything open."""
        if self.page is None:
            self.page = self.browser.new_page()
            self.page.set_default_timeout(30_000)
            self.page.goto(self.server.address)
            self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget")  # the launcher
            self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")  # folders of other tests
        self.page.set_viewport_size(VIEWPORT)
        self.page.evaluate(LIGHT)  # a test may have left it dark
        return self.page

    def give_back(self, *, clean: bool) -> None:
        """Closes what a test opened and ends its kernels; after a failure the page as well."""
        assert self.page is not None
        page, self.page = self.page, None  # a page that does not even close what is open is not used again
        try:
            page.evaluate(CLOSE)
            self.page = page if clean else None
        finally:
            if self.page is None:
                page.close()


def lab_in(tabs: Tabs) -> Lab:
    """A folder of its own on the page, with the notebooks and the data of this repository."""
    folder = Path(tempfile.mkdtemp(dir=tabs.server.root))
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (folder / "data").symlink_to(ROOT / "data")
    return Lab(tabs.take(), folder, tabs.server)


def _wait_for(address: str, server: subprocess.Popen[Any], journal: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, journal.read_text()
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer within {seconds} s:\n{journal.read_text()}")
