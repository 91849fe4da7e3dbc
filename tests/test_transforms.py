"""Smoothing and sharpening: Eckart and Young's theorem, numpy's SVD, and what must not change."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.spectra.det_x import det_x
from workbench.spectra.marchenko_pastur import largest_noise_eigenvalue, marchenko_pastur_fit
from workbench.spectra.transforms import noise_edge, sharpened, smoothed

SHAPES = [(7, 4), (4, 7), (5, 5), (1, 6), (6, 1), (40, 30)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leading(matrix: np.ndarray, count: int) -> np.ndarray:
    """The sum over the `count` largest singular values, by numpy."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :count] * values[:count]) @ right[:count]


# Smoothing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("keep", [1, 2, 3, 29, 100])
def test_what_stays_is_numpys_leading_part_and_what_goes_has_the_next_singular_value(
    shape: tuple[int, int], keep: int
) -> None:
    weight = normal(*shape)
    found = smoothed({"fc.weight": weight}, keep=keep)["fc.weight"]
    np.testing.assert_allclose(found, leading(weight.numpy(), keep), rtol=0, atol=1e-13 * shape[0] * shape[1])
    values = np.linalg.svd(weight.numpy(), compute_uv=False)
    after = values[keep] if keep < len(values) else 0
    assert float(torch.linalg.matrix_norm(weight - found, 2)) == pytest.approx(after, abs=1e-12)
    assert np.linalg.matrix_rank(found.numpy(), tol=1e-12) == min(keep, len(values))
    if keep >= len(values):
        assert torch.equal(found, weight), "nothing is cut, no bit changes"


@pytest.mark.parametrize(
    ("share", "count"), [(1.0, 100), (0.5, 50), (0.29, 29), (0.299, 29), (0.8, 80), (0.01, 1), (1e-9, 1)]
)
def test_a_share_is_one_of_the_shorter_side(share: float, count: int) -> None:
    found = smoothed({"fc.weight": normal(100, 120)}, keep=share)["fc.weight"]
    assert np.linalg.matrix_rank(found.numpy(), tol=1e-10) == count


@pytest.mark.parametrize("keep", [3, 0.4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_smoothing_twice_is_smoothing_once_in_the_dtype_of_before(keep: float, dtype: torch.dtype) -> None:
    weights = {"fc.weight": normal(20, 30, dtype=dtype), "conv.weight": normal(6, 8, 3, 3, dtype=dtype)}
    once = smoothed(weights, keep=keep)
    twice = smoothed(once, keep=keep)
    for name in weights:
        assert once[name].dtype == twice[name].dtype == dtype
        exact = 1e-13 if dtype == torch.float64 else 0
        step = 2 * torch.finfo(dtype).eps * float(once[name].abs().max())
        assert torch.allclose(once[name].double(), twice[name].double(), rtol=0, atol=max(step, exact))


def test_every_kernel_position_is_a_matrix_and_flatten_takes_them_as_one() -> None:
    weight = normal(6, 5, 3, 2)
    found = smoothed({"conv.weight": weight}, keep=2)["conv.weight"]
    for at in np.ndindex(3, 2):
        np.testing.assert_allclose(found[(..., *at)], leading(weight[(..., *at)].numpy(), 2), atol=1e-13)
    flat = smoothed({"conv.weight": weight}, keep=2, conv="flatten")["conv.weight"]
    np.testing.assert_allclose(flat.reshape(6, -1), leading(weight.reshape(6, -1).numpy(), 2), atol=1e-13)


@pytest.mark.parametrize(
    "module", [nn.Conv2d(8, 12, 3, groups=4), nn.ConvTranspose2d(8, 12, 3, groups=2), nn.Conv1d(6, 6, 5, groups=6)]
)
def test_groups_are_matrices_of_their_own(module: nn.Module) -> None:
    assert isinstance(module.weight, nn.Parameter)
    weight = module.weight.detach()
    before = weight.clone()
    found = smoothed(module, keep=1)["weight"]
    assert torch.equal(weight, before), "the module is not touched"
    groups = int(module.groups)  # type: ignore[arg-type]
    step = weight.shape[0] // groups
    for group in range(groups):
        own = slice(group * step, (group + 1) * step)
        for at in np.ndindex(*weight.shape[2:]):
            expected = leading(weight[(own, slice(None), *at)].double().numpy(), 1)
            np.testing.assert_allclose(found[(own, slice(None), *at)], expected, atol=1e-6)


def test_fused_parts_experts_and_gates_are_smoothed_one_by_one() -> None:
    weights = {
        "attn.c_attn.weight": normal(8, 24),
        "block.in_proj_weight": normal(24, 8, seed=1),
        "mlp.experts.gate": normal(3, 8, 10, seed=2),
    }
    found = smoothed(weights, keep=2)
    for part in range(3):
        own = slice(8 * part, 8 * part + 8)
        for name, at in (("attn.c_attn.weight", (slice(None), own)), ("block.in_proj_weight", (own,))):
            np.testing.assert_allclose(found[name][at], leading(weights[name][at].numpy(), 2), atol=1e-12)
        name = "mlp.experts.gate"
        np.testing.assert_allclose(found[name][part], leading(weights[name][part].numpy(), 2), atol=1e-12)
    one = smoothed(weights, keep=2, layers="attn.c_attn.k")["attn.c_attn.weight"]
    assert torch.equal(one[:, :8], weights["attn.c_attn.weight"][:, :8])
    assert np.linalg.matrix_rank(one[:, 8:16].numpy(), tol=1e-10) == 2


def spectrum_of(values: np.ndarray, rows: int, cols: int, seed: int = 0) -> Tensor:
    """A matrix with given squared singular values and random singular vectors."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.normal(size=(rows, len(values))))
    right, _ = np.linalg.qr(rng.normal(size=(cols, len(values))))
    return torch.from_numpy((left * np.sqrt(values)) @ right.T)


def test_rules_keep_their_tails() -> None:
    quantiles = (1 - (np.arange(1, 41) - 0.5) / 40) ** -1.0
    weight = spectrum_of(np.concatenate([np.linspace(0.01, 0.5, 40), quantiles]), 90, 80)
    row = wb.spectrum({"fc.weight": weight}).row("fc")
    squares = np.sort(np.linalg.svd(weight.numpy(), compute_uv=False) ** 2)
    for keep, count in (("xmin", row["tail_size"]), ("det_x", det_x(torch.from_numpy(squares)).size)):
        found = smoothed({"fc.weight": weight}, keep=keep)["fc.weight"]
        assert 1 < count < 80
        np.testing.assert_allclose(found, leading(weight.numpy(), count), atol=1e-12)


def test_the_noise_rule_keeps_what_was_planted_and_passes_pure_noise() -> None:
    noise = normal(300, 200)
    planted = sum((60 + 10 * n) * torch.outer(normal(300, seed=n), normal(200, seed=9 + n)) / 245 for n in range(3))
    found = smoothed({"noise.weight": noise, "both.weight": noise + planted}, keep="noise")
    assert torch.equal(found["noise.weight"], noise)
    assert np.linalg.matrix_rank(found["both.weight"].numpy(), tol=1e-10) == 3


@pytest.mark.parametrize("matrices", [1, 2])
def test_spikes_do_not_move_the_edge_of_the_noise(matrices: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(matrices, 300, 200))
    spikes = np.stack([leading(rng.normal(size=(300, 200)), 30) * 20 for _ in range(matrices)])
    edges = [
        noise_edge(torch.from_numpy(np.sort(np.linalg.svd(one, compute_uv=False).ravel() ** 2)), 300, 200, matrices)
        for one in (noise, noise + spikes)
    ]
    assert edges[1] == pytest.approx(edges[0], rel=0.02)


def test_the_edge_is_that_of_the_noise_where_the_fit_by_the_median_is_below_it() -> None:
    """Why there are two: 40 planted directions of 200 are 40 that the median counts as the bulk's."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 40)))[0] for size in (300, 200))
    planted = left * np.linspace(1.5, 3, 40) * (math.sqrt(300) + math.sqrt(200)) @ right.T
    values = np.sort(np.linalg.svd(rng.normal(size=(300, 200)) + planted, compute_uv=False) ** 2)
    edge, fit = noise_edge(torch.from_numpy(values), 300, 200), marchenko_pastur_fit(torch.from_numpy(values), 300, 200)
    truth = largest_noise_eigenvalue(300, 200, 1, 0.01)
    assert (values > edge).sum() == fit.num_spikes == 40
    assert edge == pytest.approx(truth, rel=0.02) and fit.spike_edge < 0.92 * truth


def test_pooled_rules_cut_all_kernel_positions_at_one_value() -> None:
    weight = normal(8, 10, 2, 2)
    weight[..., 0, 0] *= 5
    found = smoothed({"conv.weight": weight}, keep="det_x")["conv.weight"]
    slices = {at: np.linalg.svd(weight[(..., *at)].numpy(), compute_uv=False) for at in np.ndindex(2, 2)}
    pooled = torch.from_numpy(np.sort(np.concatenate([*slices.values()]) ** 2))
    cut = det_x(pooled).xmin * (1 - 1e-12)
    for at, values in slices.items():
        count = int((values**2 >= cut).sum())
        np.testing.assert_allclose(found[(..., *at)], leading(weight[(..., *at)].numpy(), count), atol=1e-12)


@pytest.mark.parametrize("keep", ["det_x", "xmin", "noise"])
@pytest.mark.parametrize(
    "weight",
    [torch.zeros(30, 20), torch.eye(30), torch.ones(1, 1), torch.zeros(4, 3, 2, 2)],
    ids=lambda w: str(w.shape),
)
def test_where_a_rule_finds_nothing_to_cut_no_bit_changes(weight: Tensor, keep: Any) -> None:
    assert torch.equal(smoothed({"fc.weight": weight}, keep=keep)["fc.weight"], weight)


# Sharpening


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (300, 40)])
def test_noise_has_no_traps_and_passes_bit_for_bit(shape: tuple[int, int]) -> None:
    """Each has one with a chance of 1 %: of 30 at most 3, with 99.7 %."""
    changed = 0
    for seed in range(30):
        noise = normal(*shape, seed=seed, dtype=torch.float32)
        changed += not torch.equal(sharpened({"fc.weight": noise})["fc.weight"], noise)
    assert changed <= 3


def test_a_trap_is_clipped_to_the_edge_of_the_noise_and_directions_stay() -> None:
    rows, cols = 120, 100
    left, right = torch.ones(rows) / math.sqrt(rows), torch.ones(cols) / math.sqrt(cols)
    right[::2] *= -1
    weight = normal(rows, cols) + 60 * torch.outer(left, right)
    weight[3, 5] = 90
    found = sharpened({"fc.weight": weight})["fc.weight"]
    assert abs(float(found[3, 5])) < 30, "about the edge √120 + √100 = 21"
    changed = ((found - weight).abs() > 0.15).double().mean()
    assert float(changed) < (rows + cols) / (rows * cols), "what shares its row or column in the shuffled order"
    assert float(left.double() @ found @ right.double()) == pytest.approx(60, rel=0.1), "a direction is no trap"
    again = sharpened({"fc.weight": found})["fc.weight"]
    assert torch.equal(again, found), "idempotent: the clipped value is at the edge and not above it"


def test_the_shuffled_matrix_has_no_singular_value_above_the_edge_by_numpy() -> None:
    """Derived again: torch's permutation of the same generator, numpy's SVD."""
    weight = normal(40, 50)
    weight[1, 2], weight[7, 7] = 80.0, -70.0
    order = torch.randperm(2000, generator=wb_generator("fc"))
    shuffled = weight.flatten()[order].reshape(40, 50).numpy()
    left, values, right = np.linalg.svd(shuffled, full_matrices=False)
    edge = math.sqrt(noise_edge(torch.from_numpy(np.sort(values**2)), 40, 50))
    assert (values > edge).sum() == 2
    expected = np.empty(2000)
    expected[order.numpy()] = ((left * np.minimum(values, edge)) @ right).ravel()
    found = sharpened({"fc.weight": weight}, seed=5)["fc.weight"]
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-12)


def wb_generator(layer: str) -> torch.Generator:
    from workbench.seeds import generator

    return generator(5, layer)


@pytest.mark.parametrize("shape", [(400, 100), (100, 100), (50, 800)])
@pytest.mark.parametrize("matrices", [1, 9])
def test_noise_is_above_the_edge_in_one_of_a_hundred_cases(shape: tuple[int, int], matrices: int) -> None:
    above, trials = 0, 100 if matrices == 1 else 20
    for seed in range(trials):
        values = np.linalg.svd(np.random.default_rng(seed).normal(size=(matrices, *shape)), compute_uv=False)
        pooled = torch.from_numpy(np.sort(values.ravel() ** 2)) * 0.3
        above += float(pooled[-1]) > noise_edge(pooled, *shape, matrices)
    assert above <= 0.01 * trials + 3 * math.sqrt(0.01 * trials) + 1


# As Weights


def test_what_is_no_matrix_or_not_selected_is_the_same_to_the_bit() -> None:
    weights = {
        "bn.weight": normal(8),
        "bn.num_batches_tracked": torch.tensor(7),
        "steps": torch.arange(6).reshape(2, 3),
        "fc.weight": normal(8, 8),
        "head.weight": normal(8, 8),
    }
    found = smoothed(weights, keep=1, layers="fc")
    assert list(found) == list(weights)
    assert [name for name in weights if not torch.equal(found[name], weights[name])] == ["fc.weight"]
    assert found.infos == wb.load(weights).infos


def test_notes_and_source_tell_what_was_done() -> None:
    weights = smoothed({"a.weight": normal(4, 4), "b.weight": normal(4, 4)}, layers="b", keep=1)
    assert weights.source == "a mapping in memory (smoothed, keep=1)"
    assert weights.notes[-1] == "smoothed, keep=1, conv='slices': the matrices of 1 layer, computed as they are read: b"
    assert wb.spectrum(weights).meta["source"] == weights.source
    assert sharpened(weights, seed=3).notes[-1].startswith("sharpened, seed=3, conv='slices'")


def test_a_tied_tensor_is_transformed_under_both_names_and_stays_tied(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Embedding(20, 10), nn.Linear(10, 20, bias=False))
    module[1].weight = module[0].weight
    found = smoothed(module, keep=2)
    assert torch.equal(found["0.weight"], found["1.weight"])
    assert np.linalg.matrix_rank(found["1.weight"].numpy(), tol=1e-4) == 2
    saved = wb.load(wb.save(found, tmp_path / "net.safetensors"))
    assert saved.infos["1.weight"].tied_to == "0.weight"
    assert torch.equal(saved["1.weight"], found["1.weight"])


def test_nothing_is_read_before_it_is_asked_for(minilm: Path, tmp_path: Path) -> None:
    layer = "encoder.layer.0.attention.self.query"
    base = wb.load(minilm)
    found = smoothed(base, keep=20)
    squares = wb.spectrum(found, layers=layer).eigenvalues[layer]
    expected = wb.spectrum(base, layers=layer).eigenvalues[layer]
    assert torch.allclose(squares[-20:], expected[-20:], rtol=1e-6)
    assert float(squares[:-20].max()) < 1e-10 * float(squares[-1])
    assert torch.equal(found[f"{layer}.bias"], base[f"{layer}.bias"])


def test_the_source_is_not_written_to() -> None:
    tensors = {"fc.weight": normal(6, 5).T, "conv.weight": normal(4, 4, 3, 3).permute(1, 0, 3, 2)}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    found = smoothed(tensors, keep=1)
    for name in tensors:
        changed = found[name]
        assert np.linalg.matrix_rank(changed.numpy().reshape(*changed.shape[:2], -1)[..., 0], tol=1e-12) == 1
        assert torch.equal(tensors[name], before[name])


@pytest.mark.parametrize("transform", [smoothed, sharpened])
def test_a_layer_that_is_not_finite_is_named_when_it_is_read(transform: Callable[..., wb.Weights]) -> None:
    bad = normal(4, 4)
    bad[0, 0] = math.nan
    weights = transform({"good.weight": normal(4, 4), "bad.weight": bad})
    assert torch.isfinite(weights["good.weight"]).all()
    with pytest.raises(wb.LayerError, match="bad: 1 of 16 elements are NaN or infinite"):
        weights["bad.weight"]


KEEPS = {
    "'detx'": "keep='detx': expected 'det_x', 'xmin', 'noise', a number of singular values (int ≥ 1) or a share",
    "0": "keep=0: expected",
    "-3": "keep=-3: expected",
    "1.5": "keep=1.5: expected",
    "0.0": "keep=0.0: expected",
    "True": "keep=True: expected",
    "None": "keep=None: expected",
    "math.nan": "keep=nan: expected",
}


def test_a_keep_that_is_none_says_what_there_is(raised: Callable[..., dict[str, list[str]]]) -> None:
    call = "__import__('workbench.spectra.transforms', fromlist=['smoothed']).smoothed(model, {})"
    found = raised([call.format(f"keep={keep}") for keep in KEEPS] + [call.format("conv='both'")])
    for keep, message in KEEPS.items():
        name, text = found[call.format(f"keep={keep}")]
        assert name == "ArgumentError" and message in text
    assert "Did you mean 'det_x'?" in found[call.format("keep='detx'")][1]
    name, text = found[call.format("conv='both'")]
    assert (name, text) == ("ArgumentError", "conv='both': expected 'slices' or 'flatten'.")
