"""Layer tables that lose no element, matrix views that equal hand-made slices, and selections that explain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import workbench as wb
from workbench.layers import layer_list, layer_views, matrices, selected


class Tied(nn.Module):
    """A head that shares the embedding's weight, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.gate = nn.Parameter(torch.ones(2, 4, 5))


PARTS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(3, 2),
    lambda: nn.Linear(3, 2, bias=False),
    lambda: nn.Embedding(5, 3),
    lambda: nn.EmbeddingBag(5, 3),
    lambda: nn.Conv1d(2, 3, 4),
    lambda: nn.Conv2d(4, 4, 3, groups=2),
    lambda: nn.Conv3d(2, 3, (1, 2, 3)),
    lambda: nn.ConvTranspose1d(2, 3, 40),
    lambda: nn.ConvTranspose2d(2, 3, 2),
    lambda: nn.LayerNorm(4),
    lambda: nn.BatchNorm2d(3),
    lambda: nn.MultiheadAttention(4, 2),
    lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    lambda: nn.Bilinear(2, 3, 4),
    lambda: nn.LSTM(2, 3, bidirectional=True),
    lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    lambda: nn.PReLU(),
    lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 2)),
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
    lambda: nn.Linear(3, 2).bfloat16(),
    lambda: nn.Identity(),
    Tied,
]
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn]
NAMES = st.sampled_from(["weight", "bias", "embed.weight", "experts", "in_proj_weight", "tokens", "a.10.b"])
TENSORS = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    st.lists(st.integers(0, 5), max_size=6).map(tuple) | st.just((2, 2, 40)),
    st.sampled_from(DTYPES),
)


def assert_complete(model: Any, elements: int, size: int, names: list[str]) -> None:
    """Every tensor has its row, and rows add up: analysed as its matrices, or excluded with a reason."""
    frame = wb.layers(model).frame()
    assert frame["tensor"].drop_duplicates().tolist() == names
    assert frame["elements"].sum() == wb.load(model).elements == elements
    assert frame["bytes"].sum() == size
    assert set(frame["verdict"]) <= {"analysed", "excluded"}
    seen = frame["verdict"] == "analysed"
    assert (frame.loc[~seen, "reason"].str.len() > 0).all()
    assert (frame["rows"] * frame["cols"] * frame["matrices"])[seen].tolist() == frame["elements"][seen].tolist()
    assert frame.loc[~seen, ["rows", "cols", "matrices"]].to_numpy().sum() == 0
    assert frame["layer"].is_unique
    assert frame["depth"][seen].tolist() == list(range(seen.sum()))
    assert frame["depth"].is_monotonic_increasing


@given(st.lists(st.sampled_from(range(len(PARTS))), max_size=5), st.booleans())
def test_the_elements_of_every_module_add_up(parts: list[int], wrapped: bool) -> None:
    module: nn.Module = nn.Sequential(*(PARTS[part]() for part in parts))
    state = module.state_dict()
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in state.values() if tensor.numel()}
    elements = sum(tensor.numel() for tensor in storages.values())
    size = sum(tensor.numel() * tensor.element_size() for tensor in storages.values())
    assert_complete(nn.DataParallel(module) if wrapped else module, elements, size, list(state))


@given(st.dictionaries(NAMES, TENSORS, min_size=1))
def test_the_elements_of_every_mapping_add_up(tensors: dict[str, Tensor]) -> None:
    elements = sum(tensor.numel() for tensor in tensors.values())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert_complete(tensors, elements, size, list(tensors))


def test_a_real_transformer_is_40_matrices_and_no_element_is_lost(minilm: Path) -> None:
    """Counted by hand from its configuration: 6 layers of 6 matrices, three embeddings and the pooler's dense."""
    table = wb.layers(minilm)
    frame = table.frame()
    analysed = frame[frame["verdict"] == "analysed"]
    assert len(analysed) == 6 * 6 + 3 + 1
    vocabulary, width, inner, positions = 30522, 384, 1536, 512
    block = 4 * width * width + 2 * width * inner
    assert analysed["elements"].sum() == 6 * block + (vocabulary + positions + 2) * width + width * width
    assert analysed["kind"].value_counts().to_dict() == {"linear": 37, "embedding": 3}
    assert frame["bytes"].sum() + 8 + header_length(minilm / "model.safetensors") == (
        (minilm / "model.safetensors").stat().st_size
    )
    assert repr(table).startswith("LayerTable of model/model.safetensors: 40 of ")


def header_length(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


class Odd(nn.Module):
    """A module with what no rule knows: a buffer that looks like a matrix, packed experts."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(4, 4))
        self.register_buffer("filter", torch.ones(1, 1, 3, 3))
        self.experts = nn.Parameter(torch.ones(3, 4, 5))
        self.weight = nn.Parameter(torch.ones(3, 4, 5))


EXCLUDED = {
    "vector": ({"a": torch.ones(3)}, "a vector (bias, norm or gain): it has no spectrum"),
    "scalar": ({"a": torch.tensor(1.0)}, "a scalar (bias, norm or gain): it has no spectrum"),
    "empty": ({"a": torch.ones(0, 3)}, "empty tensor"),
    "integers": ({"a": torch.ones(3, 3, dtype=torch.int64)}, "int64 tensor: not real weights"),
    "quantised": ({"a": torch.ones(3, 3, dtype=torch.int8)}, "int8 tensor: not real weights (quantised storage?"),
    "complex": ({"a": torch.ones(3, 3, dtype=torch.complex64)}, "complex64 tensor: not real weights"),
    "8-bit float": ({"a": torch.ones(3, 3).to(torch.float8_e5m2)}, "8-bit float storage: its scales are not known"),
    "6-D": ({"a.weight": torch.ones((2,) * 6)}, "6-D tensor: not a linear, embedding or convolution weight"),
    "tied": (Tied(), "tied to embedding.weight, counted there"),
    "buffer": (Odd(), "a buffer of Odd, not a parameter"),
    "conv-like buffer": (Odd(), "a buffer of Odd, not a parameter"),
    "experts called weight": (Odd(), "3×4×5 parameter of Odd: its axes are not known to be a matrix"),
    "bilinear": (nn.Bilinear(2, 3, 4), "4×2×3 parameter of Bilinear: its axes are not known to be a matrix"),
    "stack in a file": ({"stack": torch.ones(3, 4, 5)}, "3×4×5 tensor without code: packed experts or a convolut"),
    "long kernel in a file": ({"e.weight": torch.ones(3, 4, 64)}, "3×4×64 tensor without code: packed experts or a"),
}
WHICH = {"tied": "head.weight", "conv-like buffer": "filter", "buffer": "mask"}


@pytest.mark.parametrize("case", EXCLUDED)
def test_what_is_no_matrix_is_a_row_with_its_reason(case: str) -> None:
    model, reason = EXCLUDED[case]
    name = WHICH.get(case, "weight" if isinstance(model, nn.Module) else next(iter(model)))
    row = wb.layers(model).row(name)
    assert row["verdict"] == "excluded"
    assert row["reason"].startswith(reason), row["reason"]
    assert (row["kind"], row["rows"], row["cols"], row["matrices"]) == ("", 0, 0, 0)


KINDS = {
    "linear": (nn.Linear(3, 2), ("linear", 2, 3, 1)),
    "embedding": (nn.Embedding(5, 3), ("embedding", 5, 3, 1)),
    "bag": (nn.EmbeddingBag(5, 3), ("embedding", 5, 3, 1)),
    "linear called embedding": (nn.ModuleDict({"embed": nn.Linear(3, 2)}), ("linear", 2, 3, 1)),
    "embedding in a file": ({"embed_tokens.weight": torch.ones(5, 3)}, ("embedding", 5, 3, 1)),
    "linear in a file": ({"fc.weight": torch.ones(5, 3)}, ("linear", 5, 3, 1)),
    "fused projection in a file": ({"attn.in_proj_weight": torch.ones(9, 3)}, ("linear", 3, 3, 1)),
    "fused with unequal heads": ({"attn.qkv_proj.weight": torch.ones(5, 3)}, ("linear", 5, 3, 1)),
    "conv1d": (nn.Conv1d(2, 3, 40), ("conv1d", 3, 2, 40)),
    "conv1d in a file": ({"conv.weight": torch.ones(3, 2, 31)}, ("conv1d", 3, 2, 31)),
    "conv2d": (nn.Conv2d(2, 3, (4, 5)), ("conv2d", 3, 2, 20)),
    "conv2d in a file": ({"conv.weight": torch.ones(3, 2, 4, 5)}, ("conv2d", 3, 2, 20)),
    "conv3d": (nn.Conv3d(2, 3, 2), ("conv3d", 3, 2, 8)),
    "transposed": (nn.ConvTranspose2d(2, 3, 4), ("conv2d", 3, 2, 16)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), ("conv2d", 3, 2, 18)),
    "float16": (nn.Linear(3, 2).half(), ("linear", 2, 3, 1)),
}


@pytest.mark.parametrize("case", KINDS)
def test_the_kind_and_extent_of_a_layer(case: str) -> None:
    model, expected = KINDS[case]
    row = wb.layers(model).frame().iloc[0]
    assert (row["kind"], row["rows"], row["cols"], row["matrices"]) == expected


@pytest.mark.parametrize("shape", [(3, 2), (4, 3, 5), (4, 3, 2, 5), (2, 3, 2, 3, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_slices_and_flattening_equal_hand_made_matrices(shape: tuple[int, ...], contiguous: bool) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tensor = tensor if contiguous else tensor.transpose(0, 1).contiguous().transpose(0, 1)
    (layer,) = layer_list(layer_views(wb.load({"conv.weight": tensor})))
    positions = list(np.ndindex(shape[2:]))
    slices = [
        [[tensor[(out, inside, *at)].item() for inside in range(shape[1])] for out in range(shape[0])]
        for at in positions
    ]
    flat = [
        [tensor[(out, inside, *at)].item() for inside in range(shape[1]) for at in positions] for out in range(shape[0])
    ]
    assert matrices(layer, tensor).tolist() == slices
    assert matrices(layer, tensor, "flatten").tolist() == [flat]
    for conv, made in (("slices", slices), ("flatten", [flat])):
        assert layer.extent(conv) == (len(made), len(made[0]), len(made[0][0]))
        if contiguous:
            assert matrices(layer, tensor, conv).data_ptr() == tensor.data_ptr(), "a view and no copy"


# Selection


MODEL = {
    "embed.weight": torch.ones(5, 4),
    "blocks.0.fc.weight": torch.ones(4, 4),
    "blocks.0.fc.bias": torch.ones(4),
    "blocks.0.conv.weight": torch.ones(4, 4, 3),
    "blocks.1.fc.weight": torch.ones(4, 6),
    "blocks.1.norm.weight": torch.ones(4),
    "blocks.10.fc.weight": torch.ones(4, 6),
    "head[0].weight": torch.ones(2, 4),
    "proj": torch.ones(2, 4),
}
ALL = ["embed", "blocks.0.fc", "blocks.0.conv", "blocks.1.fc", "blocks.10.fc", "head[0]", "proj"]


def chosen(selection: Any) -> list[str]:
    return [layer.layer for layer in selected(layer_views(wb.load(MODEL)), selection, "the net")]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (None, ALL),
        ("embed", ["embed"]),
        ("blocks.0.fc.weight", ["blocks.0.fc"]),
        ("proj", ["proj"]),
        ("*", ALL),
        ("blocks.1.*", ["blocks.1.fc"]),
        ("blocks.*.fc", ["blocks.0.fc", "blocks.1.fc", "blocks.10.fc"]),
        ("blocks.[01].fc", ["blocks.0.fc", "blocks.1.fc"]),
        ("blocks.?.fc", ["blocks.0.fc", "blocks.1.fc"]),
        ("head[0]", ["head[0]"]),
        (["proj", "embed"], ["embed", "proj"]),
        (("blocks.10.fc", "blocks.*.fc", "blocks.10.fc"), ["blocks.0.fc", "blocks.1.fc", "blocks.10.fc"]),
        (lambda layer: layer.shape[1] > 4, ["blocks.1.fc", "blocks.10.fc"]),
        (lambda layer: layer.kind == "conv1d" or layer.depth == 0, ["embed", "blocks.0.conv"]),
        (lambda layer: layer.tensor == "proj", ["proj"]),
    ],
)
def test_a_selection_keeps_the_order_of_depth_and_takes_each_layer_once(selection: Any, expected: list[str]) -> None:
    assert chosen(selection) == expected
    assert chosen(expected) == expected


def test_a_selected_layer_keeps_its_depth() -> None:
    table = wb.spectrum(MODEL, layers=["proj", "blocks.1.fc"]).frame()
    assert dict(zip(table["layer"], table["depth"], strict=True)) == {"blocks.1.fc": 3, "proj": 6}


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("embde", ["no layer of the net matches 'embde'.", "Did you mean 'embed'?"]),
        (["embed", "blocks.1.fk"], ["no layer of the net matches 'blocks.1.fk'.", "'blocks.1.fc'"]),
        ("Embed", ["no layer of the net matches 'Embed'.", "'embed'"]),
        ("zzz", ["no layer of the net matches 'zzz'."]),
        ("block.*", ["no layer of the net matches 'block.*'.", "Did you mean 'blocks."]),
        ("blocks.0.fc.bias", ["blocks.0.fc.bias is in the net but excluded: a vector (bias, norm or gain)"]),
        ("*.norm.weight", ["blocks.1.norm.weight is in the net but excluded: a vector"]),
        ("", ["no layer of the net matches ''."]),
        ([], ["an empty list of layers selects nothing; use layers=None for all."]),
        (lambda layer: layer.kind == "conv3d", ["the predicate holds for none of the 7 layers of the net."]),
    ],
)
def test_a_selection_that_means_nothing_says_why_and_offers_the_nearest(selection: Any, words: list[str]) -> None:
    with pytest.raises(wb.LayerNotFoundError) as error:
        chosen(selection)
    assert isinstance(error.value, KeyError)
    assert all(word in str(error.value) for word in words), error.value


def test_the_module_of_an_excluded_tensor_is_named_with_the_reason_too() -> None:
    with pytest.raises(wb.LayerNotFoundError, match=r"blocks.1.norm.weight is in the net but excluded: a vector"):
        chosen("blocks.1.norm")


def test_a_model_without_matrices_points_to_the_table() -> None:
    with pytest.raises(wb.LayerNotFoundError, match=r"has no weight matrices; wb.layers\(model\) lists every tensor's"):
        wb.spectrum({"a": torch.ones(3)})
    assert wb.layers({"a": torch.ones(3)}).frame()["verdict"].tolist() == ["excluded"]


def test_the_table_of_a_file_and_of_its_module_agree_where_no_code_is_needed(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    save_file(module.state_dict(), tmp_path / "net.safetensors")
    columns = ["layer", "kind", "shape", "rows", "cols", "matrices", "elements", "verdict"]
    ours, file = (wb.layers(one).frame().set_index("tensor")[columns].sort_index() for one in (module, tmp_path))
    assert ours.equals(file)


LAYERS_CODE = {
    "wb.spectrum(model, layers=5)": "layers=5",
    "wb.spectrum(model, layers=[5])": "5",
}


@pytest.fixture(scope="module")
def wrong_types(raised: Callable[..., dict[str, list[str]]]) -> dict[str, list[str]]:
    return raised(LAYERS_CODE)


@pytest.mark.parametrize("call", LAYERS_CODE)
def test_a_selection_of_a_wrong_type_says_what_one_is(call: str, wrong_types: dict[str, list[str]]) -> None:
    name, message = wrong_types[call]
    assert getattr(wb, name, None) is wb.ArgumentError
    assert LAYERS_CODE[call] in message
    assert "name" in message
    assert "glob" in message


# Parts of one tensor


class Attention(nn.Module):
    """GPT-2's fused projection as its Conv1D stores it, and a packed mixture of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Module()
        self.c_attn.weight = nn.Parameter(torch.randn(4, 12, generator=torch.Generator().manual_seed(0)))
        self.experts = nn.Parameter(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)))


def eigenvalues(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix.double()).square().flip(0)


def test_fused_projections_are_their_q_k_and_v() -> None:
    attention = nn.MultiheadAttention(6, 2)
    spectrum = wb.spectrum(attention)
    for name, part in zip("qkv", attention.in_proj_weight.detach().chunk(3), strict=True):
        torch.testing.assert_close(
            spectrum.eigenvalues[f"in_proj_weight.{name}"], eigenvalues(part), rtol=1e-9, atol=1e-12
        )
    model = Attention()
    spectrum = wb.spectrum(model, layers="c_attn.*")
    for name, part in zip("qkv", model.c_attn.weight.detach().chunk(3, dim=1), strict=True):
        torch.testing.assert_close(spectrum.eigenvalues[f"c_attn.{name}"], eigenvalues(part), rtol=1e-9, atol=1e-12)


def test_packed_experts_are_a_layer_each(tmp_path: Path) -> None:
    model = Attention()
    from_file = wb.spectrum(wb.save(model, tmp_path / "net.safetensors"))  # parts of one tensor share one reading
    whole = wb.spectrum(model)
    assert all(torch.equal(from_file.eigenvalues[layer], one) for layer, one in whole.eigenvalues.items())
    assert "2 of 2 tensors are weight matrices" in wb.layers(model).facts()
    spectrum = wb.spectrum(model, layers="experts.*")
    assert list(spectrum.eigenvalues) == ["experts.0", "experts.1", "experts.2"]
    for number, expert in enumerate(model.experts.detach()):
        found = spectrum.eigenvalues[f"experts.{number}"]
        torch.testing.assert_close(found, eigenvalues(expert), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTM, "ifgo"), (nn.GRU, "rzn")])
@pytest.mark.parametrize("code", [True, False])
def test_gates_of_recurrent_cells_are_told_apart(cell: type[nn.RNNBase], gates: str, code: bool) -> None:
    module = cell(5, 4, num_layers=2, bidirectional=True)
    table = wb.layers(module if code else module.state_dict()).frame().query("verdict == 'analysed'")
    names = [name for name in module.state_dict() if "weight" in name]
    assert table["layer"].tolist() == [f"{name}.{gate}" for name in names for gate in gates]
    assert set(table["rows"]) == {4}
    spectrum = wb.spectrum(module, layers="weight_ih_l0.*")
    for number, gate in enumerate(gates):
        part = module.weight_ih_l0.detach()[4 * number : 4 * number + 4]
        found = spectrum.eigenvalues[f"weight_ih_l0.{gate}"]
        torch.testing.assert_close(found, eigenvalues(part), rtol=1e-9, atol=1e-12)


def test_a_plain_recurrent_cell_has_no_gates() -> None:
    assert wb.layers(nn.RNN(5, 4)).frame()["layer"].tolist()[:2] == ["weight_ih_l0", "weight_hh_l0"]


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("conv", ["slices", "flatten"])
def test_a_grouped_convolution_is_the_dense_one_with_blocks(groups: int, conv: str) -> None:
    """The dense convolution that computes the same is block-diagonal over groups: it adds zeros and nothing else."""
    grouped = nn.Conv2d(6, 12, 3, groups=groups, bias=False)
    dense = nn.Conv2d(6, 12, 3, bias=False)
    dense.weight.data.zero_()
    for group in range(groups):
        out, inside = (
            slice(group * 12 // groups, (group + 1) * 12 // groups),
            slice(group * 6 // groups, (group + 1) * 6 // groups),
        )
        dense.weight.data[out, inside] = grouped.weight.data[out]
    image = torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grouped(image), dense(image))
    ours = wb.spectrum(grouped, conv=conv).eigenvalues["weight"]  # type: ignore[arg-type]
    theirs = wb.spectrum(dense, conv=conv).eigenvalues["weight"]  # type: ignore[arg-type]
    torch.testing.assert_close(ours[-len(ours) :], theirs[-len(ours) :], rtol=1e-9, atol=1e-12)
    assert float(theirs[: len(theirs) - len(ours)].sum()) < 1e-10


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("conv", ["slices", "flatten"])
def test_a_transposed_convolution_is_seen_outputs_first(groups: int, conv: str) -> None:
    module = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    kernel = module.weight.detach()  # [in, out/groups, 3, 3]
    blocks = [block.transpose(0, 1) for block in kernel.chunk(groups)]
    expected = [block[:, :, i, j] for block in blocks for i in range(3) for j in range(3)]
    expected = expected if conv == "slices" else [block.flatten(1) for block in blocks]
    pooled = torch.cat([eigenvalues(matrix) for matrix in expected]).sort().values
    spectrum = wb.spectrum(module, conv=conv)  # type: ignore[arg-type]
    torch.testing.assert_close(spectrum.eigenvalues["weight"], pooled, rtol=1e-9, atol=1e-12)
    assert spectrum.row("weight")["rows"] == 6 // groups


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_and_its_bare_file_have_the_same_layers(minilm: Path) -> None:
    from transformers import BertConfig, BertModel

    module = BertModel(BertConfig.from_pretrained(minilm))
    module.load_state_dict({name: tensor for name, tensor in wb.load(minilm).items() if "position_ids" not in name})
    columns = ["layer", "tensor", "kind", "shape", "rows", "cols", "matrices", "elements", "bytes", "dtype"]
    code, file = (
        wb.layers(model).frame().query("verdict == 'analysed'")[columns].sort_values("layer", ignore_index=True)
        for model in (module, minilm)
    )
    assert len(code) == 40 and code.equals(file)
    assert wb.load(module).ordered and not wb.load(minilm).ordered


@given(
    tensors=st.dictionaries(
        st.sampled_from(
            "experts experts.weight experts.0 experts.0.weight experts.0.part experts.0.part.weight experts.1 "
            "experts.0.0.weight experts.0.q a.qkv.weight a.qkv a.qkv.q a.qkv.q.weight rnn.weight_ih_l0 "
            "rnn.weight_hh_l0 rnn.weight_ih_l0.i rnn.weight_ih_l0.i.weight".split()
        ),
        st.sampled_from([(2,), (2, 0), (2, 3, 4), (12, 4), (12, 3)]).map(torch.zeros),
        min_size=1,
    ),
)
def test_no_two_layers_have_one_id_and_order_does_not_matter(tensors: dict[str, Tensor]) -> None:
    table, turned = wb.layers(tensors), wb.layers(dict(reversed(tensors.items())))
    ids, others = (dict(zip(one.frame()["layer"], one.frame()["tensor"], strict=True)) for one in (table, turned))
    assert ids == others and len(ids) == len(table.frame())
    assert sum(table.frame()["elements"]) == sum(tensor.numel() for tensor in tensors.values())


def test_an_id_that_is_taken_is_said() -> None:
    stack = torch.zeros(2, 3, 4)
    rows = wb.layers({"experts": stack, "experts.0.weight": torch.zeros(3, 4)}).frame().set_index("layer")
    assert list(rows.index) == ["experts.0", "experts.1", "experts.0.weight"]
    assert rows.loc["experts.0.weight", "reason"] == "called so because 'experts.0' is a part of 'experts'"
    rows = wb.layers({"experts": stack, "experts.0": torch.zeros(3)}).frame().set_index("layer")
    assert list(rows.index) == ["experts.0.part", "experts.1", "experts.0"]
    assert rows.loc["experts.0.part", "reason"] == "called so because 'experts.0' is a tensor's name"


def test_names_are_looked_up_and_not_searched_for() -> None:
    looks = 0

    class Watched(wb.Layer):
        def __getattribute__(self, name: str) -> Any:
            nonlocal looks
            looks += name in ("layer", "tensor")
            return super().__getattribute__(name)

    shape = {"kind": "linear", "shape": (2, 3)}
    views = [Watched(layer=f"{n}", tensor=f"{n}.weight", depth=n, **shape) for n in range(200)]  # type: ignore[arg-type]
    found = selected(views, [f"{n}.weight" for n in range(200)], "a model")
    assert found == views and looks < 200 * 10  # 200 · 200 · 2 where each name is compared with every layer
