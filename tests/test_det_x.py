"""The detX tail: weightwatcher's own numbers, its rule derived again, and ours by hand and by products of fractions."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from workbench.spectra.det_x import COLUMNS, compatible_det_x, det_x

REFERENCE = Path(__file__).parent / "reference" / "ww_minilm_dict_det_x.csv"
LAWS = ["pareto", "lognormal", "uniform", "exponential"]


def ascending(law: str, seed: int, count: int) -> Tensor:
    rng = np.random.default_rng(seed)
    sizes: dict[str, Any] = {"pareto": (1.5,), "lognormal": (0, 2), "uniform": (0.1, 2), "exponential": (1,)}
    return torch.from_numpy(np.sort(getattr(rng, law)(*sizes[law], count) + 1e-3))


SPECTRA = st.builds(ascending, st.sampled_from(LAWS), st.integers(0, 2**32), st.integers(2, 60))


@pytest.fixture(scope="module")
def compatible(minilm: Path) -> wb.Spectrum:
    return wb.spectrum(minilm, compat="weightwatcher")


@pytest.mark.parametrize("column", COLUMNS)
def test_39_layers_of_a_transformer_have_its_numbers(column: str, compatible: wb.Spectrum) -> None:
    """Measured: 4e-15 at most; two linear algebra libraries need not round alike."""
    theirs = pandas.read_csv(REFERENCE).set_index("longname")
    assert len(theirs) == 39
    ours = [
        compatible_det_x(compatible.eigenvalues[layer], compatible.row(layer)["tail_size"])[column]
        for layer in theirs.index
    ]
    if COLUMNS[column].kind is int or column == "ERG_gap":
        assert ours == theirs[column].tolist()
    np.testing.assert_allclose(ours, theirs[column], rtol=1e-9, atol=0)


def their_rule(values: np.ndarray) -> tuple[int, int]:
    """Number and index by plain products from the largest down; the loop ends at the second smallest."""
    if not values[0] < values[-1]:
        return 0, 0
    rescaled = values * len(values) / values.sum()
    index = 0
    for index in range(len(values) - 1, 0, -1):
        if np.prod(rescaled[index:]) < 1:
            return len(values) - index, index
    return len(values), index


@given(SPECTRA)
def test_its_rule_stops_at_the_first_product_below_one(values: Tensor) -> None:
    number, index = their_rule(values.numpy())
    row = compatible_det_x(values, 3)
    assert (row["detX_num"], row["num_ERG_spikes"], row["ERG_gap"]) == (number, number, number - 3)
    assert row["detX_val"] == values[index]
    assert row["detX_val_unrescaled"] == pytest.approx(float(values[index] / values.mean()), rel=1e-12)
    assert row["W_scale"] == pytest.approx(1 / math.sqrt(values.mean()), rel=1e-12)


EDGES = {  # what weightwatcher.RMT_Util.detX_constraint 0.7.7 answers
    (1.0, 1.0, 1.0): (0, 0),
    (0.5, 1.0, 1.5): (3, 1),
    (0.001, 1.0, 1.0): (3, 1),
    (0.0, 0.0, 1.0, 2.0): (3, 1),
    (4.0,): (0, 0),
}


@pytest.mark.parametrize("values", EDGES)
def test_its_answers_at_the_edges_are_kept_for_comparison(values: tuple[float, ...]) -> None:
    row = compatible_det_x(torch.tensor(values, dtype=torch.float64), 0)
    number, index = EDGES[values]
    assert (row["detX_num"], row["detX_val"]) == (number, values[index])
    assert math.isnan(row["ERG_gap"]), "no power law, no gap"


@pytest.mark.parametrize("count", [0, 5])
def test_its_columns_of_nothing_are_no_numbers(count: int) -> None:
    row = compatible_det_x(torch.zeros(count, dtype=torch.float64), 0)
    assert row["detX_num"] == row["num_ERG_spikes"] == 0
    assert all(math.isnan(row[name]) for name in ("W_scale", "detX_val_unrescaled", "ERG_gap"))


# Ours


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_the_product_is_nearer_to_one_than_that_of_one_more_or_one_less(integers: list[int]) -> None:
    """By exact products of fractions, which neither round nor overflow."""
    ordered = sorted(integers)
    assume(ordered[0] < ordered[-1])
    mean = Fraction(sum(ordered), len(ordered))
    tail = det_x(torch.tensor(ordered, dtype=torch.float64))
    products = [Fraction(1)]
    for value in reversed(ordered):
        products.append(products[-1] * value / mean)
    sizes = range(1, len(ordered) + 1)
    crossing = max(size for size in sizes if products[size] >= 1)
    assert crossing < len(ordered) and all(products[size] >= 1 for size in range(1, crossing + 1))
    above, below = products[crossing], 1 / products[crossing + 1]
    if above != below:  # a tie may round either way
        assert tail.size == (crossing if above < below else crossing + 1)
    assert tail.xmin == ordered[-tail.size]
    assert tail.log_product == pytest.approx(
        math.log(products[tail.size].numerator) - math.log(products[tail.size].denominator), abs=1e-11
    )
    assert tail.scale == pytest.approx(1 / math.sqrt(mean), rel=1e-14)


@given(SPECTRA, st.floats(-60, 60))
def test_the_tail_does_not_depend_on_the_unit_of_the_eigenvalues(values: Tensor, exponent: float) -> None:
    here, there = det_x(values), det_x(values * 10.0**exponent)
    assert there.size == here.size
    assert there.log_product == pytest.approx(here.log_product, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000])
@pytest.mark.parametrize("value", [1e-300, 1 / 3, 7.0])
def test_equal_eigenvalues_are_all_in_the_tail(count: int, value: float) -> None:
    tail = det_x(torch.full((count,), value, dtype=torch.float64))
    assert tail.size == count
    assert tail.log_product == pytest.approx(0, abs=1e-10)


def test_no_eigenvalues_have_no_tail() -> None:
    tail = det_x(torch.zeros(0, dtype=torch.float64))
    assert tail.size == 0
    assert math.isnan(tail.xmin) and math.isnan(tail.log_product) and math.isnan(tail.scale)


def test_thousands_of_eigenvalues_neither_overflow_nor_underflow() -> None:
    """Copies of one spectrum: sizes scale with the number of copies, though the product peaks beyond 1e1000."""
    values = ascending("exponential", 0, 200)
    small = det_x(values)
    many = det_x(values.repeat_interleave(200))
    assert float((values / values.mean()).log().clamp(min=0).sum()) * 200 > 1000 * math.log(10)
    assert abs(many.size - 200 * small.size) <= 200
    assert compatible_det_x(values.repeat_interleave(200), 1)["detX_num"] == pytest.approx(many.size, abs=1)
    assert abs(many.log_product) < 1
