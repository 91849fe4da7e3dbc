"""Every public name is known here; every primitive has an oracle that a stated mutation of it breaks."""

import importlib
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from contract import connectivity_oracles as connectivity
from contract import degeneracy_oracles as degeneracy
from contract import sharing_oracles as sharing
from contract import signature_oracles as signatures
from contract.atlas_oracles import atlas_oracle
from contract.diff_oracles import diff_oracle
from workbench.results import LAYER_COLUMNS, LayerResult

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
KINDS_OF_RESULTS = [
    kind
    for parent in (wb.Result, LayerResult)
    for kind in parent.__subclasses__()
    if kind.__module__.startswith("workbench.") and kind is not LayerResult
]


def spectrum_oracle() -> None:
    """Numpy's singular values give the norms; the Pareto law gives α."""
    matrix = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    row = wb.spectrum({"fc.weight": matrix}).row("fc")
    squares = np.linalg.svd(matrix.double().numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(
        [row["lambda_max"], row["frobenius_squared"]], [squares.max(), squares.sum()], rtol=1e-12
    )
    quantiles = (1 - (np.arange(1, 201) - 0.5) / 200) ** -0.5
    alpha = wb.spectrum({"fc.weight": torch.diag(torch.tensor(quantiles).sqrt())}).row("fc")["alpha"]
    assert alpha == pytest.approx(3, abs=0.02)


def farms_oracle() -> None:
    """Pure noise has the α of the square Marchenko–Pastur law, 2.12169 by quadrature, at every aspect ratio."""
    noise = {f"{n}.weight": torch.randn(240 * n, 240, generator=torch.Generator().manual_seed(n)) for n in (1, 4)}
    table = wb.farms(noise, window=80).tables["layers"]
    assert table["alpha"] == pytest.approx((2.12169, 2.12169), abs=0.03)
    assert table["alpha_full"][1] == pytest.approx(3.4546, rel=0.02)


def _pareto(alpha: float) -> torch.Tensor:
    """A matrix whose λ are the quantiles of a power law."""
    return torch.diag((torch.arange(1, 201, dtype=torch.float64) / 200.5) ** (-0.5 / (alpha - 1)))


def tempbalance_oracle() -> None:
    """A power law's own exponents give the rates by the paper's formula."""
    model = {f"{alpha}.weight": _pareto(alpha) for alpha in (2, 3, 4)}
    rates = wb.tempbalance(model, learning_rate=0.2, estimator="spectrum", xmin=1.0).frame()["learning_rate"]
    assert rates.tolist() == pytest.approx([0.1, 0.2, 0.3], rel=0.01)


def alphapruning_oracle() -> None:
    """A power law's own exponents give the sparsities by the paper's formula, and those are the zeros."""
    model = {f"{alpha}.weight": _pareto(alpha) + 1e-9 for alpha in (2, 3, 4)}
    pruning = wb.alphapruning(model, density=0.5, estimator="spectrum", xmin=1.0)
    zeros = [int((tensor == 0).sum()) for tensor in pruning.apply(model).values()]
    assert zeros == pytest.approx([16000, 20000, 24000], rel=0.01) and sum(zeros) == 60000


def comparison_oracle() -> None:
    """The Pareto law gives α at each end, numpy the mean and the spread over the models."""
    alphas = (2.5, 3.0, 4.0)
    grids = [(1 - (np.arange(1, 201) - 0.5) / 200) ** (-0.5 / (alpha - 1)) for alpha in alphas]
    row = wb.comparison([{"fc.weight": torch.from_numpy(np.diag(grid))} for grid in grids]).row("fc")
    found = [row[name] for name in ("first", "last", "change", "mean", "std")]
    assert found == pytest.approx([2.5, 4, 1.5, np.mean(alphas), np.std(alphas, ddof=1)], rel=0.02)


def smoothed_oracle() -> None:
    """Eckart and Young: what goes has the next singular value as its norm, what stays is numpy's leading part."""
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = wb.smoothed({"fc.weight": matrix}, keep=4)["fc.weight"]
    left, values, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    np.testing.assert_allclose(found, (left[:, :4] * values[:4]) @ right[:4], atol=1e-12)
    assert float(torch.linalg.matrix_norm(matrix - found, 2)) == pytest.approx(values[4], rel=1e-12)


def sharpened_oracle() -> None:
    """One huge element of noise makes no direction any more; noise without it passes bit for bit."""
    noise = torch.randn(60, 80, generator=torch.Generator().manual_seed(0))
    trapped = noise.clone()
    trapped[3, 5] = 100.0
    flat = wb.sharpened({"fc.weight": noise, "trap.weight": trapped})
    assert torch.equal(flat["fc.weight"], noise)
    largest = np.linalg.svd(flat["trap.weight"].numpy(), compute_uv=False)[0]
    assert largest < 1.5 * (60**0.5 + 80**0.5), "the edge of noise of this shape, and not the 100 of the element"


def layers_oracle() -> None:
    """Elements of all rows are the module's own count of its parameters and buffers."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    rows = wb.layers(module).frame()
    assert rows["elements"].sum() == sum(tensor.numel() for tensor in module.state_dict().values())
    assert set(rows["tensor"]) == set(module.state_dict())


def contents_oracle() -> None:
    """Numpy counts, averages and bins the same elements."""
    tensor = torch.randn(1500, 1000, generator=torch.Generator().manual_seed(0)).relu()
    found = wb.contents({"fc.weight": tensor})
    row, every = found.row("fc"), tensor.double().numpy()
    assert (row["zeros"], row["nan"], row["infinite"]) == (int((every == 0).sum()), 0, 0)
    np.testing.assert_allclose([row["mean"], row["std"]], [every.mean(), every.std()], rtol=1e-12)
    np.testing.assert_array_equal(found.counts["fc"], np.histogram(every, 100)[0])


def load_oracle() -> None:
    """A wrapped and nested checkpoint holds the module's own tensors, bit by bit."""
    module = torch.nn.Linear(3, 2)
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in module.state_dict().items()}, "epoch": 3}
    weights = wb.load(wrapped)
    assert list(weights) == ["weight", "bias"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())


def save_oracle() -> None:
    """The safetensors library reads back what was saved."""
    tensors = {"b": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "a": torch.arange(3)}
    with tempfile.TemporaryDirectory() as folder:
        read = load_file(wb.save(tensors, f"{folder}/net.safetensors"))
    assert all(read[name].dtype == one.dtype and torch.equal(read[name], one) for name, one in tensors.items())


def evaluator_oracle() -> None:
    """The loss over batches of unequal size is torch's own of all data at once."""
    random = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(10, 4, generator=random), torch.randint(0, 3, (10,), generator=random)
    module = torch.nn.Linear(4, 3)
    found = wb.evaluator(module, list(zip(inputs.split(4), labels.split(4), strict=True)), "cross_entropy")()
    with torch.no_grad():
        outputs = module(inputs)
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, labels)), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float((outputs.argmax(1) == labels).double().mean()))


def figure_oracle() -> None:
    """What is drawn are the table's own numbers."""
    spectrum = wb.spectrum(
        {f"{n}.weight": torch.randn(30, 30 + n, generator=torch.Generator().manual_seed(n)) for n in range(3)}
    )
    (panel,) = wb.figure(spectrum, "alpha").panels
    drawn = sorted(y for mark in panel.marks if mark.__class__.__name__ == "Points" for y in mark.y)
    assert drawn == sorted(spectrum.frame()["alpha"])


@dataclass(frozen=True)
class Primitive:
    """What the house demands of one public function.

    Attributes:
        oracle: a check that is independent of the code.
        target: what the mutation replaces.
        mutant: what it puts there, given the original.
        figures: kinds of figure of its result, () if it returns none.
    """

    oracle: Callable[[], None]
    target: str
    mutant: Callable[[Any], object]
    figures: tuple[str, ...] = ()


def _overridden(original: type, **methods: Callable[..., Any]) -> type:
    return type(original.__name__, (original,), methods)


def _nothing_moves(_: Any) -> Callable[..., Any]:
    return lambda gain, *prices: np.arange(len(gain))


MATCHING = ("objective", "reduction", "alignment")
PRIMITIVES = {
    "spectrum": Primitive(
        spectrum_oracle,
        "workbench.spectra.spectrum.gram_eigenvalues",
        lambda original: lambda matrices: original(matrices).sqrt(),  # σ for σ²
        ("alpha", "esd"),
    ),
    "farms": Primitive(
        farms_oracle,
        "workbench.spectra.farms_layer.cover",
        lambda original: lambda rows, cols, **rules: original(rows, cols, **rules | {"aspect_ratio": cols / rows}),
        ("alpha", "esd"),
    ),
    "tempbalance": Primitive(
        tempbalance_oracle,
        "workbench.spectra.tempbalance.positions",
        lambda original: lambda values: [1 - place for place in original(values)],  # the heaviest tail learns fastest
        ("learning_rate",),
    ),
    "alphapruning": Primitive(
        alphapruning_oracle,
        "workbench.spectra.alphapruning.positions",
        lambda original: lambda values: [1 - place for place in original(values)],  # the lightest tail is spared
        ("sparsity",),
    ),
    "comparison": Primitive(
        comparison_oracle,
        "workbench.spectra.comparison.stdev",
        lambda _: pstdev,  # n for n − 1
        ("trajectory", "change"),
    ),
    "smoothed": Primitive(
        smoothed_oracle,
        "workbench.spectra.transforms.kept",
        lambda original: lambda given, keep: original(given, keep + 1),
    ),
    "sharpened": Primitive(
        sharpened_oracle, "workbench.spectra.transforms.noise_edge", lambda _: lambda *arguments: float("inf")
    ),
    "layers": Primitive(
        layers_oracle,
        "workbench.layers.table.layer_views",
        lambda original: lambda weights: [view for view in original(weights) if isinstance(view, wb.Layer)],
        ("sizes",),
    ),
    "contents": Primitive(
        contents_oracle,
        "workbench.layers.contents._tiles",
        lambda original: lambda *arguments: list(original(*arguments))[:1],  # the first tile for all of them
        ("rms", "histogram", "heatmap"),
    ),
    "permutation_groups": Primitive(
        connectivity.permutation_groups_oracle,
        "workbench.connectivity.structure.permuted",
        lambda original: lambda tensor, layout, *more: original(tensor, layout[:1], *more) if layout else tensor,
        ("graph",),
    ),
    "match": Primitive(
        connectivity.match_oracle, "workbench.connectivity.nested_assignment.assignment", _nothing_moves, MATCHING
    ),
    "match_many": Primitive(
        connectivity.match_many_oracle, "workbench.connectivity.nested_assignment.assignment", _nothing_moves, MATCHING
    ),
    "barrier": Primitive(
        connectivity.barrier_oracle,
        "workbench.connectivity.barrier._chord",
        lambda _: lambda loss_a, loss_b, t: 0.0,
        ("barrier",),
    ),
    "repair": Primitive(
        connectivity.repair_oracle, "workbench.connectivity.repair._between", lambda _: lambda one, other, t: one
    ),
    "surface": Primitive(
        connectivity.surface_oracle,
        "workbench.connectivity.directions._height",
        lambda original: lambda *arguments: 2 * original(*arguments),
        ("surface",),
    ),
    "activations": Primitive(
        degeneracy.activations_oracle,
        "workbench.degeneracy.numerical_rank.symmetric_eigenvalues",
        lambda original: lambda matrices: original(matrices).sqrt(),  # deviations for variances
        ("spectrum",),
    ),
    "degeneracy": Primitive(
        degeneracy.degeneracy_oracle,
        "workbench.degeneracy.sweep.GradientSum",
        lambda original: _overridden(original, add=lambda self, rows, probe: original.add(self, rows * 0 + 1, probe)),
        ("ranks", "spectra"),
    ),
    "interaction_basis": Primitive(
        degeneracy.interaction_basis_oracle,
        "workbench.degeneracy.directions.falling",
        lambda original: lambda matrix: (original(matrix)[0].sqrt(), original(matrix)[1]),  # √Λ for Λ
        ("weights",),
    ),
    "interaction_graph": Primitive(
        degeneracy.interaction_graph_oracle,
        "workbench.degeneracy.edges._moved",
        lambda original: lambda *arguments: original(*arguments).abs().sqrt(),
        ("graph",),
    ),
    "interaction_modules": Primitive(
        degeneracy.interaction_modules_oracle,
        "workbench.degeneracy.modules.communities",
        lambda original: lambda graph, *more, **options: np.zeros_like(original(graph, *more, **options)),
        ("graph", "modularity"),
    ),
    "ablation": Primitive(
        degeneracy.ablation_oracle,
        "workbench.degeneracy.ablated.AblatedNodes",
        lambda original: _overridden(original, _measured=lambda self, kept: original._measured(self, kept // 2)),
        ("ablation",),
    ),
    "ablated": Primitive(
        degeneracy.ablated_oracle,
        "workbench.degeneracy.ablated.AblatedNodes",
        lambda original: _overridden(original, _measured=lambda self, kept: original._measured(self, kept // 2)),
    ),
    "signature": Primitive(
        signatures.signature_oracle,
        "workbench.signatures.signature._projection",
        lambda _: lambda clean_clean, clean_robust: 1.0,  # t − c for t − c·⟨c,t⟩/⟨c,c⟩
    ),
    "similarity": Primitive(
        signatures.similarity_oracle,
        "workbench.signatures.similarity_rows._gram",
        lambda original: lambda tensors: original(tensors).abs(),  # signs are lost
        ("cosine",),
    ),
    "merge": Primitive(
        signatures.merge_oracle,
        "workbench.signatures.ties._elected",
        lambda _: lambda changes: sum(changes) / len(changes),  # a mean of all for one of those that agree
    ),
    "diff": Primitive(
        diff_oracle,
        "workbench.signatures.elements.piece_arrays",
        lambda original: lambda *tensors: list(original(*tensors))[:1],  # the first piece for all of them
        ("norms", "cosines", "lorenz", "extraction", "singular", "overlap"),
    ),
    "export": Primitive(
        sharing.export_oracle,
        "workbench.sharing.notebook_page.Inside",
        lambda original: _overridden(original, cleaned=lambda self, html: html),  # what is elsewhere stays elsewhere
    ),
    "cite": Primitive(
        sharing.cite_oracle,
        "workbench.sharing.cite.RULES",
        lambda rules: dict.fromkeys(rules, lambda given: [key for rule in rules.values() for key in rule(given)]),
    ),
    "doctor": Primitive(
        sharing.doctor_oracle,
        "workbench.sharing.installed.release",
        lambda original: lambda text: original(text)[:1],  # 8 for 8.1: an older minor version passes
    ),
    "atlas": Primitive(
        atlas_oracle,
        "workbench.atlas.correlations.residuals",
        lambda _: lambda ranks, controls: ranks,  # depth is not held fixed
        ("correlations", "pairs", "scatter"),
    ),
    "load": Primitive(
        load_oracle, "workbench.weights.load.without_prefixes", lambda _: lambda names, more=(): {n: n for n in names}
    ),
    "save": Primitive(save_oracle, "workbench.weights.save._dtype", lambda _: lambda info, dtype: torch.float16),
    "evaluator": Primitive(
        evaluator_oracle,
        "workbench.runtime.evaluator.METRICS",
        lambda _: {"accuracy": lambda outputs, targets: outputs.mean()},
    ),
    "figure": Primitive(
        figure_oracle,
        "workbench.figures.figure.KINDS",
        lambda kinds: {
            wb.Spectrum: {"alpha": lambda spectrum, layer: kinds[wb.Spectrum]["alpha"](_doubled(spectrum), layer)}
        },
    ),
}
OTHERS = {
    *(
        "ArgumentError Cancelled CheckpointError CheckpointNotFoundError FigureError LayerError LayerNotFoundError"
    ).split(),
    *("ResultError SourceTypeError WorkbenchError").split(),
    *("Evaluator EvaluationError").split(),
    *("Barrier Matching MatchingProgress PermutationGroups Permutations Surface").split(),
    *("Ablation Activations Degeneracy InteractionBasis InteractionGraph InteractionModules").split(),
    *("MERGE_METHODS Diff Patched Signature Similarity").split(),
    *("Atlas AlphaPruning Comparison Doctor TempBalance TempBalanceScheduler").split(),
    *("Contents Farms FigureSpec Layer LayerTable ModelLike Progress Result Spectrum Weights").split(),
    *("labelled open_result").split(),
}


def _doubled(spectrum: wb.Spectrum) -> wb.Spectrum:
    table = dict(spectrum.tables["layers"])
    table["alpha"] = [2 * alpha for alpha in table["alpha"]]
    return wb.Spectrum(
        tables={**spectrum.tables, "layers": table}, meta=spectrum.meta, eigenvalues=spectrum.eigenvalues
    )


def test_every_public_name_is_listed_here() -> None:
    assert set(wb.__all__) == set(PRIMITIVES) | OTHERS
    assert all(hasattr(wb, name) for name in wb.__all__)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_oracle_holds_and_its_mutant_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    primitive = PRIMITIVES[name]
    primitive.oracle()
    module, _, attribute = primitive.target.rpartition(".")
    owner = importlib.import_module(module)
    monkeypatch.setattr(owner, attribute, primitive.mutant(getattr(owner, attribute)))
    with pytest.raises((AssertionError, wb.WorkbenchError)):
        primitive.oracle()


@pytest.mark.parametrize("name", PRIMITIVES)
def test_docstring_says_what_a_paper_needs(name: str) -> None:
    text = inspect.getdoc(getattr(wb, name)) or ""
    sections = ["Args:", "Returns:", "Raises:", "Example:"]
    for section in sections if name == "figure" else [*sections, "Cost:", "Source:", "Misreads:"]:
        assert section in text, f"wb.{name} has no {section}"


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_notebook_shows_it(name: str) -> None:
    cells = [cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert any(f"wb.{name}(" in cell for cell in cells)


def test_every_result_has_its_figures() -> None:
    from workbench.figures import KINDS

    made = {name: inspect.signature(getattr(wb, name), eval_str=True).return_annotation for name in PRIMITIVES}
    for name, primitive in PRIMITIVES.items():
        assert tuple(KINDS.get(made[name], ())) == primitive.figures, name
    assert set(KINDS) == set(KINDS_OF_RESULTS) == {kind for kind in made.values() if kind in KINDS}


@pytest.mark.parametrize("kind", KINDS_OF_RESULTS)
def test_columns_say_what_they_mean(kind: type[wb.Result]) -> None:
    assert kind.TABLES == tuple(kind.COLUMNS)
    assert set(kind.OPTIONAL) < set(kind.TABLES)
    assert all(column.meaning for table in kind.COLUMNS.values() for column in table.values())
    if issubclass(kind, LayerResult):
        assert list(kind.COLUMNS[kind.TABLES[0]])[0] == "layer" and set(LAYER_COLUMNS) <= set(
            kind.COLUMNS[kind.TABLES[0]]
        )
