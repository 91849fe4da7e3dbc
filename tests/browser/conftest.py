"""One JupyterLab and one page of it for a run, driven in headless Chromium; a folder and a kernel for each test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from browser.jupyter import Lab, Server, Tabs, browsing, chromium, forked_kernels, jupyterlab, lab_in


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        help_line = "no Chromium: apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
        assert not os.environ.get("WORKBENCH_REQUIRE_BROWSER"), help_line
        pytest.skip(help_line)
    with browsing(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with forked_kernels(tmp_path_factory.mktemp("kernels")) as folder:
        yield folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, kernels: Path) -> Iterator[Server]:
    with jupyterlab(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("root"), kernels) as server:
        yield server


@pytest.fixture(scope="session")
def tabs(browser: Browser, server: Server) -> Iterator[Tabs]:
    tabs = Tabs(browser, server)
    yield tabs
    if tabs.page is not None:
        tabs.page.close()


@pytest.fixture
def lab(tabs: Tabs, request: pytest.FixtureRequest) -> Iterator[Lab]:
    started = lab_in(tabs)

    def note(error: Any) -> None:
        started.problems.append(str(error))

    def hear(message: Any) -> None:
        if message.type == "error" and any(sign in message.text for sign in ("Error evaluating", "Error serializing")):
            note(message.text)

    started.page.on("pageerror", note)
    started.page.on("console", hear)
    failed = request.session.testsfailed
    try:
        yield started
    finally:
        started.page.remove_listener("pageerror", note)
        started.page.remove_listener("console", hear)
        tabs.give_back(clean=request.session.testsfailed == failed)


@pytest.fixture
def fresh_kernel(interpreter: Callable[[str, Path], str]) -> Callable[[str, Path], str]:
    """Runs code in a folder with no names but its own, and gives what it prints."""
    return interpreter
