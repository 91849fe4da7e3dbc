"""The checkpoint browser without a screen: the tree, what a click reads, and what the next cell gets."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.results import many
from workbench_widgets.amounts import count_text, size_text
from workbench_widgets.browser import HEAT, HISTOGRAM
from workbench_widgets.tree import tree_nodes

Browser = wb.ui.CheckpointBrowser


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "body.0.weight": torch.randn(20, 10, generator=random),
        "body.0.bias": torch.zeros(20),
        "body.10.weight": torch.randn(6, 3, 3, 3, generator=random),
        "head.weight": torch.randn(4, 20, generator=random),
    }
    tensors["head.weight"][1, 2] = math.nan
    save_file(tensors, tmp_path / "net.safetensors", {"trained": "yes <b>"})
    return str(tmp_path / "net.safetensors")


@pytest.fixture
def browser(checkpoint: str) -> Iterator[wb.ui.CheckpointBrowser]:
    made = Browser(checkpoint)
    yield made
    made.wait(10)
    made.close()


def table_of(browser: wb.ui.CheckpointBrowser) -> pd.DataFrame:
    return browser.rows._table.df


def test_the_tree_holds_every_tensor_once_and_its_sizes_add_up() -> None:
    net = torch.nn.ModuleDict({"attention": torch.nn.MultiheadAttention(8, 2), "head": torch.nn.Linear(8, 9)})
    net["embed"] = torch.nn.Embedding(9, 8)
    net["head"].weight = net["embed"].weight
    weights, table = wb.load(net), wb.layers(net)
    nodes = tree_nodes(table, "net")
    root = nodes[0]
    assert (root.bytes, root.tensors, root.label) == (weights.bytes, len(weights), "net")
    for node in nodes:
        below = [name for name in weights if name == node.path or name.startswith(f"{node.path}.") or not node.path]
        if not node.path.endswith((".q", ".k", ".v")):
            assert node.bytes == sum(weights.infos[name].bytes for name in below) and node.tensors == len(below)
    assert [node.path for node in nodes if node.parent == 0] == ["attention", "head", "embed"]
    parts = [node for node in nodes if node.path.startswith("attention.in_proj_weight.")]
    assert [node.label for node in parts] == ["q", "k", "v"]
    assert sorted(node.layer for node in nodes if node.layer) == sorted(table.frame()["layer"])
    for node in nodes[1:]:  # what a node's patterns select is what is in it
        assert list(wb.contents(net, layers=node.patterns).frame()["layer"]) == [
            layer for layer in table.frame()["layer"] if layer in node.layers
        ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (1536, "1.54 kB"), (13_476_839_424, "13.5 GB")],
)
def test_sizes_read_as_people_say_them(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize("count", [0, 1, 2, 2000])
def test_widgets_count_as_results_do(count: int) -> None:
    """Two functions, as widgets stand on public names alone."""
    assert count_text(count, "tensor") == many(count, "tensor")


def test_a_tensor_called_like_a_module_has_both() -> None:
    nodes = tree_nodes(wb.layers({"a": torch.ones(2), "a.b": torch.ones(3, 3), "c[0].w": torch.ones(2, 2)}), "x")
    found = {node.path: (node.layer, node.bytes, node.parent) for node in nodes}
    assert found["a"] == ("a", 44, 0) and found["a.b"] == ("a.b", 36, 1)
    own = next(node for node in nodes if node.path == "a")
    assert own.patterns == ["a", "a.*"] and own.layers == ["a", "a.b"]
    module = next(node for node in nodes if node.path == "c[0]")
    assert list(wb.contents({"c[0].w": torch.ones(2, 2), "c0.w": torch.ones(1)}, layers=module.patterns).row("c[0].w"))


def test_a_click_reads_one_tensor_and_shows_the_librarys_figures(
    browser: wb.ui.CheckpointBrowser, checkpoint: str
) -> None:
    assert browser.result is None and "3 of 4 tensors are weight matrices" in browser.status
    browser.tree.value = ["body.10.weight"]
    assert browser.wait(10) and browser.selection == ("body.10",)
    expected = wb.contents(checkpoint, layers="body.10")
    pd.testing.assert_frame_equal(browser.result.frame(), expected.frame())
    assert list(table_of(browser)["layer"]) == ["body.10"]
    for name, kind in ((HISTOGRAM, "histogram"), (HEAT, "heatmap")):
        assert browser.plots[name].spec.csv() == wb.figure(expected, kind, layer="body.10").csv()
    assert browser.export_panel._figures()[HEAT] is browser.plots[HEAT].spec


def test_a_module_waits_for_run_and_then_a_click_only_draws(browser: wb.ui.CheckpointBrowser, checkpoint: str) -> None:
    browser.tree.value = ["body"]
    assert not browser.running and "3 tensors, 1.53 kB: press Run" in browser.plots[HISTOGRAM]._caption.value
    assert sorted(browser.selection) == ["body.0", "body.0.bias", "body.10"]
    result = browser.run()
    assert set(result.frame()["layer"]) == set(browser.selection)
    assert browser.plots[HISTOGRAM].spec.kind == "rms" and browser.plots[HEAT].spec is None
    browser.tree.value = ["body.0.bias"]
    assert not browser.running and browser.result is result
    assert browser.plots[HISTOGRAM].spec.title == "body.0.bias"
    assert "layers=['body.*']" in browser.code() and "layer='body.0.bias'" in browser.code()
    browser.tree.value = [""]
    assert len(browser.run().frame()) == 4 and "layers" not in browser.code()
    browser.rows.selection = ("head",)
    assert browser.tree.value == ["head.weight"] and browser.selection == ("head",)


def test_what_is_not_finite_is_marked_in_the_tree(browser: wb.ui.CheckpointBrowser) -> None:
    browser.run()
    assert browser.tree.marks == {"head.weight": "NaN"} and "1 not finite" in browser.status
    browser.tree.value = ["head.weight"]
    assert "1 NaN" in browser.plots[HISTOGRAM].spec.panels[0].title


def test_a_click_during_a_run_is_followed_when_it_ends(minilm: Path) -> None:
    browser = Browser(str(minilm))
    browser.start()
    while not browser.controls.bar.value:
        time.sleep(0.001)
    browser.tree.value = ["embeddings.word_embeddings.weight"]
    browser.cancel()
    for _ in range(1000):  # the cancelled run, and the one that the click asked for
        browser.wait(30)
        if browser.result is not None and browser.selection[0] in set(browser.result.frame()["layer"]):
            break
        time.sleep(0.01)
    assert browser.wait(30) and not browser.running
    assert browser.plots[HEAT].spec.title == "embeddings.word_embeddings"
    browser.close()


def test_a_result_of_another_checkpoint_is_never_shown(minilm: Path, checkpoint: str, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    state = {f"l{n}.weight": torch.randn(500, 500) for n in range(20)}
    torch.save({"model": state, "model_ema": {name: one + 100 for name, one in state.items()}}, path)
    browser = Browser(str(path))
    browser.start()
    browser.ema.value = True
    assert browser.wait(30) and browser.result is None and not browser.tree.marks
    browser.tree.value = ["l0.weight"]
    browser.wait(30)
    assert browser.result.row("l0")["mean"] == pytest.approx(100, abs=0.1) and browser.error is None
    browser.close()
    browser = Browser(str(minilm))
    browser.start()
    browser.source.value = checkpoint
    browser.tree.value = ["head.weight"]
    for _ in range(500):
        if browser.wait(30) and browser.result is not None:
            break
        time.sleep(0.01)
    browser.wait(30)
    assert list(browser.result.frame()["layer"]) == ["head"] and browser.tree.marks == {"head.weight": "NaN"}
    browser.close()


def test_select_and_run_without_a_screen(browser: wb.ui.CheckpointBrowser) -> None:
    for path in ("head.weight", "body.0.weight", "body.10.weight"):
        browser.tree.value = [path]
    assert list(browser.run().frame()["layer"]) == ["body.10"]


def test_what_is_not_in_the_checkpoint_reads_nothing(browser: wb.ui.CheckpointBrowser) -> None:
    browser.selection = ("typo",)
    assert not browser.running and browser.result is None
    assert "'typo' is not in this checkpoint" in browser.plots[HEAT]._caption.value.replace("&#x27;", "'")
    browser.tree.value = ["typo"]
    with pytest.raises(wb.ArgumentError, match="the tree has no 'typo'"):
        browser.run()
    browser.selection = ("head", "body.0.bias")
    assert (
        browser.tree.value == ["head.weight", "body.0.bias"]
        and "2 tensors, 400 B" in browser.plots[HEAT]._caption.value
    )
    assert sorted(browser.run().frame()["layer"]) == ["body.0.bias", "head"]


def test_a_mended_tensor_loses_its_mark(checkpoint: str) -> None:
    browser = Browser(checkpoint)
    browser.run()
    save_file({name: one.nan_to_num() for name, one in wb.load(checkpoint).items()}, checkpoint)
    browser.run()
    assert browser.tree.marks == {}
    browser.close()


def test_a_part_is_read_with_its_tensor_so_a_click_counts_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench_widgets.browser.AT_ONCE", 1000)
    browser = Browser({"mlp.experts.w": torch.ones(8, 8, 8), "fc.weight": torch.ones(8, 8)})
    browser.tree.value = ["mlp.experts.w.3"]
    assert not browser.running and "press Run" in browser.plots[HEAT]._caption.value
    assert browser.run().row("mlp.experts.w.3")["elements"] == 64
    browser.tree.value = ["fc.weight"]
    assert browser.wait(10) and browser.result.row("fc")["elements"] == 64
    browser.close()


def test_a_result_of_another_kind_is_refused(browser: wb.ui.CheckpointBrowser, checkpoint: str) -> None:
    with pytest.raises(wb.ArgumentError, match="result is a Spectrum: CheckpointBrowser shows Contents"):
        browser.result = wb.spectrum(checkpoint, layers="body.*")


def test_a_run_of_what_is_not_there_says_so_and_ends(browser: wb.ui.CheckpointBrowser) -> None:
    browser.tree.value = ["head.weight", "nope"]
    browser.tree.value = ["head.weight", "body.0.bias"]
    assert len(browser.run().frame()) == 2


def test_a_result_of_another_checkpoint_may_be_looked_at(browser: wb.ui.CheckpointBrowser) -> None:
    other = wb.contents({"elsewhere.weight": torch.eye(5), "b": torch.ones(2)})
    browser.result = other
    browser.selection = ("elsewhere",)
    assert browser.plots[HEAT].spec.csv() == wb.figure(other, "heatmap", layer="elsewhere").csv()
    assert "was given to the explorer" in browser.code() and browser.result is other


def test_parts_with_dots_in_their_ids_have_nodes_of_their_own() -> None:
    state = {f"attn.c_attn.{part}": torch.ones(8, 8) for part in "qkv"} | {"attn.c_attn.weight": torch.ones(8, 24)}
    table = wb.layers(state)
    nodes = tree_nodes(table, "x")
    assert sorted(node.layer for node in nodes if node.layer) == sorted(table.frame()["layer"])
    for node in nodes[1:]:
        assert sorted(wb.contents(state, layers=node.patterns).frame()["layer"]) == sorted(node.layers)


def test_many_threads_leave_one_figure(minilm: Path) -> None:
    explorer = wb.ui.SpectrumExplorer(str(minilm), layers="encoder.layer.0.*, encoder.layer.1.*")
    names = list(wb.spectrum(minilm, layers="encoder.layer.0.*").frame()["layer"])
    for _ in range(3):
        explorer.start()
        turn = 0
        while explorer.running:
            explorer.selection = (names[turn % len(names)],)
            turn += 1
            time.sleep(0.002)
        explorer.wait(30)
        for plot in explorer.plots.values():
            assert len(plot.prepare().traces) == len(plot.spec.to_plotly().data)
    explorer.close()


def test_several_tensors_are_selected_with_ctrl(browser: wb.ui.CheckpointBrowser, checkpoint: str) -> None:
    browser.tree.value = ["head.weight", "body.0.bias"]
    frame = browser.run().frame()
    assert list(frame["layer"]) == list(wb.contents(checkpoint, layers=["head", "body.0.bias"]).frame()["layer"])
    assert "layers=['head', 'body.0.bias']" in browser.code()


def test_code_recomputes_the_frame_in_a_fresh_kernel(browser: wb.ui.CheckpointBrowser, tmp_path: Path) -> None:
    browser.tree.value = ["body"]
    browser.run()
    browser.tree.value = ["body.10.weight"]
    code = browser.code_box.value + "\nframe.to_pickle('frame.pkl')\nheatmap.save('heat.csv')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "frame.pkl"), browser.result.frame())
    assert (tmp_path / "heat.csv").read_text() == browser.plots[HEAT].spec.csv()


def test_an_adapter_and_a_moving_average_are_opened_as_the_library_does(checkpoint: str, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    low, high = torch.ones(2, 20), torch.ones(4, 2)
    save_file(
        {"base_model.model.head.lora_A.weight": low, "base_model.model.head.lora_B.weight": high},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    browser = Browser(str(adapter))
    assert "a PEFT adapter changes a base model" in browser.status and not browser.tree.rows
    browser.base.value = checkpoint
    assert browser.error is None and len(browser.tree.rows) == 9
    browser.tree.value = ["head.weight"]
    browser.wait(10)
    expected = wb.contents(wb.load(adapter, base=checkpoint), layers="head").row("head")
    assert browser.result.row("head")["mean"] == expected["mean"]
    found: dict[str, Any] = {}
    exec(browser.code(), found)
    pd.testing.assert_frame_equal(found["frame"], browser.result.frame())
    assert list(found["weights"]) == list(wb.load(checkpoint))
    browser.close()

    path = tmp_path / "run.pt"
    torch.save({"model": {"fc.weight": torch.eye(3)}, "model_ema": {"fc.weight": torch.zeros(3, 3)}}, path)
    browser = Browser(str(path), ema=True)
    assert browser.run().row("fc")["sparsity"] == 1
    browser.ema.value = False
    assert browser.result is None and browser.run().row("fc")["sparsity"] == pytest.approx(2 / 3)
    browser.close()


def test_the_checkpoint_speaks_for_itself_and_cannot_inject(browser: wb.ui.CheckpointBrowser, checkpoint: str) -> None:
    said = browser.about.value
    for note in wb.load(checkpoint).notes:
        assert note.replace("'", "&#x27;") in said
    assert "yes &lt;b&gt;" in said and "<b>" not in said and wb.load(checkpoint).fingerprint in said


def test_renames_and_ties_are_listed(tmp_path: Path) -> None:
    shared = torch.eye(3)
    state = {"module.a.weight": shared, "module.b.weight": shared, "module.c.bias": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "run.pt")
    browser = Browser(tmp_path / "run.pt")
    said = browser.about.value
    assert "module.a.weight" in said and "Renamed (2)" in said and "Tied (1)" in said and "epoch" in said
    browser.close()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(wb.ArgumentError, match="ema='yes': expected True or False"):
        Browser(ema="yes")
    with pytest.raises(wb.ArgumentError, match="theme='pink'"):
        Browser(theme="pink")


READ = """
import json, sys
from pathlib import Path
import workbench as wb
def read():
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
wb.ui.CheckpointBrowser({}).close()  # modules that are imported on first use are not the checkpoint's
before = read()
browser = wb.ui.CheckpointBrowser(sys.argv[1])
opened = read() - before
for plot in browser.plots.values():
    plot.prepare()  # reads plotly's source
before = read() - opened
browser.tree.value = ["layers.7.weight"]
browser.wait()
clicked = read() - before - opened
print(json.dumps([opened, clicked, len(browser.tree.rows), browser.result.row("layers.7")["sparsity"]]))
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="bytes read are told by Linux")
def test_ten_gigabytes_are_read_only_where_one_looks(tmp_path: Path, unchecked: Callable[..., Any]) -> None:
    size, many = 4096 * 4096 * 2, 300
    header = {
        f"layers.{n}.weight": {"dtype": "BF16", "shape": [4096, 4096], "data_offsets": [n * size, (n + 1) * size]}
        for n in range(many)
    }
    text = json.dumps(header).encode()
    path = tmp_path / "ten.safetensors"
    with path.open("wb") as file:  # holes: 10 GB that take no room on the disk
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + many * size)
    assert path.stat().st_size > 10e9
    opened, clicked, nodes, sparsity = unchecked(READ, str(path))
    assert opened < 10 * len(text) + 2_000_000, "the header, a few times, and what Python imports"
    assert size <= clicked < size + 2_000_000, "one tensor, once"
    assert (nodes, sparsity) == (2 * many + 2, 1.0)
