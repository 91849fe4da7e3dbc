"""Every paper that a docstring names has an entry, every entry a docstring, and results cite what they used."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import workbench as wb
from workbench.sharing.cite import RULES, keys_of, references

ROOT = Path(__file__).parents[1]
ARXIV = re.compile(r"arXiv[:\s]+(\d{4}\.\d{4,5})")
# sources of tools and defaults inside, on which no result rests: assignments, averages of batch norm, adapters
INNER = {"1306.0895", "1803.05407", "2106.09685", "2312.03732"}
FIELDS = {"article": {"journal"}, "inproceedings": {"booktitle"}, "misc": {"eprint"}, "software": {"version"}}
MODEL = {
    f"{name}.weight": torch.randn(60, 40 + seed, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate(("fc", "head"))
}


def parsed(text: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Kind, key and fields of every entry, by counting braces."""
    place = 0
    while (begin := text.find("@", place)) >= 0:
        head = re.compile(r"@(\w+)\{([^,\s{}]+),").match(text, begin)
        assert head, text[begin : begin + 40]
        place, fields = head.end(), {}
        while field := re.compile(r"\s*(\w+) = \{").match(text, place):
            depth, place = 1, field.end()
            start = place
            while depth:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                place += 1
            assert field[1] not in fields, f"{head[2]} has {field[1]} twice"
            fields[field[1]] = text[start : place - 1]
            assert text[place] == ","
            place += 1
        end = re.compile(r"\s*\}").match(text, place)
        assert end, f"{head[2]}: {text[place : place + 40]!r}"
        place = end.end()
        yield head[1], head[2], fields


def keys(text: str) -> list[str]:
    return [key for _, key, _ in parsed(text)]


def sources() -> dict[str, str]:
    """The Source section of every public function."""
    found = {}
    for name in wb.__all__:
        _, mark, rest = (inspect.getdoc(getattr(wb, name)) or "").partition("Source:")
        if mark:
            found[name] = " ".join(rest.split("\n\n")[0].split())
    return found


def test_the_file_is_bibtex_with_unique_keys() -> None:
    text = (ROOT / "workbench" / "sharing" / "references.bib").read_text()
    entries = list(parsed(text))
    assert len({key for _, key, _ in entries}) == len(entries) == text.count("\n@") == len(references()) - 1
    assert len({fields["title"] for *_, fields in entries}) == len(entries)
    for kind, key, fields in entries:
        assert {"title", "author", "year"} | FIELDS[kind] <= set(fields), key
        first = fields["author"].partition(",")[0].lower()
        assert key.startswith(first + fields["year"]) or key == "newman2006modularity", key
        assert ("archiveprefix" in fields) == ("eprint" in fields)


def test_every_paper_of_a_docstring_has_an_entry() -> None:
    numbers = {fields.get("eprint") for _, _, fields in parsed("\n".join(references().values()))}
    named = {number for source in sources().values() for number in ARXIV.findall(source)}
    assert named and named <= numbers
    everywhere = {
        number
        for path in (ROOT / "workbench").rglob("*.py")
        if path.parent.name != "sharing"
        for number in ARXIV.findall(path.read_text())
    }
    assert everywhere - INNER <= numbers and INNER <= everywhere


def test_every_entry_is_named_by_a_docstring() -> None:
    texts = [path.read_text() for path in (ROOT / "workbench").rglob("*.py") if path.parent.name != "sharing"]
    said = " ".join(" ".join(texts).split())
    for _, key, fields in parsed((ROOT / "workbench" / "sharing" / "references.bib").read_text()):
        author, title = fields["author"].partition(",")[0], " ".join(fields["title"].split()[:4])
        packages = {"martin2021predicting": "WeightWatcher 0.7.7", "newman2006modularity": "Newman's modularity"}
        named = fields.get("eprint", "—") in said or title.lower() in said.lower() or packages.get(key, "—") in said
        assert named or re.search(rf"{author}[^.]{{0,160}}{fields['year']}", said), key


def test_every_entry_is_cited_by_something() -> None:
    given = {"method": "activations", "batch_norm": "reset", "compat": "weightwatcher", "xmin": "search"}
    details = ["noise", "tails", "goodness", "spectra", "activations"]
    metas = [{"sources": [1] * 3}, {"sources": [1]}, {"basis": {"kind": "integrated"}}]
    cited = {
        key
        for rule in RULES.values()
        for meta in metas
        for more in ({"edges": "functional", "kind": "local"}, {"kind": "integrated"})
        for key in rule({**given, "detail": details, "meta": meta, **more})
    }
    cited |= {key for method in wb.MERGE_METHODS.values() for key in keys_of(method.SOURCE)}
    assert cited | {"weightworkbench", "cai2023robust", "eckart1936approximation"} == set(references())


@pytest.mark.parametrize("name", wb.MERGE_METHODS)
def test_every_merge_cites_its_paper(name: str) -> None:
    (key,) = keys_of(wb.MERGE_METHODS[name].SOURCE)
    assert key in keys(wb.cite(wb.merge(MODEL, [MODEL], method=name)))


def test_rules_are_of_public_functions_and_none_is_forgotten() -> None:
    assert set(RULES) < set(wb.__all__)
    named = {name for name, source in sources().items() if ARXIV.search(source) or re.search(r"\(\d{4}\)", source)}
    weights = {"merge", "repair", "signature", "smoothed", "sharpened", "ablated"}  # these give no Result
    assert named - weights - {name for name in named if name[0].isupper()} <= set(RULES)


SPECTRUM = ["weightworkbench", "martin2021implicit", "marchenko1967distribution"]


@pytest.mark.parametrize(
    "result, expected",
    [
        (lambda: wb.spectrum(MODEL), [*SPECTRUM, "clauset2009powerlaw"]),
        (lambda: wb.spectrum(MODEL, xmin="median"), SPECTRUM),
        (
            lambda: wb.spectrum(MODEL, compat="weightwatcher"),
            [*SPECTRUM, "clauset2009powerlaw", "martin2021predicting"],
        ),
        (
            lambda: wb.spectrum(MODEL, xmin=1.0, detail=["noise", "tails"]),
            [
                *SPECTRUM,
                *("johnstone2001largest", "gavish2014optimal", "clauset2009powerlaw", "vuong1989likelihood"),
            ],
        ),
        (lambda: wb.farms(MODEL, window=20), ["weightworkbench", "hu2025farms", "marchenko1967distribution"]),
        (
            lambda: wb.tempbalance(MODEL, learning_rate=0.1, window=20),
            ["weightworkbench", "zhou2023temperature", "hu2025farms", "marchenko1967distribution"],
        ),
        (
            lambda: wb.alphapruning(MODEL, density=0.5, estimator="spectrum", xmin=0.5),
            ["weightworkbench", "lu2024alphapruning", *SPECTRUM[1:]],
        ),
        (lambda: wb.comparison([MODEL, MODEL]), [*SPECTRUM, "clauset2009powerlaw"]),
        (lambda: wb.layers(MODEL), ["weightworkbench"]),
        (lambda: wb.diff(MODEL, MODEL), ["weightworkbench", "yadav2023ties"]),
        (
            lambda: wb.diff(MODEL, MODEL, detail="spectra"),
            ["weightworkbench", "yadav2023ties", "roy2007effective"],
        ),
        (lambda: wb.smoothed(MODEL, keep=2), ["weightworkbench", "eckart1936approximation", "martin2021predicting"]),
        (lambda: _signature(), ["weightworkbench", "cai2023robust"]),
        (lambda: _signature().apply(MODEL), ["weightworkbench", "cai2023robust"]),
        (lambda: wb.load(MODEL), ["weightworkbench"]),
    ],
)
def test_what_a_result_rests_on(result: Callable[[], Any], expected: list[str]) -> None:
    assert keys(wb.cite(result())) == expected


def _signature() -> wb.Signature:
    return wb.signature(ancestor=MODEL, clean=MODEL, robust={name: one + 1 for name, one in MODEL.items()})


@pytest.mark.parametrize("policy", [None, "reset"])
def test_repair_is_cited_where_statistics_were_reset(policy: str | None) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    batches = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(n)), torch.zeros(8, 4)) for n in range(2)]
    evaluator = wb.evaluator(module, batches, torch.nn.functional.mse_loss)
    weights = module.state_dict()
    cited = keys(wb.cite(wb.barrier(evaluator, weights, weights, points=3, batch_norm=policy or "interpolate")))
    assert cited[:3] == ["weightworkbench", "frankle2020linear", "entezari2022role"]
    assert ("jordan2023repair" in cited) == (policy == "reset")
    plane = wb.surface(evaluator, weights, points=3, batch_norm=policy or "interpolate")
    assert ("jordan2023repair" in keys(wb.cite(plane))) == (policy == "reset")
    assert "li2018visualizing" in keys(wb.cite(plane)) and "garipov2018loss" not in keys(wb.cite(plane))


def test_a_figure_cites_what_its_result_does() -> None:
    for result in (wb.spectrum(MODEL, detail=["tails"]), wb.farms(MODEL, window=20), wb.spectrum(MODEL, xmin=0.5)):
        assert keys(wb.cite(wb.figure(result))) == keys(wb.cite(result))
        assert wb.cite(wb.figure(result)).startswith(f"% figure alpha of {result.meta['function']}: ")


def test_saved_weights_remember(tmp_path: Path) -> None:
    saved = wb.save(wb.merge(MODEL, [MODEL], method="slerp"), tmp_path / "merged.safetensors")
    assert keys(wb.cite(wb.load(saved))) == ["weightworkbench", "shoemake1985animating"]


def test_several_give_each_entry_once() -> None:
    searched, windows = wb.spectrum(MODEL), wb.farms(MODEL, window=20)
    text = wb.cite(searched, windows, searched)
    assert keys(text) == [*SPECTRUM, "clauset2009powerlaw", "hu2025farms"]
    assert [line.partition(":")[0] for line in text.splitlines()[:3]] == ["% wb.spectrum", "% wb.farms", ""]


def test_our_own_entry_is_the_citation_file() -> None:
    (kind, _, fields) = next(parsed(wb.cite(wb.layers(MODEL))))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert kind == citation["type"] and fields["title"] == citation["title"]
    assert fields["version"] == citation["version"] == wb.__version__
    assert fields["author"].strip("{}") == citation["authors"][0]["name"]


def test_what_has_no_source_is_refused(unchecked: Callable[..., Any]) -> None:
    with pytest.raises(wb.ArgumentError, match=r"nothing was given: expected a Result"):
        wb.cite()
    found = unchecked(
        "import json, workbench as wb\n"
        "try:\n    wb.cite(3)\nexcept wb.ArgumentError as error:\n    print(json.dumps(str(error)))"
    )
    assert found.startswith("int does not say where it comes from: expected a Result, a figure, weights or a Signature")
