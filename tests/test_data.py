"""The shipped checkpoints are what their cards say, and data/build.py is reproducible."""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import workbench as wb

DATA = Path(__file__).parents[1] / "data"
CHECKPOINTS = DATA / "checkpoints"
CARDS = sorted(CHECKPOINTS.glob("*.json"))

each_card = pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)


def _build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("data_build", DATA / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = _build()


def _card(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _tiny(epochs: int = 1) -> Any:
    return replace(build.RECIPES["digits-mlp512"], name="tiny", module=lambda: build.mlp(16), epochs=epochs)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the builder trains; on a busy machine a second thread makes tiny steps many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    assert list(before) == list(after)
    return [name for name in before if not torch.equal(before[name], after[name])]


def test_every_recipe_and_seed_has_a_checkpoint_and_a_card_and_nothing_else_lies_there() -> None:
    stems = {f"{recipe.name}-seed{seed}" for recipe in build.RECIPES.values() for seed in recipe.seeds}
    assert {path.name for path in CHECKPOINTS.iterdir()} == {
        stem + suffix for stem in stems for suffix in (".safetensors", ".json")
    }


@each_card
def test_the_card_names_its_file_by_hash_size_and_seed(path: Path) -> None:
    card = _card(path)
    file = path.with_suffix(".safetensors")
    assert card["file"] == file.name
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["bytes"] == file.stat().st_size
    recipe = build.RECIPES[card["recipe"]["name"]]
    assert card["recipe"] == json.loads(json.dumps(recipe.card()))
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata == {"recipe": recipe.name, "seed": str(card["seed"]), "architecture": recipe.architecture}
    assert file.stem == f"{recipe.name}-seed{card['seed']}"


@each_card
def test_the_scores_on_the_card_are_those_of_the_file(path: Path) -> None:
    card = _card(path)
    recipe = build.RECIPES[card["recipe"]["name"]]
    data = build.digits(recipe.input_shape)
    weights = wb.load(path.with_suffix(".safetensors"))
    assert {weights[name].dtype for name in weights} == {torch.float32}
    module = recipe.module()
    module.load_state_dict(dict(weights))
    for part, inputs, targets in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        score = build.evaluate(module, inputs, targets)
        assert score.accuracy == card[part]["accuracy"]
        assert score.loss == pytest.approx(card[part]["loss"], rel=0, abs=1e-5)
        assert len(targets) == card[part]["samples"]
    assert card["test"]["accuracy"] >= 0.96


@pytest.mark.parametrize("recipe", build.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_no_two_seeds_share_a_tensor(recipe: Any) -> None:
    first, *others = (dict(wb.load(CHECKPOINTS / f"{recipe.name}-seed{seed}.safetensors")) for seed in recipe.seeds)
    for other in others:
        assert _changed(first, other) == list(first)


def test_all_of_data_is_below_20_mb() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 20e6


def test_digits_are_split_as_the_recipe_says() -> None:
    data = build.digits((1, 8, 8))
    assert (data.train_x.shape, data.test_x.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    assert torch.equal(data.test_x.flatten(1), build.digits().test_x)
    assert int((data.test_y.bincount() - 36).abs().max()) <= 1


def test_a_seed_decides_the_bits_and_the_global_generator_is_untouched() -> None:
    before = torch.get_rng_state()
    first, again, other = (build.train(_tiny(), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert _changed(first, again) == []
    assert _changed(first, other) == list(first)


def test_the_caller_s_seed_does_not_matter() -> None:
    weights = []
    for seed in (3, 4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights.append(build.train(_tiny(), 0).state_dict())
    assert _changed(*weights) == []


def test_training_learns() -> None:
    data = build.digits()
    one, four = (build.evaluate(build.train(_tiny(epochs), 0), data.test_x, data.test_y) for epochs in (1, 4))
    assert four.loss < one.loss
    assert four.accuracy > one.accuracy


def test_evaluate_leaves_the_module_as_it_was() -> None:
    module, data = build.mlp(4).train(), build.digits()
    build.evaluate(module, data.test_x, data.test_y)
    assert module.training
    assert module[0].weight.dtype == torch.float32


def test_rebuilding_gives_the_same_files(tmp_path: Path) -> None:
    first, again = (build.write(_tiny(), 0, tmp_path / name) for name in ("first", "again"))
    assert first == again
    for name in ("tiny-seed0.safetensors", "tiny-seed0.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_command_line_writes_what_only_names_where_out_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(build, "RECIPES", {"tiny": _tiny(), "other": replace(_tiny(), name="other")})
    monkeypatch.setattr(sys, "argv", ["build.py", "--only", "tiny", "--out", str(tmp_path)])
    build.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"tiny-seed{seed}.{suffix}" for seed in (0, 1) for suffix in ("json", "safetensors")
    ]
    assert "tiny-seed1.safetensors: test accuracy" in capsys.readouterr().out
    assert threads == [1]
