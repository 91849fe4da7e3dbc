"""Cosines of signatures, nearest neighbours by type, and their map."""

import math
from pathlib import Path

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
    rows = {"a": slice(0, 2), "b.bias": slice(2, 3), None: slice(0, 3)}
    whole = np.array([[1, 0, 0], [2, 0.5, 0], [0, 1, 0], [0, 3, 1]], float)
    for layer, part in rows.items():
        own = whole[:, part]
        with np.errstate(invalid="ignore"):
            expected = own @ own.T / np.outer(*[np.linalg.norm(own, axis=1)] * 2)
        np.testing.assert_allclose(found.matrix(layer).to_numpy(), expected, atol=1e-12)
    inside = found.frame("layer_pairs")
    assert inside.groupby("layer")["elements"].first().to_dict() == {"a": 2, "b.bias": 1}
    assert set(found.frame("pairs")["elements"]) == {3} and set(found.frame("pairs")["verdict"]) == {"compared"}
    zero = inside.query("layer == 'b.bias' and one == 'x1' and other == 'y2'").iloc[0]
    assert (zero["verdict"], zero["reason"]) == ("zero", "x1 is zero")
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
    assert set(found.frame("layer_pairs")["layer"]) == {"a"} and found.matrix().loc["x1", "minus"] == -1
    with pytest.raises(wb.LayerNotFoundError, match="matches 'c'"):
        wb.similarity(FOUR, layers="c")
    with pytest.raises(wb.LayerNotFoundError, match="has no layer 'c'"):
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
    assert set(partial.frame("layer_pairs")["layer"]) == {"a"} and "CANCELLED" in partial.facts()
    assert partial.frame("layers")["verdict"].tolist() == ["compared", "not read"]


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
        expected = found.matrix(layer).loc[names, names].to_numpy()
        np.testing.assert_array_equal(np.array(heat.values), expected)
    assert "4 of 4 nearest" in figure.title
    assert figure.save(tmp_path / "map.pdf").stat().st_size > 1000 and figure.to_plotly().data
    with pytest.raises(wb.LayerNotFoundError, match="has no layer 'c'"):
        wb.figure(found, layer="c")
    other = wb.figure(wb.similarity(mixed, {"x1": FOUR["x2"]}))
    assert np.array(other.panels[0].marks[0].values).shape == (4, 1)  # type: ignore[union-attr]


def test_it_is_saved_and_opened(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = wb.similarity(FOUR, types=TYPES)
    again = wb.open_result(found.save(tmp_path / "s"))
    assert again.frame("pairs").equals(found.frame("pairs")) and again.facts() == found.facts()


def test_a_layer_called_all_is_a_layer() -> None:
    models = {label: {"all.weight": one["a.weight"], "b.bias": one["b.bias"]} for label, one in FOUR.items()}
    found, plain = wb.similarity(models), wb.similarity(FOUR)
    assert found.matrix("all").equals(plain.matrix("a")) and found.matrix().equals(plain.matrix())
    assert wb.figure(found, layer="all").panels[0].title == "all"
    assert found.frame()["cosine"].equals(plain.frame()["cosine"])


def test_what_is_not_finite_is_left_out_of_its_pairs_and_named() -> None:
    broken = {"a.weight": FOUR["x1"]["a.weight"], "b.bias": torch.tensor([torch.nan])}
    found = wb.similarity({**FOUR, "n": broken}, types=TYPES | {"n": "x"})
    assert found.matrix().loc[list(FOUR), list(FOUR)].equals(wb.similarity(FOUR).matrix())
    pairs = found.frame("pairs").set_index(["one", "other"])
    row = pairs.loc["n", "x2"]
    assert (row["elements"], row["verdict"]) == (2, "in part")
    assert row["reason"] == "without b.bias: 1 of 1 elements NaN in signature 'n'"
    assert row["cosine"] == pytest.approx(2 / 4.25**0.5, rel=1e-12)  # over a alone
    inside = found.frame("layer_pairs").query("layer == 'b.bias' and one == 'n'")
    assert set(inside["verdict"]) == {"not finite"} and inside["cosine"].isna().all()
    assert found.frame("layers")["verdict"].tolist() == ["compared", "not finite"]
    assert found.frame().set_index("signature").loc["n", "nearest"] == "x1" and not math.isnan(found.within)
    alone = wb.similarity({**FOUR, "n": broken}, layers="b.bias", types=TYPES | {"n": "x"})
    last = alone.frame().iloc[-1]
    assert (last["nearest"], last["verdict"]) == ("", "not judged")
    assert last["reason"] == "no cosine with any other; b.bias: 1 of 1 elements NaN in signature 'n'"
    huge = wb.similarity({"x": {"w": torch.tensor([1e200], dtype=torch.float64)}, "y": {"w": torch.ones(1).double()}})
    assert huge.frame("pairs")["reason"][1] == "w: squares overflow in signature 'x'"


def test_every_tensor_has_a_row_and_a_choice_of_nothing_is_refused() -> None:
    def state(value: float) -> State:
        shared = torch.full((2, 2), value)
        statistics = {"1.running_mean": torch.ones(2), "1.num_batches_tracked": torch.tensor(3)}
        return {"0.weight": shared, "2.weight": shared, "3.bias": torch.ones(2), "e.weight": torch.ones(0)} | statistics

    found = wb.similarity({"a": state(1.0), "b": state(2.0)})
    rows = found.frame("layers").set_index("layer")
    assert rows["verdict"].to_dict() == {
        "0": "compared",
        "2.weight": "tied",
        "3.bias": "compared",
        "e.weight": "empty",
        "1.running_mean": "no weights",
        "1.num_batches_tracked": "no weights",
    }
    assert set(found.frame("pairs")["elements"]) == {6}
    for layers in ("1.running_mean", ["1.*"], "e.weight"):
        with pytest.raises(
            wb.LayerNotFoundError, match=r"no weights to compare \((1\.running_mean: a running|e\.weight: no el)"
        ):
            wb.similarity({"a": state(1.0), "b": state(2.0)}, layers=layers)
    with pytest.raises(wb.LayerNotFoundError, match=r"'1\.running_mean' was not compared: a running statistic"):
        found.matrix("1.running_mean")


def test_a_tie_of_the_first_alone_hides_no_weights() -> None:
    shared = torch.ones(2, 2)
    one = {"a.weight": shared, "b.weight": shared}
    other = {"a.weight": torch.ones(2, 2), "b.weight": -torch.ones(2, 2)}
    found = wb.similarity({"one": one, "other": other})
    assert found.matrix("b.weight").loc["one", "other"] == -1 and found.matrix().loc["one", "other"] == 0


def test_a_file_of_a_signature_is_a_signature(tmp_path: Path) -> None:
    """Its running statistics are no weights that others lack; packed or not."""
    statistics = {"bn.running_mean": torch.ones(2), "bn.num_batches_tracked": torch.tensor(3)}
    states = [{"w": torch.eye(2) + step * torch.tensor([[1.0, 2.0], [0.0, step]]), **statistics} for step in range(3)]
    found = wb.signature(ancestor=states[0], clean=states[1], robust=states[2])
    for bits in (None, 8):
        path = found.save(tmp_path / "s.safetensors", bits=bits)
        for one in (path, str(path)):
            assert wb.similarity({"a": found, "b": one}).matrix().loc["a", "b"] == pytest.approx(1, abs=1e-3)


def test_a_figure_without_types_says_what_it_shows() -> None:
    assert wb.figure(wb.similarity(FOUR)).title == "Cosines of 4 signatures"
    assert wb.figure(wb.similarity(FOUR, FOUR)).title.startswith("4 of 4 nearest are of the same type")
