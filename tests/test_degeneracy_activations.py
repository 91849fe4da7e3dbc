"""`wb.activations` against numpy: covariances, spectra, rows with reasons, and hostile users."""

import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.degeneracy.activations import Activations, activations

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]])


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A float64 module whose draws do not depend on what ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build().double().requires_grad_(False)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(found: Activations, layer: str, rows: Tensor) -> None:
    """All cells of a row, by numpy; `rows` are datapoints."""
    values = rows.reshape(-1, rows.shape[-1]).numpy()
    covariance = np.cov(values.T, bias=True).reshape(values.shape[1], -1)
    spectrum = np.linalg.eigvalsh(covariance)[::-1]
    scale = spectrum[0]
    np.testing.assert_allclose(found.means[layer], values.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariances[layer], covariance, atol=1e-12 * scale)
    np.testing.assert_allclose(found.eigenvalues[layer], spectrum, atol=1e-12 * scale)
    np.testing.assert_allclose(found.gram(layer), values.T @ values / len(values), atol=1e-12)
    row = found.row(layer)
    shares = spectrum[spectrum > 1e-14 * scale] / spectrum.sum()
    assert (row["width"], row["samples"]) == (values.shape[1], len(values))
    assert row["rank"] == np.linalg.matrix_rank(covariance, hermitian=True)
    assert row["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    assert row["largest"] == pytest.approx(scale) and row["trace"] == pytest.approx(np.trace(covariance))
    assert row["mean_norm"] == pytest.approx(np.linalg.norm(values.mean(0)))
    assert row["verdict"] == ("full rank" if row["rank"] == row["width"] else "degenerate") and not row["reason"]


def test_linear_layers_are_numpys() -> None:
    """Golden test 1 is layer 3: relu(X·W₁₀ₓ₆)·Mix₆ₓ₁₆ has rank 6."""
    net = seeded(lambda: nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Identity(), nn.Linear(6, 16)))
    x = normal(2048, 10)
    found = activations(net, [x[:100], x[100:101], x[101:]])
    assert list(found.frame()["layer"]) == ["0", "1", "2", "3"] and list(found.frame()["depth"]) == [0, 1, 2, 3]
    for place in range(4):
        check(found, str(place), net[: place + 1](x))
    row = found.row("3")
    assert row["rank"] == 6 and float(found.eigenvalues["3"][6] / found.eigenvalues["3"][0]) < 1e-15


def test_pixels_and_tokens_are_datapoints() -> None:
    net = seeded(lambda: nn.Sequential(nn.Conv2d(2, 5, 2), nn.Tanh()))
    x = normal(6, 2, 4, 4)
    found = activations(net, [x[:4], x[4:]])
    check(found, "0", net[0](x).movedim(1, -1))
    check(found, "1", net(x).movedim(1, -1))
    turned = activations(net, [x], ["1"], features={"1": 3})
    check(turned, "1", net(x))

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.pool = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
            return self.pool((self.up(tokens) * attention_mask[..., None]).sum(1))

    masked, tokens = seeded(Tokens), normal(5, 4, 3)
    found = activations(masked, [{"tokens": tokens, "attention_mask": MASK}])
    check(found, "up", masked.up(tokens)[MASK != 0])
    check(found, "pool", masked(tokens, MASK))


def test_what_cannot_be_measured_is_a_row_with_a_reason() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.root, self.dead, self.unused = nn.Linear(3, 4), Root(), nn.ReLU(), nn.Linear(2, 2)
            self.pick, self.last = Pick(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            z = self.one(x)
            self.root(z), self.dead(z - 1e6), self.pick(z)
            return self.last(z)

    class Root(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.sqrt()

    class Pick(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.argmax(-1)

    net, x = seeded(Odd), normal(30, 3)
    found = activations(net, [x])
    rows = found.frame().set_index("layer")
    assert rows["verdict"].to_dict() == {
        "one": "degenerate",
        "root": "not finite",
        "dead": "constant",
        "pick": "not measured",
        "unused": "not measured",
        "last": "full rank",
    }
    assert "NaN or infinite" in rows.loc["root", "reason"] and "did not run" in rows.loc["unused", "reason"]
    assert "same for all data" in rows.loc["dead", "reason"] and rows.loc["pick", "reason"]
    assert rows.loc["root", ["width", "samples", "rank"]].tolist() == [4, 30, 0]
    assert rows.loc["dead", ["rank", "effective_rank", "trace"]].tolist() == [0, 0, 0]
    assert np.isnan(rows.loc["unused", "trace"]) and set(found.covariances) == {"one", "dead", "last"}
    assert "1 not finite" in repr(found) and "2 not measured" in repr(found)
    with pytest.raises(wb.LayerNotFoundError, match="no layer 'ons'"):
        found.gram("ons")
    with pytest.raises(wb.ArgumentError, match="'unused' did not run"):
        activations(net, [x], ["unused"])
    with pytest.raises(wb.LayerNotFoundError, match="'nine'"):
        activations(net, [x], "nine")


def test_rounding_is_no_rank() -> None:
    """Equal samples in float32, of which products are blocked; and a module with a submodule called output."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = nn.Sequential(nn.Linear(300, 300), nn.LayerNorm(300))
    found = activations(net, [normal(1, 300).float().repeat(37, 1)])
    assert list(found.frame()["verdict"]) == ["constant", "constant"]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.output(x).tanh()

    net = seeded(Named)
    found = activations(net, [normal(30, 3)], "*")
    assert sorted(found.frame()["layer"]) == ["(output)", "output"]
    check(found, "(output)", net(normal(30, 3)))


def test_a_cancel_keeps_the_batches_that_passed() -> None:
    net, x = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(4))).train(), normal(30, 3)
    data = [x[:10], x[10:20], x[20:]]

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Tensor]:
            return iter(data)

    for given in (data, torch.utils.data.DataLoader(Stream(), batch_size=None)):
        for passed in range(3):

            def stop(progress: wb.Progress, passed: int = passed) -> None:
                if progress.done == passed:
                    raise wb.Cancelled

            before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
            with pytest.raises(wb.Cancelled) as caught:
                activations(net, given, progress=stop)
            partial = caught.value.partial
            assert isinstance(partial, Activations) and partial.meta["cancelled"]["done"] == passed
            assert f"CANCELLED after {passed} of" in repr(partial)
            if passed:
                check(partial, "0", net[0](torch.cat(data[:passed])))
            assert net.training and net[1].training and not net[0]._forward_hooks
            assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_results_travel_and_teach_the_next_call(tmp_path: Path) -> None:
    net, x = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU())), normal(30, 3)
    found = activations(net, [x])
    for other in (wb.open_result(found.save(tmp_path / "found")), pickle.loads(pickle.dumps(found))):
        assert isinstance(other, Activations) and repr(other) == repr(found)
        assert other.frame().equals(found.frame()) and json.dumps(dict(other.meta)) == json.dumps(dict(found.meta))
        for field in ("means", "covariances", "eigenvalues"):
            one, two = getattr(found, field), getattr(other, field)
            assert list(one) == list(two) and all(torch.equal(one[layer], two[layer]) for layer in one)
    assert "wb.degeneracy(module, data)" in repr(found)
    used = "cuda" if torch.cuda.is_available() else "cpu"
    assert (found.meta["parameters"]["device"], found.meta["device"]) == ("auto", used)
    known = set(found.meta["parameters"]) | {"module", "data", "progress"}
    assert known == set(inspect.signature(activations).parameters)


def test_data_that_cannot_be_used_are_refused() -> None:
    net, x = seeded(lambda: nn.Sequential(nn.Linear(3, 4))), normal(30, 3)
    for data, kind, message in (
        ((batch for batch in [x]), wb.ArgumentError, "one-shot generator"),
        ([], wb.ArgumentError, "data is empty"),
        ([x, normal(3, 5)], wb.EvaluationError, "batch 1"),
    ):
        with pytest.raises(kind, match=message):
            activations(net, data)
