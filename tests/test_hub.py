"""Hub ids open from a cache laid out as huggingface_hub lays it out; nothing is fetched offline."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import workbench as wb

CODE = """
import sys
import workbench as wb
try:
    weights = wb.load(sys.argv[1])
    print(weights.source, sorted(weights), weights["fc.weight"].tolist())
except wb.CheckpointError as error:
    print(type(error).__name__, error)
"""


def opened(source: str, cache: Path) -> str:
    """What a fresh process says of a hub id, offline, with this cache."""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    command = [sys.executable, "-W", "error", "-c", CODE, source]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def cached(cache: Path, revision: str, value: float, shard_bytes: int = 10**9) -> None:
    home = cache / "models--org--name"
    commit = f"{int(value):040d}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text(commit)
    tensors = {"fc.weight": torch.full((2, 2), value), "fc.bias": torch.zeros(2)}
    wb.save(tensors, home / "snapshots" / commit, shard_bytes=shard_bytes)


@pytest.mark.parametrize("shard_bytes", [10**9, 16])
def test_a_cached_repository_opens_offline(shard_bytes: int, tmp_path: Path) -> None:
    cached(tmp_path, "main", 1.0, shard_bytes)
    expected = "hf://org/name ['fc.bias', 'fc.weight'] [[1.0, 1.0], [1.0, 1.0]]"
    assert opened("hf://org/name", tmp_path) == expected


def test_a_revision_is_that_revision(tmp_path: Path) -> None:
    cached(tmp_path, "main", 1.0)
    cached(tmp_path, "v2", 2.0)
    assert opened("hf://org/name@v2", tmp_path).endswith("[[2.0, 2.0], [2.0, 2.0]]")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://org/other", "CheckpointNotFoundError hf://org/other: it is not in the local cache"),
        ("hf://a/b/c", "CheckpointError hf://a/b/c: expected hf://org/name"),
        ("hf://", "expected hf://org/name"),
    ],
)
def test_what_is_not_there_says_so(source: str, words: str, tmp_path: Path) -> None:
    assert words in opened(source, tmp_path)


# Nestings that training scripts leave


def test_the_moving_average_is_named_and_taken_on_request(tmp_path: Path) -> None:
    tensors, average = {"fc.weight": torch.ones(2, 2)}, {"module.fc.weight": torch.zeros(2, 2)}
    torch.save({"state_dict": tensors, "state_dict_ema": average, "epoch": 3}, tmp_path / "net.pt")
    plain, smooth = wb.load(tmp_path / "net.pt"), wb.load(tmp_path / "net.pt", ema=True)
    assert plain["fc.weight"].sum() == 4 and any("ema=True" in note for note in plain.notes)
    assert smooth["fc.weight"].sum() == 0 and list(smooth) == ["fc.weight"]
    with pytest.raises(wb.CheckpointError, match="ema=True, but it keeps no moving average"):
        wb.load({"state_dict": tensors}, ema=True)
    with pytest.raises(wb.ArgumentError, match="ema=True goes with a checkpoint"):
        wb.load(torch.nn.Linear(2, 2), ema=True)
    wb.save(tensors, tmp_path / "net.safetensors")
    with pytest.raises(wb.CheckpointError, match="ema=True, but only torch files"):
        wb.load(tmp_path / "net.safetensors", ema=True)


def test_lightnings_prefix_goes_and_a_models_own_stays() -> None:
    tensors = {"model.fc.weight": torch.ones(2, 2), "model.fc.bias": torch.ones(2)}
    lightning = wb.load({"pytorch-lightning_version": "2.5", "state_dict": tensors})
    assert list(lightning) == ["fc.weight", "fc.bias"] and lightning.renames["fc.bias"] == "model.fc.bias"
    assert list(wb.load({"state_dict": tensors})) == list(tensors)


@pytest.mark.parametrize(("name", "form"), [("fc.qweight", "GPTQ or AWQ"), ("fc.weight.absmax", "bitsandbytes")])
def test_quantised_storage_is_refused_by_name(name: str, form: str) -> None:
    with pytest.raises(
        wb.CheckpointError, match=rf"\[{name}\]: {form} storage: open the checkpoint that was quantised"
    ):
        wb.load({"other.weight": torch.ones(2, 2), name: torch.ones(2, dtype=torch.int32)})
