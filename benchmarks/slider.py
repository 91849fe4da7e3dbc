"""A slider of `wb.ui.SignatureExplorer` on the shipped family: from its move to the patched network's accuracy."""

import statistics
import sys
import time
from pathlib import Path

from rows import Bound, Measurement, Row

DATA = Path(__file__).parents[1] / "data"
MOVES = 15


def accuracy_after_a_move() -> Measurement:
    """All eight corruptions' signatures in a network, one of whose sliders moves; evaluated on the digits it is for."""
    import workbench as wb

    sys.path.insert(0, str(DATA))
    from architectures import SmallCNN
    from corruptions import CORRUPTIONS
    from splits import corrupted

    def checkpoint(name: str) -> str:
        return str(DATA / "checkpoints" / f"digits-corruptions-{name}-seed0.safetensors")

    test = corrupted("gauss_noise")
    evaluator = wb.evaluator(SmallCNN().eval(), [(test.test_x, test.test_y)], "cross_entropy", device="cpu")
    models = {name: checkpoint(name) for name in CORRUPTIONS}
    known = {"clean": checkpoint("clean"), "evaluator": evaluator}
    explorer = wb.ui.SignatureExplorer(
        checkpoint("ancestor"), models, **known, view="patch", batch_norm="untouched", scale=0.1
    )
    explorer.run()
    explorer.wait()
    view, seen, seconds, whole = explorer.views["patch"], list[float](), list[float](), list[float]()
    view.told.observe(lambda line: seen.append(time.perf_counter()) if "accuracy" in line.new else None, "value")
    for move in range(MOVES):
        seen.clear()
        begin = time.perf_counter()
        view.scales.children[0].value = 0.15 + 0.05 * move
        explorer.wait()
        seconds.append(seen[0] - begin)
        whole.append(time.perf_counter() - begin)
    images = len(test.test_y)
    explorer.close()
    note = (
        f"{MOVES} moves, {len(models)} signatures, {images} images; figures and the network without them again after "
    )
    note += f"{1000 * statistics.median(whole):.0f} ms"
    return Measurement(ours=tuple(1000 * one for one in seconds), unit="ms", note=note)


ROWS = [Row("slider-accuracy", Bound(judged="ours", at_most=200), accuracy_after_a_move)]
