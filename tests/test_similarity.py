"""Cosines of signatures, nearest neighbours by type, and their map."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench.figures.spec import Heat

State = dict[str, Tensor]


def directions(**rows: tuple[float, ...]) -> dict[str, State]:
    return {
        label: {"a.weight": torch.tensor([row[:2]]), "b.bias": torch.tensor(row[2:])} for label, row in rows.items()
    }


FOUR = directions(x1=(1.0, 0.0, 0.0), x2=(2.0, 0.5, 0.0), y1=(0.0, 1.0, 0.0), y2=(0.0, 3.0, 1.0))
TYPES = {label: label[0] for label in FOUR}


def test_cosines_are_numpy_s_for_every_layer_and_all() -> None:
    found = wb.similarity(FOUR, types=TYPES)
    rows = {"a": slice(0, 2), "b.bias": slice(2, 3), "all": slice(0, 3)}
    whole = np.array([[1, 0, 0], [2, 0.5, 0], [0, 1, 0], [0, 3, 1]], float)
    for layer, part in rows.items():
        own = whole[:, part]
        with np.errstate(invalid="ignore"):
            expected = own @ own.T / np.outer(*[np.linalg.norm(own, axis=1)] * 2)
        np.testing.assert_allclose(found.matrix(layer).to_numpy(), expected, atol=1e-12)
    pairs = found.frame("pairs")
    assert pairs.groupby("layer")["elements"].first().to_dict() == {"a": 2, "b.bias": 1, "all": 3}
    assert list(found.matrix().index) == list(found.matrix().columns) == list(FOUR)


def test_nearest_means_and_verdicts_by_hand() -> None:
    found = wb.similarity(FOUR, types=TYPES)
    rows = found.frame().set_index("signature")
    assert rows["nearest"].to_dict() == {"x1": "x2", "x2": "x1", "y1": "y2", "y2": "y1"}
    assert set(rows["verdict"]) == {"same type"}
    x, y = 2 / 4.25**0.5, 3 / 10**0.5
    assert found.within == pytest.approx((x + y) / 2, rel=1e-12)
    assert found.between == pytest.approx((0 + 0 + 0.5 / 4.25**0.5 + 1.5 / (4.25 * 10) ** 0.5) / 4, rel=1e-12)
    assert "4 of 4 nearest are of the same type; mean cosine" in found.facts()
    alone = wb.similarity(FOUR, types=TYPES | {"y2": "z"}).frame().set_index("signature")
    assert alone["verdict"].to_dict() == {"x1": "same type", "x2": "same type", "y1": "not judged", "y2": "not judged"}
    wrong = wb.similarity(FOUR, types={"x1": "p", "y2": "p", "x2": "q", "y1": "q"})
    assert set(wrong.frame()["verdict"]) == {"other type"}


def test_without_types_nothing_is_judged_and_one_alone_has_no_neighbour() -> None:
    found = wb.similarity(FOUR)
    assert set(found.frame()["verdict"]) == {"not judged"} and "no types to judge by" in found.facts()
    assert math.isnan(found.within) and math.isnan(found.between)
    one = wb.similarity({"x1": FOUR["x1"]}).frame()
    assert one.loc[0, "nearest"] == "" and math.isnan(one.loc[0, "cosine"])


def test_others_are_looked_among_and_a_label_is_its_own_type() -> None:
    others = {"x1": FOUR["x2"], "y1": FOUR["y2"]}
    found = wb.similarity({"x1": FOUR["x1"], "y1": FOUR["y1"]}, others)
    assert found.frame()["nearest"].tolist() == ["x1", "y1"] and set(found.frame()["verdict"]) == {"same type"}
    assert found.within == pytest.approx((2 / 4.25**0.5 + 3 / 10**0.5) / 2, rel=1e-12)
    assert found.between == pytest.approx(0.5 / 4.25**0.5 / 2, rel=1e-12)
    crossed = wb.similarity({"x1": FOUR["y1"], "y1": FOUR["x1"]}, others)
    assert set(crossed.frame()["verdict"]) == {"other type"} and "0 of 2" in crossed.facts()


def test_layers_choose_and_signs_count() -> None:
    found = wb.similarity({**FOUR, "minus": {name: -one for name, one in FOUR["x1"].items()}}, layers="a")
    assert set(found.frame("pairs")["layer"]) == {"all", "a"} and found.matrix().loc["x1", "minus"] == -1
    with pytest.raises(wb.LayerNotFoundError, match="matches 'c'"):
        wb.similarity(FOUR, layers="c")
    with pytest.raises(wb.ArgumentError, match="there is no layer 'c'"):
        found.matrix("c")


def test_signatures_are_taken_as_they_are() -> None:
    zero = {name: torch.zeros_like(one) for name, one in FOUR["x1"].items()}
    taken = {label: wb.signature(ancestor=zero, clean=zero, robust=one) for label, one in FOUR.items()}
    assert wb.similarity(taken).matrix().equals(wb.similarity(FOUR).matrix())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(wb.ArgumentError, match=r"types has no 'y2': .*every label"):
        wb.similarity(FOUR, types={label: "x" for label in ("x1", "x2", "y1")})
    other = {"a.weight": torch.ones(1, 3), "b.bias": torch.ones(1)}
    with pytest.raises(wb.ArgumentError, match=r"'a\.weight' is \[1, 2\] in signature 'x1' and \[1, 3\] in"):
        wb.similarity({**FOUR, "z": other})
    with pytest.raises(wb.ArgumentError, match=r"in other 'x1'"):
        wb.similarity(FOUR, {"x1": other})


def test_a_cancel_has_what_was_done() -> None:
    def stop(progress: wb.Progress) -> None:
        if progress.done == 1:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as caught:
        wb.similarity(FOUR, progress=stop)
    partial = caught.value.partial
    assert set(partial.frame("pairs")["layer"]) == {"all", "a"} and "CANCELLED" in partial.facts()


def test_the_map_has_the_numbers_with_types_side_by_side(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mixed = {label: FOUR[label] for label in ("x1", "y1", "x2", "y2")}
    found = wb.similarity(mixed, types=TYPES)
    for layer, title in ((None, "all tensors"), ("a", "a")):
        figure = wb.figure(found, "cosine", layer=layer)
        (panel,) = figure.panels
        (heat,) = panel.marks
        assert isinstance(heat, Heat) and panel.title == title and heat.limits == (-1.0, 1.0)
        names = [name for _, name in panel.y.ticks]
        assert names == [name for _, name in panel.x.ticks] == ["x1", "x2", "y1", "y2"]
        expected = found.matrix(layer or "all").loc[names, names].to_numpy()
        np.testing.assert_array_equal(np.array(heat.values), expected)
    assert "4 of 4 nearest" in figure.title
    assert figure.save(tmp_path / "map.pdf").stat().st_size > 1000 and figure.to_plotly().data
    with pytest.raises(wb.FigureError, match="has no layer 'c'"):
        wb.figure(found, layer="c")
    other = wb.figure(wb.similarity(mixed, {"x1": FOUR["x2"]}))
    assert np.array(other.panels[0].marks[0].values).shape == (4, 1)  # type: ignore[union-attr]


def test_it_is_saved_and_opened(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = wb.similarity(FOUR, types=TYPES)
    again = wb.open_result(found.save(tmp_path / "s"))
    assert again.frame("pairs").equals(found.frame("pairs")) and again.facts() == found.facts()
