"""Saved figures say where their numbers come from, name no folder of a machine, embed their fonts, and have no date."""

import json
import re
import zlib
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from pypdf import PdfReader
from safetensors.torch import save_file

import workbench as wb
from workbench.figures import Axis, Bars, FigureSpec, Heat, Line, Panel, Points
from workbench.figures.provenance import story

ENDINGS = ("pdf", "eps", "svg", "png")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("secret folder") / "nets"
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    for name in ("one", "two", "three"):
        shapes = {"fc.weight": (40, 30), "out.weight": (20, 40)}
        tensors = {tensor: torch.randn(shape, generator=random) for tensor, shape in shapes.items()}
        save_file(tensors, folder / f"{name}.safetensors")
    return [folder / f"{name}.safetensors" for name in ("one", "two", "three")]


@pytest.fixture(scope="module")
def figure(models: list[Path]) -> FigureSpec:
    diff = wb.diff(models[0], {"β": models[1]}, floor=models[2], detail="spectra")
    return wb.figure(wb.spectrum(models[0], xmin="median"), "esd", layer="fc").beside(wb.figure(diff), title="α of ‖τ‖")


def said(path: Path) -> tuple[str, str, str]:
    """Title, program and story of a file, as a reader of its kind gives them."""
    if path.suffix == ".pdf":
        info = PdfReader(path).metadata
        assert info.creation_date is None and info.modification_date is None
        return info.title, info.creator, info.subject
    if path.suffix == ".png":
        text = Image.open(path).text
        return text["Title"], text["Software"], text["Description"]
    if path.suffix == ".svg":
        tags = {element.tag.partition("}")[2]: element for element in reversed(list(ElementTree.parse(path).iter()))}
        assert "date" not in tags
        return tags["title"].text, "".join(tags["creator"].itertext()).strip(), tags["description"].text
    lines = re.sub(r"\n%%\+", "", path.read_text("ascii")).splitlines()
    assert not any(line.startswith("%%CreationDate") for line in lines)
    told = dict(line.partition(": ")[::2] for line in lines if line.startswith("%"))
    told = {key: value.encode("ascii").decode("unicode_escape") for key, value in told.items()}
    facts = {key.removeprefix("% "): value for key, value in told.items() if key.startswith("% ")}
    return told["%%Title"], told["%%Creator"], "; ".join(f"{key}: {value}" for key, value in facts.items())


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_story_can_be_read_back(figure: FigureSpec, tmp_path: Path, ending: str) -> None:
    title, program, found = said(figure.save(tmp_path / f"f.{ending}"))
    assert title == "α of ‖τ‖"
    assert program.startswith("weight-workbench ") and program.split()[1] == wb.__version__
    for fact in ("nets/one.safetensors", "β: nets/two.safetensors", "floor: nets/three.safetensors", "xmin='median'"):
        assert fact in found, fact
    for key in ("source", "call", "fingerprint", "contents", "workbench", "layer"):
        assert f"{key}: " in found
    assert found == "; ".join(f"{key}: {value}" for key, value in figure.provenance.items())


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_file_names_a_folder_and_all_have_the_same_bytes_again(
    figure: FigureSpec, models: list[Path], tmp_path: Path, ending: str
) -> None:
    first, second = (figure.save(tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
    assert first == second
    streams = [first]
    for start in re.finditer(rb"stream\r?\n", first):
        try:
            streams.append(zlib.decompressobj().decompress(first[start.end() :]))
        except zlib.error:
            continue
    assert ending != "pdf" or len(streams) > 3
    for stream in streams:
        for folder in (models[0].parents[1].name, str(tmp_path), str(Path.home()) + "/", str(Path.cwd())):
            assert folder.encode() not in stream


def test_every_result_travels(models: list[Path]) -> None:
    weights = [wb.load(path) for path in models]
    groups = wb.permutation_groups(torch.nn.Sequential(torch.nn.Linear(30, 40)), torch.zeros(1, 30))
    matched = wb.match(
        wb.permutation_groups(
            net := torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)), torch.zeros(1, 3)
        ),
        *(wb.load(wb.save(net.state_dict(), models[0].with_name(f"{name}.safetensors"))) for name in ("left", "right")),
    )
    results = [
        wb.spectrum(models[0]), wb.layers(models[0]), wb.contents(models[0]), wb.comparison(models), groups, matched,
        wb.tempbalance(models[0], learning_rate=0.1), wb.alphapruning(models[0]), wb.farms(models[0], window=10),
        wb.diff(weights[0], {str(models[1]): weights[1]}),
    ]  # fmt: skip
    for result in results:
        text = " ".join(story(result).values())
        assert models[0].parents[1].name not in text, text
    assert "against='nets/left.safetensors'" in story(matched)["call"]


def test_contents_are_those_of_the_tensors(models: list[Path]) -> None:
    first, other = (story(wb.spectrum(path)) for path in models[:2])
    assert first["fingerprint"] == other["fingerprint"] and first["contents"] != other["contents"]
    prints = wb.spectrum(models[0]).meta["fingerprints"]
    text = json.dumps({"fingerprints": dict(prints)}, sort_keys=True)
    assert first["contents"] == sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/my nets/a/net.pt", "a/net.pt"),
        ("~/nets/a/net.pt", "a/net.pt"),
        ("C:\\Users\\me\\nets\\net.pt", "nets\\net.pt"),
        ("signature of /home/me/nets/net.pt", "signature of nets/net.pt"),
        ("hf://org/name", "hf://org/name"),
        ("checkpoints/net.pt", "checkpoints/net.pt"),
        ("encoder.*/2", "encoder.*/2"),
    ],
)
def test_paths_lose_their_folders(text: str, shown: str) -> None:
    from workbench.figures.provenance import _travelling

    assert _travelling({"where": [text]}) == {"where": [shown]}


def test_fonts_of_eps_are_truetype_and_nothing_in_it_is_transparent(figure: FigureSpec, tmp_path: Path) -> None:
    text = figure.save(tmp_path / "f.eps").read_text("ascii")
    assert "/FontType 42 def" in text and "/FontType 3 def" not in text
    assert text.startswith("%!PS-Adobe-3.0 EPSF-3.0") and max(map(len, text.splitlines())) <= 255
    axis = Axis(label="x", limits=(0.0, 1.0))
    marks = (
        Bars(edges=(0.0, 1.0), heights=(0.5,), role="first"),
        Line(x=(0.0, 1.0), y=(0.0, 1.0), role="second"),
        Points(x=(0.5,), y=(0.5,), role="accent"),
        Heat(x=(0.0, 1.0), y=(0.0, 1.0), values=((0.5,),), limits=(0.0, 1.0)),
    )
    drawn = FigureSpec(kind="t", title="", panels=(Panel(x=axis, y=axis, marks=marks),)).to_matplotlib()
    assert {artist.get_alpha() for artist in drawn.findobj()} <= {None, 1.0}
