"""Hub ids open from a cache laid out as huggingface_hub lays it out; nothing is fetched offline."""

import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

import workbench as wb

CODE = """
import os, sys
os.environ.update({"HF_HUB_CACHE": sys.argv[2], "HF_HUB_OFFLINE": "1", "HF_HOME": sys.argv[2]})  # read when imported
import workbench as wb
try:
    weights = wb.load(sys.argv[1])
    print(weights.source, sorted(weights), weights["fc.weight"].tolist())
except wb.CheckpointError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def opened(interpreter: Callable[..., str], tmp_path: Path) -> Callable[[str], str]:
    """What a fresh process says of a hub id, offline, with the test's cache."""
    return lambda source: interpreter(CODE, tmp_path, source, str(tmp_path)).strip()


def cached(cache: Path, revision: str, value: float, shard_bytes: int = 10**9) -> None:
    home = cache / "models--org--name"
    commit = f"{int(value):040d}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text(commit)
    tensors = {"fc.weight": torch.full((2, 2), value), "fc.bias": torch.zeros(2)}
    wb.save(tensors, home / "snapshots" / commit, shard_bytes=shard_bytes)


@pytest.mark.parametrize("shard_bytes", [10**9, 16])
def test_a_cached_repository_opens_offline(shard_bytes: int, tmp_path: Path, opened: Callable[[str], str]) -> None:
    cached(tmp_path, "main", 1.0, shard_bytes)
    expected = "hf://org/name ['fc.bias', 'fc.weight'] [[1.0, 1.0], [1.0, 1.0]]"
    assert opened("hf://org/name") == expected


def test_a_revision_is_that_revision(tmp_path: Path, opened: Callable[[str], str]) -> None:
    cached(tmp_path, "main", 1.0)
    cached(tmp_path, "v2", 2.0)
    assert opened("hf://org/name@v2").endswith("[[2.0, 2.0], [2.0, 2.0]]")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://org/other", "CheckpointNotFoundError hf://org/other: it is not in the local cache"),
        ("hf://a/b/c", "CheckpointError hf://a/b/c: expected hf://org/name"),
        ("hf://", "expected hf://org/name"),
    ],
)
def test_what_is_not_there_says_so(source: str, words: str, opened: Callable[[str], str]) -> None:
    assert words in opened(source)


class Hub:
    """A repository in a folder, in place of the network; it remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[tuple[str, str | None]]()

    def __call__(self, repository: str, name: str, *, revision: str | None, local_files_only: bool) -> str:
        assert repository == "org/name" and not local_files_only
        self.asked.append((name, revision))
        if not (self.folder / name).is_file():
            raise EntryNotFoundError(name)
        return str(self.folder / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    served = Hub(tmp_path / "repository")
    served.folder.mkdir()
    for name in ("config.json", "tokenizer.json", "README.md", "training_args.bin", "modeling.py"):
        (served.folder / name).write_text("{}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", served)
    return served


@pytest.mark.parametrize("revision", [None, "v2"])
def test_only_the_index_and_its_shards_are_fetched(revision: str | None, hub: Hub) -> None:
    wb.save({"a": torch.ones(8), "b": torch.zeros(8)}, hub.folder, shard_bytes=32)
    weights = wb.load(f"hf://org/name@{revision}" if revision else "hf://org/name")
    assert {name: tensor.sum().item() for name, tensor in weights.items()} == {"a": 8, "b": 0}
    shards = sorted(file.name for file in hub.folder.glob("*.safetensors"))
    assert hub.asked == [(name, revision) for name in ("model.safetensors.index.json", *shards)]


def test_shards_are_of_the_commit_of_their_index(hub: Hub) -> None:
    """What is in the cache is not asked for again, and a push between two files mixes nothing."""
    hub.folder = hub.folder.rename(hub.folder.with_name("0123456789" * 4))
    wb.save({"a": torch.ones(8), "b": torch.zeros(8)}, hub.folder, shard_bytes=32)
    wb.load("hf://org/name")
    assert [revision for _, revision in hub.asked] == [None, hub.folder.name, hub.folder.name]


def test_a_single_file_is_all_that_is_fetched_and_safetensors_goes_before_pickles(hub: Hub) -> None:
    wb.save({"a": torch.ones(8)}, hub.folder)
    torch.save({"a": torch.zeros(8)}, hub.folder / "pytorch_model.bin")
    assert wb.load("hf://org/name")["a"].sum() == 8
    assert [name for name, _ in hub.asked] == ["model.safetensors.index.json", "model.safetensors"]
    (hub.folder / "model.safetensors").unlink()
    assert wb.load("hf://org/name")["a"].sum() == 0
    assert hub.asked[-1] == ("pytorch_model.bin", None)


def test_a_repository_without_weights_says_what_was_looked_for(hub: Hub) -> None:
    with pytest.raises(wb.CheckpointNotFoundError, match=r"hf://org/name: it holds none of \('model.safetensors.ind"):
        wb.load("hf://org/name")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "hf://org/name: its model.safetensors.index.json is damaged: Expecting"),
        ("[]", "its model.safetensors.index.json is damaged: list indices"),
        ("{}", "its model.safetensors.index.json is damaged: 'weight_map'"),
        ('{"weight_map": 3}', "its model.safetensors.index.json is damaged"),
    ],
)
def test_a_damaged_index_of_a_repository_is_named(text: str, words: str, hub: Hub) -> None:
    (hub.folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(wb.CheckpointError, match=words):
        wb.load("hf://org/name")


def test_an_index_of_a_repository_leads_nowhere_else(hub: Hub) -> None:
    torch.save({"a": torch.ones(2)}, hub.folder.parent / "outside.bin")
    (hub.folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../outside.bin"}}')
    with pytest.raises(wb.CheckpointError, match=r"outside the checkpoint's folder: refused"):
        wb.load("hf://org/name")


def test_a_hub_out_of_reach_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wb.save({"a": torch.ones(8)}, tmp_path)
    tried: list[tuple[str, bool]] = []

    def cached(repository: str, name: str, *, revision: str | None, local_files_only: bool) -> str:
        tried.append((name, local_files_only))
        if name != wanted:
            raise LocalEntryNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    wanted = "model.safetensors"
    assert wb.load("hf://org/name")["a"].sum() == 8, "what is in the cache opens"
    assert tried == [("model.safetensors.index.json", False), ("model.safetensors", True)]
    wanted = "none"
    with pytest.raises(wb.CheckpointNotFoundError, match="not in the local cache, and the hub cannot be reached"):
        wb.load("hf://org/name")
    assert [offline for _, offline in tried[2:]] == [False, True, True, True]


def test_a_hub_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(wb.CheckpointNotFoundError, match="hf://org/name: the hub does not give it: no route to host$"):
        wb.load("hf://org/name")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(wb.CheckpointError, match=r"hub ids need: pip install 'weight-workbench\[hub\]'"):
        wb.load("hf://org/name")


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
