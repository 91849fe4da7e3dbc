"""The rows of the audit, from what a sweep has counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.degeneracy.linear_block import LinearBlock, linear_block
from workbench.degeneracy.numerical_rank import NumericalRank, covariance_rank, second_moment_rank
from workbench.degeneracy.sweep import Sweep
from workbench.degeneracy.synchronised import CoFiring, Gate, free_directions
from workbench.degeneracy.weight_blocks import WeightBlock
from workbench.results import many
from workbench.runtime.chain import Batch, Chain, Cut

NAN = math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What was looked at and what was counted; made once a run, read as often as asked.

    Attributes:
        chain: the module over data.
        sweep: the counts.
        blocks: the weight blocks, in order.
        gates: ReLUs by layer.
        threshold: the caller's, or None.
    """

    chain: Chain
    sweep: Sweep
    blocks: Sequence[WeightBlock]
    gates: Mapping[str, Gate]
    threshold: float | None

    def block_rows(self) -> list[dict[str, Any]]:
        """A row per submodule with parameters."""
        return [self._block_row(block) for block in self.blocks]

    def _block_row(self, block: WeightBlock) -> dict[str, Any]:
        row: dict[str, Any] = {
            "layer": block.layer,
            "depth": block.depth,
            "verdict": "not analysed",
            "reason": block.reason,
            "reads": block.reads,
            "params": block.params,
            "fan_in": block.fan_in,
            "fan_out": block.fan_out,
            "groups": block.groups,
            **dict.fromkeys(NUMBERS, NAN),
        }
        if not block.groups or block.owner != block.path:
            return row
        if not self.sweep.batches:
            return row | {"verdict": "not finished", "reason": "no batch was finished"}
        inputs, shares = self._input_ranks(block)
        outputs = self.sweep.outputs[block.path].rank(self.threshold, self.chain.activation_dtype)
        if self._unknown or math.isnan(math.fsum(shares)):
            outputs = [_none_of(one) for one in outputs]
        ranks = [a * b.rank for a, b in zip(shares, outputs, strict=True)]
        r, p = math.fsum(ranks), block.params
        row |= {
            "input_rank": math.fsum(shares),
            "gradient_rank": math.fsum(one.rank for one in outputs),
            "hessian_rank": r,
            "input_floor": max(one.floor for one in inputs),
            "gradient_floor": max(one.floor for one in outputs),
        }
        if math.isnan(r):
            gradients = self._unknown or "the gradients at its output are"
            what = "its inputs are" if math.isnan(row["input_rank"]) else gradients
            return row | {"verdict": "not finite", "reason": f"{what} NaN or infinite on some datapoint"}
        elements = block.groups * (block.fan_in + block.bias) * block.fan_out
        row |= {"lambda_low": r / 2, "lambda_high": r / 2 + (p - r) / 4, "effective_low": r}
        row |= {"effective_high": r + (p - r) / 2, "verdict": "full rank" if r >= elements else "degenerate"}
        told = f"rank at most {r:.0f} of {elements}"
        return row | {"reason": f"{told}; {block.reason}" if block.reason else told}

    @property
    def _unknown(self) -> str:
        """Why no gradient of the module's output is of all datapoints; empty where it may be."""
        end = self.sweep.activations[self.chain.cuts[-1].layer]
        return "" if bool(torch.isfinite(end.gram).all()) else "the module's output is"

    def _input_ranks(self, block: WeightBlock) -> tuple[list[NumericalRank], list[float]]:
        """Ranks of the inputs, a group each, and with them the constant 1 that a bias reads.

        That of [x, 1] is one more than that of the covariance: no scale of x decides about it.
        """
        kind = self.chain.activation_dtype
        tied = any(one.owner == block.path and one is not block for one in self.blocks)  # their inputs meet no such 1
        counted = covariance_rank if block.bias and not tied else second_moment_rank
        found = [counted(moments, self.threshold, kind) for moments in self.sweep.inputs[block.path]]
        return found, [one.rank + block.bias for one in found]

    def layer_rows(
        self, blocks: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Tensor], dict[str, Tensor]]:
        """A row per layer, and the eigenvalues of G and M′ by layer."""
        rows, activations, gradients = [], {}, {}
        for cut in self.chain.cuts:
            reading = [row["hessian_rank"] for row in blocks if row["reads"] == cut.layer and row["groups"]]
            row = {
                "layer": cut.layer,
                "depth": self._depth(cut),
                "width": cut.width,
                "positions": cut.positions,
                "samples": self.sweep.activations[cut.layer].count,
                "hessian_rank": math.fsum(reading) if reading else NAN,
            }
            if self.sweep.batches:
                found, g, m = self._layer_row(cut)
                activations[cut.layer], gradients[cut.layer] = g, m
            else:
                found = dict.fromkeys(RANKS, NAN) | {"estimator": "", "relu": "", "verdict": "not finished"}
                found["reason"] = "no batch was finished"
            rows.append(row | found)
        return rows, activations, gradients

    def _depth(self, cut: Cut) -> int:
        """Matrices that ran before the layer; one whose output it is does not count."""
        own = [block.depth for block in self.blocks if block.path == cut.path and block.groups]
        before = self.chain.layers[: self.chain.layers.index(cut.layer)]
        return own[0] if own else sum(bool(one.groups) and one.reads in ("input", *before) for one in self.blocks)

    def _layer_row(self, cut: Cut) -> tuple[dict[str, Any], Tensor, Tensor]:
        kind, moments = self.chain.activation_dtype, self.sweep.activations[cut.layer]
        g = second_moment_rank(moments, self.threshold, kind)
        centred = covariance_rank(moments, self.threshold, kind)
        gradient = self.sweep.gradients[cut.layer]
        (m,) = gradient.rank(self.threshold, kind)
        firing = self.sweep.firing.get(cut.layer)
        finite = not math.isnan(g.rank)
        if self._unknown or not finite:
            m = _none_of(m)
        draws = gradient.count * gradient.probes if gradient.probes else cut.width
        verdict, reason = _verdict(cut, moments.count, (g, centred, m), draws, firing, self._unknown)
        row = {
            "activation_rank": g.rank,
            "centred_rank": centred.rank,
            "gradient_rank": m.rank,
            "synchronised": float(firing.pairs) if firing and finite else NAN,
            "dead": float(firing.dead) if firing and finite else NAN,
            "relu": self.gates[cut.layer].role if firing else "none",
            "activation_floor": g.floor,
            "gradient_floor": m.floor,
            "estimator": "Hutchinson" if gradient.probes else "exact",
            "gradient_error": NAN if math.isnan(m.rank) else gradient.error,
            "verdict": verdict,
            "reason": reason,
        }
        return row, g.eigenvalues, m.eigenvalues

    def cluster_rows(self, batch: Batch) -> list[dict[str, Any]]:
        """A row per cluster of units that fire on the same datapoints."""
        rows = []
        for place, cut in enumerate(self.chain.cuts):
            firing = self.sweep.firing.get(cut.layer)
            moments = self.sweep.activations[cut.layer]
            if not firing or not firing.count or not bool(torch.isfinite(moments.gram).all()):
                continue
            clusters = firing.clusters()
            around = linear_block(self.chain, batch, place, self.gates[cut.layer], self.blocks) if clusters else None
            for number, cluster in enumerate(clusters):
                size = len(cluster.units)
                rows.append(
                    {
                        "layer": cut.layer,
                        "cluster": number,
                        "units": " ".join(map(str, cluster.units)),
                        "size": size,
                        "kind": "always" if cluster.always else "synchronised",
                        "free_directions": _free(size, cluster.always, around),
                        "reason": around.reason if around else "",
                    }
                )
        return rows


NUMBERS = (
    *("input_rank", "gradient_rank", "hessian_rank", "lambda_low", "lambda_high"),
    *("effective_low", "effective_high", "input_floor", "gradient_floor"),
)
RANKS = (
    *("activation_rank", "centred_rank", "gradient_rank", "synchronised", "dead"),
    *("activation_floor", "gradient_floor", "gradient_error"),
)


def _none_of(found: NumericalRank) -> NumericalRank:
    """What is left of a rank where what it was counted from is none of all datapoints: NaN, like the rest."""
    return NumericalRank(eigenvalues=torch.full_like(found.eigenvalues, NAN), floor=NAN, rank=NAN)


def _free(size: int, always: bool, around: LinearBlock | None) -> float:
    if around is None or around.reason:
        return NAN
    return float(free_directions(size, around.fan_in, around.fan_out, shifts=always and around.shifts))


def _verdict(
    cut: Cut,
    count: int,
    ranks: tuple[NumericalRank, NumericalRank, NumericalRank],
    draws: int,
    firing: CoFiring | None,
    unknown: str,
) -> tuple[str, str]:
    """What may be concluded about a layer of `count` datapoints from the ranks of G, covariance and M′, and why."""
    g, centred, m = ranks
    if math.isnan(g.rank) or math.isnan(m.rank):
        what = "its activations are" if math.isnan(g.rank) else unknown or "its gradients are"
        return "not finite", f"{what} NaN or infinite on some datapoint"
    if firing and firing.dead == cut.width:
        return "dead", f"no unit fires on any of {count} datapoints"
    if count > 1 and centred.rank == 0:
        return "constant", f"its output is the same on all {count} datapoints"
    if count < cut.width:
        return "undersampled", f"{count} datapoints of {cut.width} features: no rank can be more; give more data"
    if draws < cut.width:
        return "undersampled", f"{draws} random gradients of {cut.width} features; give more data or probes"
    facts = [f"{name} rank {rank:.0f} of {cut.width}" for name, rank in (("activation", g.rank), ("gradient", m.rank))]
    if firing and (firing.dead or firing.pairs):
        facts.append(f"{many(firing.dead, 'dead unit')}, {many(firing.pairs, 'synchronised pair')}")
    full = min(g.rank, m.rank) == cut.width and len(facts) == 2
    return "full rank" if full else "degenerate", "; ".join(facts)
