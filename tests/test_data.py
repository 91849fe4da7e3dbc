"""The shipped checkpoints are what their cards say, and data/build.py is reproducible."""

import hashlib
import importlib.util
import json
import math
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

COUNTER = "num_batches_tracked"  # of a batch norm, int64, and the same for every seed

each_card = pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)


def _build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("data_build", DATA / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(DATA))  # as `python data/build.py` has it, for architectures.py beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DATA))
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
    data = recipe.split(recipe.input_shape)
    weights = wb.load(path.with_suffix(".safetensors"))
    assert {weights[name].dtype for name in weights if not name.endswith(COUNTER)} == {torch.float32}
    module = recipe.module()
    module.load_state_dict(dict(weights))
    for part, inputs, targets in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        score = build.evaluate(module, inputs, targets)
        assert score.accuracy == card[part]["accuracy"]
        assert score.loss == pytest.approx(card[part]["loss"], rel=0, abs=1e-5)
        assert len(targets) == card[part]["samples"]
    assert card["test"]["accuracy"] >= recipe.least


@pytest.mark.parametrize("recipe", build.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_no_two_seeds_share_a_tensor(recipe: Any) -> None:
    first, *others = (dict(wb.load(CHECKPOINTS / f"{recipe.name}-seed{seed}.safetensors")) for seed in recipe.seeds)
    for other in others:
        assert _changed(first, other) == [name for name in first if not name.endswith(COUNTER)]


@pytest.mark.parametrize("seed", (0, 1))
def test_batch_norm_keeps_the_statistics_of_its_training(seed: int) -> None:
    recipe = build.RECIPES["digits-resnet48"]
    data = recipe.split(recipe.input_shape)
    module = recipe.module().eval()
    module.load_state_dict(dict(wb.load(CHECKPOINTS / f"{recipe.name}-seed{seed}.safetensors")))
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    steps = recipe.epochs * math.ceil(len(data.train_y) / recipe.batch)
    assert [int(norm.num_batches_tracked) for norm in norms] == [steps] * 6
    with torch.no_grad():
        maps = module.conv(data.train_x)
    deviation, mean = torch.std_mean(maps, (0, 2, 3))
    # an average over about ten batches, a pixel of each image counted as one draw: six standard errors at most
    assert ((module.bn.running_mean - mean).abs() < 6 * deviation / math.sqrt(10 * recipe.batch)).all()
    kept = build.evaluate(module, data.test_x, data.test_y)
    for norm in norms:
        norm.reset_running_stats()
    assert build.evaluate(module, data.test_x, data.test_y).accuracy < kept.accuracy - 0.2


@pytest.mark.parametrize("recipe", build.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_network_reads_each_image_by_itself(recipe: Any) -> None:
    module, split = recipe.module().eval().double(), recipe.split(recipe.input_shape)
    samples = split.test_x[:3].double() if split.test_x.is_floating_point() else split.test_x[:3]
    with torch.no_grad():
        together, alone = module(samples), torch.cat([module(sample[None]) for sample in samples])
    assert len(together) == 3 and together.shape[1] >= int(split.test_y.max()) + 1
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_the_corruption_family_is_as_good_as_it_has_to_be() -> None:
    """The gate of the experiment: clean at least 95 %, robust networks at least 88 % on the mean of the corruptions."""
    for stem, seeds in (("digits-corruptions", (0, 1, 2)), ("digits-corruptions-bn", (0,))):
        for seed in seeds:
            found = [
                _card(CHECKPOINTS / f"{stem}-{name}-seed{seed}.json")["test"]["accuracy"]
                for name in ("clean", *build.CORRUPTIONS)
            ]
            assert found[0] >= 0.95 and sum(found[1:]) / len(found[1:]) >= 0.88


def test_the_family_is_split_in_three_and_its_test_images_are_the_same() -> None:
    first, clean = build.ancestral(), build.corrupted(None)
    assert [len(part.train_y) for part in (first, clean)] == [360, 718] and len(clean.test_y) == 719
    assert torch.equal(first.test_x, clean.test_x)
    images = torch.cat([first.train_x, clean.train_x, clean.test_x]).flatten(1)
    assert torch.equal(images.sort(0).values, torch.cat(build.digits()[::2]).sort(0).values)


@pytest.mark.parametrize("name", build.CORRUPTIONS)
def test_a_corruption_depends_on_its_generator_alone_and_stays_in_range(name: str) -> None:
    images, change = build.corrupted(None).test_x[:200], build.CORRUPTIONS[name]
    before, state = images.clone(), torch.get_rng_state()
    first, again, other = (change(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, before)
    assert torch.equal(first, again) and first.shape == images.shape
    assert torch.equal(first, other) == (name not in ("gauss_noise", "shot", "speckle"))
    assert float(first.min()) >= 0 and float(first.max()) <= 1 and float((first - images).abs().mean()) > 0.03


def test_corruptions_by_hand() -> None:
    """A bright pixel is spread with its sum kept, noise has the spread that is said, four turns of 45° are half one."""
    random, point = torch.Generator().manual_seed(0), torch.zeros(1, 1, 8, 8)
    point[0, 0, 4, 4] = 0.5
    for name in ("blur", "defocus"):
        assert float(build.CORRUPTIONS[name](point, random).sum()) == pytest.approx(0.5, rel=1e-5)
    assert int((build.CORRUPTIONS["defocus"](point, random) > 0).sum()) == 9
    assert build.CORRUPTIONS["bright"](point, random)[0, 0, 4, 3:5].tolist() == pytest.approx([0.4, 0.9])
    assert build.CORRUPTIONS["contrast"](point, random)[0, 0, 4, 3:5].tolist() == pytest.approx([0.35, 0.5])
    grey = torch.full((1000, 1, 8, 8), 0.5)
    for name, spread in (("shot", (0.5 / 3) ** 0.5), ("speckle", 0.5)):
        found = build.CORRUPTIONS[name](grey, random)
        assert 0.7 * spread < float(found.std()) < spread and float(found.mean()) == pytest.approx(0.5, abs=0.05)
    smooth = torch.exp(-((torch.arange(8.0) - 3.5) ** 2 + (torch.arange(8.0)[:, None] - 2.5) ** 2) / 8)[None, None]
    turned = smooth
    for _ in range(4):
        turned = build.CORRUPTIONS["rotate45"](turned, random)
    middle = (..., slice(2, 6), slice(2, 6))
    assert float((turned - smooth.flip(2, 3))[middle].abs().max()) < 0.15 < float((smooth - turned)[middle].abs().max())


def test_sums_are_split_as_the_recipe_says() -> None:
    split = build.pairs()
    pairs = torch.cat([split.train_x, split.test_x])
    assert [len(split.train_y), len(split.test_y)] == [3830, 8939]
    assert len(pairs.unique(dim=0)) == 113**2 and (pairs[:, 2] == 113).all()
    assert torch.equal(pairs[:, :2].sum(1) % 113, torch.cat([split.train_y, split.test_y]))


def test_sums_are_trained_on_what_the_module_gives_and_learned_by_heart_first() -> None:
    """The training script computes keys and values once a token; thirty steps teach the pairs and no addition."""
    training, split = build.modular_addition, build.pairs()
    first, last = training.train(0, steps=1), training.train(0, steps=30)
    exact = last.double()
    torch.testing.assert_close(training.logits(exact, split.test_x), exact(split.test_x), rtol=0, atol=1e-12)
    losses = [build.evaluate(module, split.train_x, split.train_y).loss for module in (first, last)]
    assert losses[1] < losses[0] and build.evaluate(last, split.test_x, split.test_y).accuracy < 0.1
    attention = torch.nn.MultiheadAttention(128, 4, batch_first=True, dtype=torch.float64)
    state = {"out_proj.weight": exact.o.weight, "out_proj.bias": exact.o.bias}
    for kind in ("weight", "bias"):
        state[f"in_proj_{kind}"] = torch.cat([getattr(getattr(exact, part), kind) for part in "qkv"])
    attention.load_state_dict(state)
    stream = exact.embedding(split.test_x[:50]) + exact.positions
    middle = stream[:, -1] + attention(stream[:, -1:], stream, stream)[0][:, 0]
    expected = exact.unembed(middle + exact.down(torch.relu(exact.up(middle))))
    torch.testing.assert_close(exact(split.test_x[:50]), expected, rtol=0, atol=1e-12)


def test_a_transformer_block_is_torch_s_pre_norm_encoder_layer() -> None:
    transformer = build.Transformer().double()
    block, tokens = transformer.blocks[1], torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(0)).double()
    other = torch.nn.TransformerEncoderLayer(
        64, 4, 128, dropout=0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    mine = block.state_dict()
    names = {"linear1": "up", "linear2": "down", "self_attn.out_proj": "o", "norm1": "norm1", "norm2": "norm2"}
    state = {f"{name}.{kind}": mine[f"{here}.{kind}"] for name, here in names.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        state[f"self_attn.in_proj_{kind}"] = torch.cat([mine[f"{part}.{kind}"] for part in "qkv"])
    other.load_state_dict(state)
    torch.testing.assert_close(block(tokens), other(tokens), rtol=0, atol=1e-12)


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


def test_a_descendant_goes_on_from_its_ancestor_and_is_the_same_again() -> None:
    """The corruption and the seed decide it; one epoch shows that it starts where the ancestor stands."""
    family = build.corruption_family
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "TUNING_EPOCHS", 1)
        patch.setattr(family, "EPOCHS", 1)
        family._ancestor.cache_clear()
        state = torch.get_rng_state()
        first, again, other, clean = (
            family.descendant(seed, name).state_dict()
            for seed, name in ((0, "blur"), (0, "blur"), (1, "blur"), (0, None))
        )
        assert torch.equal(torch.get_rng_state(), state)
        start = family.ancestor(0).state_dict()
        patch.setattr(family, "TUNING_RATE", 0.0)
        same = family.descendant(0, "blur").state_dict()
    family._ancestor.cache_clear()
    assert _changed(start, same) == [] and _changed(first, again) == []
    assert _changed(first, other) == _changed(first, clean) == _changed(first, start) == list(first)


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
    monkeypatch.setattr(sys, "argv", ["build.py", "--only", "mlp*", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        build.main()
    assert "--only mlp*: expected a name or glob of tiny, other" in capsys.readouterr().err
