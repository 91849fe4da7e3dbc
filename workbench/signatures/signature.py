"""Robust weight signatures: what tuning to corrupted data adds, beside what tuning to clean data adds anyway."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError
from workbench.layers import Selection
from workbench.linalg.pieces import flat_pieces
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.results import many, short_source, versions
from workbench.signatures.chosen import chosen
from workbench.signatures.common_ancestor import (
    arithmetic,
    check_common,
    common_tie,
    is_statistic,
    without_lost_ties,
)
from workbench.signatures.patched import BatchNorm, Patched, patched, restored
from workbench.signatures.stored_signature import fewest_bits, opened, written
from workbench.weights import ModelLike, Weights, content_fingerprint, load

if TYPE_CHECKING:
    import pandas

NUMBERS = ("norm", "robust_norm", "clean_norm", "projection")


class Signature(Mapping[str, Tensor]):
    """A robust weight signature: tensor name → RWS; made by `wb.signature`, `Signature.mean` and `Signature.load`.

    Anything that takes a model takes a signature too: `wb.spectrum(signature)`, `wb.contents(signature)`.

    Attributes:
        weights: the tensors.
        statistics: the running statistics of the robust network, for batch_norm="copied".
        numbers: tensor → its numbers, as in `frame`.
        meta: sources, fingerprints, notes, versions, and `bits`, the fewest that it or a part of it was stored in.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        statistics: Mapping[str, Tensor],
        numbers: Mapping[str, Mapping[str, float]],
        meta: Mapping[str, Any],
    ) -> None:
        self.weights, self.statistics = weights, MappingProxyType(dict(statistics))
        self.numbers, self.meta = MappingProxyType(numbers), MappingProxyType(dict(meta))

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def fingerprint(self) -> str:
        """A 128-bit fingerprint of names and contents; a signature in few bits has another than the exact one."""
        infos = self.weights.infos.values()
        rows = [f"{one.name} {content_fingerprint(self.weights.borrowed(one.name))}" for one in infos]
        return hashlib.blake2b("\n".join(sorted(rows)).encode(), digest_size=16).hexdigest()

    def frame(self) -> pandas.DataFrame:
        """A row per tensor: elements, `norm` ‖RWS‖, `robust_norm` ‖t‖, `clean_norm` ‖c‖, `projection` ⟨c,t⟩/⟨c,c⟩.

        NaN is what does not exist: a projection where c = 0, all but the norm of a mean.
        """
        import pandas

        infos = self.weights.infos.values()
        rows = [{"tensor": one.name, "elements": one.elements, **self.numbers[one.name]} for one in infos]
        return pandas.DataFrame(rows, columns=["tensor", "elements", *NUMBERS])

    def only(self, layers: Selection) -> Signature:
        """The signature of some layers alone, as it is then applied, stored and compared.

        Args:
            layers: names or globs of modules (all tensors of `conv1`), layer ids or tensors, or a predicate.

        Raises:
            LayerNotFoundError: one matches nothing.
        """
        names = chosen(self.weights, layers)
        return Signature(
            self.weights.only(names),
            statistics=self.statistics,
            numbers={name: self.numbers[name] for name in names},
            meta=self.meta,
        )

    def apply(
        self,
        model: ModelLike,
        *,
        scale: float = 1.0,
        layers: Selection = None,
        batch_norm: BatchNorm | None = None,
        data: Iterable[Any] | None = None,
        module: nn.Module | None = None,
        device: str = "auto",
        progress: ProgressCallback | None = None,
    ) -> Patched:
        """θ + α·RWS, added in float64 and rounded once to the dtype of θ.

        Args:
            model: anything `wb.load` takes, as a rule the clean network.
            scale: α; 0 leaves every weight as it is, bit by bit, and is the control of a batch-norm policy: what the
                policy does without the signature.
            layers: names or globs of modules (all tensors of `conv1`), layer ids or tensors, or a predicate; None for
                all.
            batch_norm: what becomes of running statistics, which are no arithmetic: "untouched", "copied" from the
                robust network, or "re-estimated" on `data` with the signature on. None where there are none.
            data: batches for "re-estimated", as `wb.evaluator` takes them; their targets are not used.
            module: the network that "re-estimated" runs, where `model` is a checkpoint.
            device: where it runs: "auto" takes CUDA when there is one.
            progress: called before each batch of "re-estimated" with a Progress, and once at the end; it may raise
                `wb.Cancelled`.

        Returns:
            Patched: Weights under the model's own names, added up as they are read; `.original` is the model as it
            was, and `.save_undo(path)` writes what takes the signature off in another session.

        Raises:
            ArgumentError: the model is of another architecture (the first difference is named), or the policy is
                missing or lacks what it needs; on reading, that a sum overflows the dtype.
            LayerNotFoundError: layers match nothing.
            EvaluationError: a batch failed.
            Cancelled: the callback asked for it; there is no partial network before the end.

        Cost: once, a pass over the signature's bytes for its fingerprint; then nothing until a tensor is read. A model
        in memory is copied first. "re-estimated": a pass over the data.

        Misreads: what re-estimation alone gains is no gain of the signature: compare with scale=0.
        """
        return patched(
            self.weights,
            self.statistics,
            model,
            fingerprint=self.fingerprint,
            scale=scale,
            layers=layers,
            batch_norm=batch_norm,
            data=data,
            module=module,
            device=device,
            progress=progress,
        )

    @staticmethod
    def remove(weights: ModelLike, undo: ModelLike | None = None) -> Weights:
        """The network before a signature was applied, to the last bit.

        Args:
            weights: what `apply` returned, or a checkpoint of it with `undo`.
            undo: the file that `save_undo` wrote; None in the session of `apply`.

        Raises:
            ArgumentError: there is no undo, or a tensor is not as the signature left it (fingerprints are compared).
            CheckpointError: the file is none that `save_undo` wrote, or is damaged.

        Cost: with `undo` a pass over the bytes.
        """
        return restored(weights, undo)

    @staticmethod
    def mean(signatures: Iterable[Signature]) -> Signature:
        """(1/K)·Σ RWS_k: one signature for several corruptions; α is applied once, by `apply`.

        Raises:
            ArgumentError: there is none, or they are of different architectures.

        Source: the RWS paper's composition. Its code applies α to every signature and to the sum, (α/K)² in all; this
        does not.
        """
        signatures = list(signatures) if isinstance(signatures, Iterable) else []
        if not signatures or not all(isinstance(one, Signature) for one in signatures):
            raise ArgumentError("expected a list of at least one Signature.")
        models = [one.weights for one in signatures]
        check_common({f"signature {number}": one for number, one in enumerate(models)})
        tensors: dict[str, Tensor] = {}
        for info in models[0].infos.values():
            if (tied := common_tie(info.name, models)) is not None:
                tensors[info.name] = tensors[tied]
                continue
            total = torch.zeros(info.shape, dtype=torch.float64)
            for one in models:
                total += one.borrowed(info.name)
            tensors[info.name] = (total / len(models)).to(info.dtype)
        ancestors = {one.meta["fingerprints"].get("ancestor", "") for one in signatures}
        notes = ["their ancestors differ, and so do the meanings of their coordinates"] if len(ancestors) > 1 else []
        meta = {
            "sources": {f"signature {number}": one.source for number, one in enumerate(models)},
            "fingerprints": {"ancestor": ancestors.pop()} if len(ancestors) == 1 else {},
            "notes": notes,
            "versions": versions(),
            "bits": fewest_bits(*(one.meta.get("bits") for one in signatures)),
        }
        numbers = {
            name: dict.fromkeys(NUMBERS, float("nan")) | {"norm": float(tensor.double().norm())}
            for name, tensor in tensors.items()
        }
        weights = load(tensors).told_as(f"the mean of {len(models)} signatures", ordered=models[0].ordered)
        return Signature(weights, statistics={}, numbers=numbers, meta=meta)

    def save(
        self, path: str | os.PathLike[str], *, bits: int | None = None, progress: ProgressCallback | None = None
    ) -> Path:
        """Writes the signature as one safetensors file, exactly or in `bits` bits an element.

        Args:
            path: a file that ends in `.safetensors`; what stood there is replaced whole or kept.
            bits: 2 to 8: ⌈n·bits/8⌉ + 8 bytes a tensor, an error of (hi − lo)/(2·(2^bits − 1)) at most. None: exact.
            progress: called before each tensor with a Progress, and once at the end; it may raise `wb.Cancelled`, and
                what stood at the path stays.

        Returns:
            The path.

        Raises:
            ArgumentError: another ending or number of bits, or values that float32 does not hold.
            OSError: the disk is full or refuses; nothing is left behind.
            Cancelled: the callback asked for it; nothing is left behind.

        Cost: a pass over the bytes. Beside the tensors the file has a header: some 2 kB, and 300 bytes a tensor; and
        running statistics, exactly, where the robust network has them.

        Source: the RWS paper, table of storage; its code rounds but stores floats, and its "bits" are levels.

        Misreads: zero is no code: a sparse signature is no longer sparse after packing.
        """
        return written(self.weights, self.statistics, self.numbers, self.meta, Path(path), bits, progress)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Signature:
        """Opens a file of `Signature.save`; tensors are read, and unpacked, when they are asked for.

        Raises:
            CheckpointNotFoundError: nothing is there.
            CheckpointError: it is no signature, or damaged.
        """
        weights, statistics, numbers, meta = opened(Path(path))
        return Signature(weights, statistics=statistics, numbers=numbers, meta=meta)

    def __repr__(self) -> str:
        norm = (
            sum(self.numbers[name]["norm"] ** 2 for name, one in self.weights.infos.items() if not one.tied_to) ** 0.5
        )
        bits = f", from {self.meta['bits']} bits" if self.meta.get("bits") else ""
        size = f"{many(len(self), 'tensor')}, {many(self.weights.elements, 'element')}{bits}"
        lines = [
            f"{self.weights.source[0].upper()}{self.weights.source[1:]}: {size}, norm {norm:.4g}",
            *(f"note: {note}" for note in self.meta["notes"]),
            "next: .apply(model, scale=1.0), .frame(), .save(path, bits=4), wb.similarity({'a': …, 'b': …})",
        ]
        return "\n".join(lines)


def signature(
    *, ancestor: ModelLike, clean: ModelLike, robust: ModelLike, progress: ProgressCallback | None = None
) -> Signature:
    """RWS = t − c·⟨c,t⟩/⟨c,c⟩ of every tensor, with c = θ_clean − θ_ancestor and t = θ_robust − θ_ancestor.

    Args:
        ancestor: the checkpoint that both go on from; anything `wb.load` takes.
        clean: tuned from it on clean data.
        robust: tuned from it on corrupted data.
        progress: called before each tensor with a Progress, and once at the end; it may raise `wb.Cancelled`.

    Returns:
        A Signature: tensor name → RWS in float32 (float64 where a checkpoint is), t itself where c = 0. Running
        statistics are not among them (`.statistics` has those of the robust network), nor tensors of whole numbers,
        second names of tied tensors that a checkpoint does not store, and masks of −∞ that all three have alike.

    Raises:
        ArgumentError: the checkpoints are of different architectures (the first difference is named), or a tensor is
            complex, 8-bit, not dense or not finite.
        CheckpointError: one cannot be opened.
        Cancelled: the callback asked for it; there is no partial signature before the end.

    Cost: a pass over the bytes of all three; sums in float64; memory for the signature and three tensors.

    Source: Cai et al. 2023, "Robust Weight Signatures: Gaining Robustness as Easy as Patching Weights?" (ICML 2023,
    arXiv 2302.12480), section 3. Ours: c = 0 gives t, where the paper's code gives NaN.

    Misreads: weights do not tell which checkpoint is the ancestor: exchange two and other numbers come without an
    error. A tensor of one element is always 0 unless c is, as nothing is orthogonal to c. Signatures of different
    ancestors have nothing in common, not even of the same corruption.

    Example:
        >>> found = signature(
        ...     ancestor={"fc.weight": torch.tensor([[1.0, 1.0]])},
        ...     clean={"fc.weight": torch.tensor([[2.0, 1.0]])},
        ...     robust={"fc.weight": torch.tensor([[4.0, 3.0]])},
        ... )
        >>> found["fc.weight"].tolist(), found.apply({"fc.weight": torch.zeros(1, 2)}, scale=0.5)["fc.weight"].tolist()
        ([[0.0, 2.0]], [[0.0, 1.0]])
    """
    check_progress(progress)
    report = reporter(progress)
    given = (("ancestor", ancestor), ("clean", clean), ("robust", robust))
    models = without_lost_ties({label: load(one) for label, one in given})
    check_common(models)
    three = list(models.values())
    infos, left_out = arithmetic(models)
    if not infos:
        raise ArgumentError(
            f"{three[0].source} has no tensors of real numbers: there is nothing to take a signature of."
        )
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    unchanged: list[str] = []  # masks of −∞: the same everywhere, and no difference is a number
    rows: dict[str, list[str]] = {label: [] for label in models}
    for done, info in enumerate(infos):
        report(info.name, done, len(infos))
        if (tied := common_tie(info.name, three)) is not None:
            if tied in tensors:
                tensors[info.name], numbers[info.name] = tensors[tied], numbers[tied]
            continue
        own = {label: weights.borrowed(info.name) for label, weights in models.items()}
        prints = {label: content_fingerprint(tensor) for label, tensor in own.items()}
        for label, found in prints.items():
            rows[label].append(f"{info.name} {found}")
        if len({*prints.values()}) == 1 and not bool(own["ancestor"].isfinite().all()):
            unchanged.append(info.name)
            continue
        tensors[info.name], numbers[info.name] = _rws(info.name, own)
    if not tensors:
        raise ArgumentError(f"nothing of {three[0].source} is finite: expected weights.")
    meta = {
        "sources": {label: short_source(weights.source) for label, weights in models.items()},
        "fingerprints": {
            label: hashlib.blake2b("\n".join(sorted(found)).encode(), digest_size=16).hexdigest()
            for label, found in rows.items()
        },
        "notes": _notes(numbers, tensors, left_out, unchanged),
        "versions": versions(),
    }
    whole = Signature(
        load(tensors).told_as(f"signature of {short_source(three[2].source)}", like=three[0], ordered=three[0].ordered),
        statistics={name: three[2][name].cpu() for name in three[2] if is_statistic(name)},
        numbers=numbers,
        meta=meta,
    )
    return told_whole(whole, lambda: report("", len(infos), len(infos)))


def _rws(name: str, given: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The signature of one tensor, and its numbers.

    Raises:
        ArgumentError: an element is NaN or infinite.
    """
    clean_clean = clean_robust = robust_robust = 0.0
    for ancestor, clean, robust in flat_pieces(*given.values()):
        c, t = clean - ancestor, robust - ancestor
        clean_clean += float(c @ c)
        clean_robust += float(c @ t)
        robust_robust += float(t @ t)
    if not math.isfinite(clean_clean + clean_robust + robust_robust):
        label = next((label for label, one in given.items() if not bool(one.isfinite().all())), None)
        if label is None:
            raise ArgumentError(f"{name!r} has elements whose squares overflow float64: expected weights.")
        raise ArgumentError(f"{name!r} is NaN or infinite in {label}: expected finite weights.")
    ratio = _projection(clean_clean, clean_robust)
    wide = any(tensor.dtype == torch.float64 for tensor in given.values())
    first = given["ancestor"]
    found = torch.empty(first.numel(), dtype=torch.float64 if wide else torch.float32)
    start, squares = 0, 0.0
    for ancestor, clean, robust in flat_pieces(*given.values()):
        piece = (robust - ancestor) - (clean - ancestor) * ratio
        squares += float(piece @ piece)
        found[start : start + len(piece)] = piece
        start += len(piece)
    numbers = {
        "norm": squares**0.5,
        "robust_norm": robust_robust**0.5,
        "clean_norm": clean_clean**0.5,
        "projection": ratio if clean_clean else float("nan"),
    }
    return found.reshape(first.shape), numbers


def _projection(clean_clean: float, clean_robust: float) -> float:
    """⟨c,t⟩/⟨c,c⟩; 0 where c = 0."""
    return clean_robust / clean_clean if clean_clean else 0.0


def _notes(
    numbers: Mapping[str, Mapping[str, float]],
    tensors: Mapping[str, Tensor],
    left_out: Sequence[str],
    unchanged: Sequence[str],
) -> list[str]:
    notes = []
    if unchanged:
        notes.append(f"left out, as not finite and the same in all three: {', '.join(unchanged[:5])}")
    for kind, label in (("clean_norm", "clean"), ("robust_norm", "robust")):
        same = [name for name, own in numbers.items() if own[kind] == 0 and tensors[name].numel()]
        if len(same) == len(numbers):
            notes.append(f"{label} is the ancestor in every tensor")
        elif same:
            notes.append(f"{label} is the ancestor in {many(len(same), 'tensor')}: {', '.join(same[:3])}…")
    if not any(own["norm"] for own in numbers.values()) and not any("robust" in note for note in notes):
        notes.append("the signature is zero: robust differs from the ancestor as clean does")
    if left_out:
        notes.append(f"left out, as they are no real numbers: {', '.join(left_out[:5])}")
    return notes
