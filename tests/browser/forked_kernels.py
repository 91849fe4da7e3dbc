"""Kernels that are forks of one process, which imported once what takes seconds.

A kernel as JupyterLab starts it spends more time on `import torch` than most browser tests on what they ask. What looks
around when it is imported whether a page is there (ipywidgets, plotly, matplotlib, the explorers) each kernel imports
itself, and the notebooks' own test starts kernels that import everything.

    python forked_kernels.py serve ADDRESS              answers at a socket
    python forked_kernels.py start ADDRESS CONNECTION   is a kernel for who starts it: its signals, its end
"""

import importlib
import json
import os
import signal
import socket
import sys
import threading

BEFOREHAND = (
    "torch",
    "workbench",
    "nbformat",
    "pandas",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.datasets",
    "ipykernel.kernelapp",
)


def serve(address: str) -> None:
    """Forks a kernel for everyone who asks, until it is terminated."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()  # who asks meanwhile waits
        sys.path.pop(0)  # the folder of this file is no part of a kernel's path
        for module in BEFOREHAND:
            importlib.import_module(module)
        assert threading.active_count() == 1, "a fork has no other thread than the one that forks"
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no one waits for a kernel
        while True:
            line, _ = door.accept()
            with line, line.makefile() as asked:
                folder, connection, environment = json.loads(asked.readline())
                if not os.fork():
                    door.close()
                    _be_kernel(line, folder, connection, environment)


def _be_kernel(line: socket.socket, folder: str, connection: str, environment: dict[str, str]) -> None:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        line.sendall(f"{os.getpid()}\n".encode())
        threading.Thread(target=lambda: line.recv(1) or os._exit(0), daemon=True).start()  # with who started it
        from ipykernel.kernelapp import IPKernelApp

        kernel = IPKernelApp.instance()
        kernel.initialize(["-f", connection, f"--IPKernelApp.parent_handle={os.getppid()}"])
        kernel.start()
    finally:
        os._exit(0)


def start(address: str, connection: str) -> None:
    """Stands for a kernel: hands on the signals that it gets, and ends when the kernel ends."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        line.sendall(json.dumps([os.getcwd(), connection, dict(os.environ)]).encode() + b"\n")  # noqa: PTH109
        kernel = int(line.makefile().readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(kernel, number))
        line.recv(1)


if __name__ == "__main__":
    {"serve": serve, "start": start}[sys.argv[1]](*sys.argv[2:])
