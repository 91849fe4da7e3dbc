"""`wb.diff`: what changed between a model and one or several others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias

from torch import Tensor, nn

from workbench.errors import ArgumentError, Cancelled, known_names
from workbench.layers import Run, Selection, layer_run
from workbench.linalg import resolved_device
from workbench.progress import ProgressCallback
from workbench.results import Column, LayerResult, many, short_source
from workbench.signatures import columns
from workbench.signatures.activation_similarity import activation_similarity, check_similarity
from workbench.signatures.changes import DETAILS, Compared, layer_changes, unread
from workbench.signatures.common_ancestor import is_statistic
from workbench.signatures.manifest import CHANGES, EXAMPLES, Paired, first_difference, labelled, manifest_rows, paired
from workbench.signatures.pooling import gone, pooled_models, pooled_pairs
from workbench.signatures.rows import layer_row, number_row
from workbench.weights import ModelLike, TensorInfo, Weights, load
from workbench.weights.differences import looks_like_buffer, numbers

Others: TypeAlias = ModelLike | Mapping[Any, ModelLike] | Sequence[ModelLike]

KNOWN = ("elements", *DETAILS)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Diff(LayerResult):
    """What changed from a base model to one or several others, one row per tensor of the base or part of one.

    Attributes:
        lorenz: layer id → Lorenz curves of τ², (models with numbers, 101), at every hundredth of the elements.
        singular_before: layer id → σ(W), descending, (n,).
        singular_after: layer id → σ(W′), (models, n).
        singular_change: layer id → σ(τ), (models, n).
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = columns.COLUMNS
    OPTIONAL: ClassVar[Mapping[str, str]] = columns.OPTIONAL
    NEXT: ClassVar[str] = ".frame(), .frame('manifest'), .frame('models'), wb.figure(diff), wb.figure(diff, 'cosines')"

    lorenz: Mapping[str, Tensor] = field(default_factory=dict)
    singular_before: Mapping[str, Tensor] = field(default_factory=dict)
    singular_after: Mapping[str, Tensor] = field(default_factory=dict)
    singular_change: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The models beside the base."""
        return tuple(self.tables["models"]["label"])

    @property
    def title(self) -> str:
        """Base and models."""
        shown = ", ".join(self.labels) if len(self.labels) <= 3 else f"{len(self.labels)} models"
        return f"Diff of {short_source(self.meta['source'])} → {shown}"

    def facts(self) -> str:
        """Layers by verdict, the manifest in numbers, and whether the run was stopped."""
        models, words = self.tables["models"], self.verdict_counts()
        compared, identical = sum(models["compared"]), sum(models["identical"])
        counts = [(word, sum(models[word])) for word in CHANGES if word != "kept"]
        told = "".join(f", {count:,} {word}" for word, count in counts if count)
        units = "batches" if "activations" in self.tables else "tensors"
        return (
            f"{self.title}: {many(len(self.tables['layers']['layer']), 'layer')}{f' ({words})' if words else ''}; "
            f"{identical:,} of {compared:,} tensors bit-identical{told}{self.stopped(units)}"
        )


def diff(
    a: ModelLike,
    b: Others,
    *,
    detail: str | Sequence[str] = "elements",
    floor: ModelLike | None = None,
    layers: Selection = None,
    density: float | None = None,
    directions: int = 8,
    data: Iterable[Any] | None = None,
    module: nn.Module | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Diff:
    """What changed from W to W′: the manifest, ‖τ‖/‖W‖ of τ = W′ − W over a seed's noise, cosines, sign conflicts.

    Args:
        a: the base: anything `wb.load` takes.
        b: a model, a list of models (called by their sources), or a mapping of labels to models. Of several, their τ
            are compared with each other too, per layer and over all.
        detail: tables to add to `elements`, a name or several: `lorenz` (the Lorenz curve of τ² and the share of its
            top tenth), `outliers` (channels of τ with a robust z above 6), `spectra` (stable and effective rank of τ,
            ranks and bytes of a LoRA of it, overlap of its leading directions with W's, σ(W) and σ(W′)).
        floor: another seed of the base, trained alike: its relative norm is what a change must exceed.
        layers: names, globs or a predicate, of weight matrices, biases and buffers alike; None for all.
        density: share of the elements of each layer, those with the largest |τ|, for the trimmed sign conflict, in
            (0, 1]; TIES keeps 0.2. None (default) leaves it out.
        directions: leading singular vectors that `overlap` compares, at least 1; 8 by our choice, and never more than
            a quarter of the smaller side.
        data: a re-iterable of batches: adds `activations`, linear CKA of every submodule's outputs under both weights.
        module: the network that `data` are run through; may be left out where `a` is one.
        device: where spectra and activations are computed: `auto`, `cpu` or `cuda`.
        progress: called before each tensor with a Progress and once after them, then alike of the batches; it may raise
            `wb.Cancelled`.

    Returns:
        A Diff: `layers` (a row per tensor of the base, fused q/k/v, experts and gates apart), `manifest` (a row per
        tensor of either side and model), `models` (a row per model, over all weights), `values` (layer by model),
        `pairs` and `layer_pairs` (τᵢ against τⱼ), and what `detail` asked for. `verdict` is `identical` (bit by bit),
        `equal` (the same numbers in another dtype or with other signs of 0), `changed`, with a floor `beyond floor`,
        `within floor` or, where the models differ in that, `beyond in 1 of 5` (the numbers are their means), else
        without numbers `absent`, `shape`, `tied`, `empty`, `not finite`, `no weights` (counts, scalars, 8-bit floats:
        only how many differ) or `failed`.

    Raises:
        CheckpointError: a model cannot be opened.
        SourceTypeError: one of them is no model.
        LayerNotFoundError: no tensor has a partner of its shape (the first difference is named), or the selection
            matches nothing.
        ArgumentError: an argument is out of its range, or data come without a network.
        EvaluationError: a batch failed.
        Cancelled: the callback asked for it; `.partial` is the Diff of what was done.

    Cost: one pass over the bytes of all models in pieces: 1.5 times the reading of float32 on two idle threads, 2.6
    times that of bfloat16, which has twice the elements. A tensor of every model is in memory at a time (times torch's
    threads where they are small). `density` adds a partition of |τ|, `lorenz` a sort; `spectra` three eigenproblems of
    4/3·M³ flops a matrix and two with vectors; `data` (models + 1) forward passes and all models in memory.

    Source: Yadav et al., "TIES-Merging" (2023), for sign conflicts and trimming; Roy & Vetterli (2007) for the
    effective rank; Kornblith et al. (2019) for CKA; the floor of a second seed is ours. Trimming is by layer here, and
    TIES trims over the whole model.

    Misreads: which of two models is the base cannot be known: with a and b swapped, norms are relative to the other and
    `added` reads `removed`. The floor is one other seed, without a spread; with it, a layer that two seeds leave
    equally far apart is `within floor` whatever its raw norm. Models without a common ancestor have cosines near 0
    until they are matched (`wb.match`). In high dimension a cosine of 0.01 can be many `null_sd`, which assumes
    independent elements. Statistics of norm layers, buffers of a module and what the base alone ties have rows and no
    share in `models` and `pairs`; a file does not tell buffers from weights, so that its other buffers count there (a
    note names those that look like some). `reason` there names layers that are missing from a total. Large tensors of
    float32 or less are multiplied in float32 (1e-7 of a norm). CKA near 1 does not mean equal outputs.

    Example:
        >>> import torch
        >>> found = diff({"fc.weight": torch.eye(2)}, {"fc.weight": torch.tensor([[1.0, 1.0], [0.0, -1.0]])})
        >>> row = found.row("fc")
        >>> [round(row[name], 4) for name in ("relative_norm", "cosine", "sign_conflict")], row["verdict"]
        ([1.5811, 0.0, 0.5], 'changed')
    """
    names = checked_detail(detail)
    if density is not None and (
        isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1
    ):
        raise ArgumentError(f"density={density!r}: expected a share kept in (0, 1], or None for no trimmed conflicts.")
    if not isinstance(directions, int) or isinstance(directions, bool) or directions < 1:
        raise ArgumentError(f"directions={directions!r}: expected a whole number, at least 1.")
    network = check_similarity(module, data, a)
    place = resolved_device(device)
    base = load(a)
    models, second = labelled(b, floor)
    compared = Compared(
        base=base,
        models=[paired(base, label, weights) for label, weights in models],
        floor=None if second is None else paired(base, "floor", second),
        detail=names,
        density=density,
        directions=directions,
        device=place,
    )
    parameters = {"detail": [name for name in KNOWN if name in names], "density": density, "directions": directions}
    run = partial(
        layer_run,
        base,
        layers,
        lambda view, tensor: layer_changes(compared, view, tensor),
        lambda run: _diff(run, compared),
        function="wb.diff",
        parameters=parameters,
        device=place,
        progress=progress,
        unread=lambda view, info: unread(compared, view, info),
        held=1 + len(models) + (second is not None),
    )
    if network is None or data is None:
        return run()
    try:
        result = run()
    except Cancelled as stop:  # in its last call too: the activations are missing then
        done = len(stop.partial.tables["layers"]["layer"])
        stop.partial = replace(stop.partial, meta={"cancelled": {"done": done, "total": done}, **stop.partial.meta})
        raise
    chosen = None if layers is None else result.tables["layers"]["layer"]
    try:
        rows = activation_similarity(network, data, base, models, chosen, place, progress)
    except Cancelled as stop:
        stop.partial = _with_activations(result, *stop.partial)
        raise
    return _with_activations(result, rows, {})


def checked_detail(detail: str | Sequence[str]) -> frozenset[str]:
    """The names of the tables to add.

    Raises:
        ArgumentError: one of them is unknown.
    """
    if "activations" in ([detail] if isinstance(detail, str) or not isinstance(detail, Sequence) else detail):
        raise ArgumentError("activations need data: pass data=batches, and module= where `a` is no nn.Module.")
    return frozenset(known_names("detail", detail, KNOWN)) | {"elements"}


def _with_activations(result: Diff, rows: Sequence[Mapping[str, Any]], cut: Mapping[str, int]) -> Diff:
    tables = {**result.tables, "activations": Diff.columns("activations", rows)}
    return replace(result, tables=tables, meta={**result.meta, **({"cancelled": cut} if cut else {})})


def _diff(run: Run, compared: Compared) -> Diff:
    entries = [outcome.value for outcome in run.outcomes if outcome.value is not None]
    sums = [entry.values["sums"] for entry in entries if "sums" in entry.values]
    counted = {one.unit.layer for one in run.outcomes if _in_totals(compared.base.infos[one.unit.tensor])}
    rows: dict[str, list[Any]] = {
        "layers": list(run.rows("layers", lambda view, reason: layer_row(view, "failed", reason))),
        "values": [
            row
            for outcome in run.outcomes
            for row in (
                outcome.value.values["rows"]["values"]
                if outcome.value is not None
                else [number_row(outcome.unit.layer, label, "failed", "") for label in compared.labels]
            )
        ],
        "pairs": [],
        "layer_pairs": list(run.rows("layer_pairs")),
        "manifest": [],
        "models": [],
    }
    rows |= {name: list(run.rows(name)) for name in DETAILS if name in compared.detail}
    missing = gone([row for row in rows["values"] if row["layer"] in counted], compared.labels)
    rows["pairs"] = pooled_pairs(sums, compared.labels, missing)
    totals = pooled_models(sums, compared.labels, missing, floor=compared.floor is not None)
    prints = _fingerprints(run, compared)
    own = run.meta["fingerprints"]
    for model, pooled in zip(compared.models, totals, strict=True):
        theirs = prints[model.label]
        content = {name: theirs[name] == mine for name, mine in own.items() if name in theirs}
        manifest = list(manifest_rows(compared.base, model, content))
        rows["manifest"] += manifest
        rows["models"].append(_model_row(model, manifest, content) | pooled)
    names = ("lorenz", "singular_before", "singular_after", "singular_change")
    return Diff(
        tables={name: Diff.columns(name, inside) for name, inside in rows.items()},
        meta=run.meta | _about(compared, prints),
        **{name: run.tensors(name) for name in names},
    )


def _fingerprints(run: Run, compared: Compared) -> dict[str, dict[str, str]]:
    """Label → tensor of the base → content fingerprint of the model's."""
    found: dict[str, dict[str, str]] = {label: {} for label in compared.labels}
    for outcome in run.outcomes:
        if outcome.value is not None:
            for label, fingerprint in outcome.value.values.get("others", {}).items():
                found[label][outcome.unit.tensor] = fingerprint
    return found


def _model_row(model: Paired, manifest: Sequence[Mapping[str, Any]], content: Mapping[str, bool]) -> dict[str, Any]:
    changes = [row["change"] for row in manifest]
    return {
        "label": model.label,
        "source": short_source(model.weights.source),
        "fingerprint": model.weights.fingerprint,
        "tensors": len(model.weights),
        "compared": len(content),
        "identical": sum(content.values()),
        **{word: changes.count(word) for word in CHANGES},
    }


def _in_totals(info: TensorInfo) -> bool:
    """Whether a tensor of the base is one of the weights that totals are of."""
    return numbers(info) == "real" and not (info.tied_to or info.buffer or is_statistic(info.name))


def _buffer_notes(base: Weights) -> Iterator[str]:
    """Which buffers are in no total; and which a file has that a module would call buffers, but count."""
    real = [info for info in base.infos.values() if numbers(info) == "real" and not info.tied_to]
    if out := [info.name for info in real if not _in_totals(info)]:
        yield f"in no total, as buffers or statistics of norm layers: {_some(out)}"
    if inside := [info.name for info in real if _in_totals(info) and looks_like_buffer(info)]:
        yield f"in the totals, though by their names buffers, which a module's totals leave out: {_some(inside)}"


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:EXAMPLES])}{f' and {len(names) - EXAMPLES} more' if names[EXAMPLES:] else ''}"


def _about(compared: Compared, prints: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Where the models come from, and what is to be said of them."""
    notes = list(compared.base.notes)
    for model in compared.models:
        if difference := first_difference(compared.base, model):
            notes.append(f"{model.label} is built otherwise than the base; the first difference: {difference}")
    notes += _buffer_notes(compared.base)
    about: dict[str, Any] = {
        "sources": {model.label: model.weights.source for model in compared.models},
        "other_fingerprints": {label: dict(found) for label, found in prints.items()},
        "notes": notes,
    }
    if compared.floor is not None:
        about["floor"] = {
            "source": compared.floor.weights.source,
            "fingerprint": compared.floor.weights.fingerprint,
        }
    return about
