"""BibTeX of what a result rests on."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

from workbench.errors import ArgumentError
from workbench.figures import FigureSpec
from workbench.results import Result
from workbench.signatures import MERGE_METHODS, Signature
from workbench.version import __version__
from workbench.weights import Weights

Keys: TypeAlias = Iterable[str]
Citable: TypeAlias = Result | FigureSpec | Weights | Signature

OURS = "weightworkbench"
NOISE = "marchenko1967distribution"  # every verdict is first a comparison with this law
HEAVY, FIT, FARMS = "martin2021implicit", "clauset2009powerlaw", "hu2025farms"
WEIGHTWATCHER = "martin2021predicting"
DEGENERACY, LOCAL = "bushnaq2024degeneracy", "bushnaq2024local"
REBASIN, REPAIR, RWS = "ainsworth2023git", "jordan2023repair", "cai2023robust"
STATISTICS = ("spearman1904proof", "bonett2000sample", "freedman1983nonstochastic", "holm1979simple")
DETAILS = {
    "noise": ("johnstone2001largest", "gavish2014optimal"),
    "tails": (FIT, "vuong1989likelihood"),
    "goodness": (FIT,),
}


def cite(*results: Citable) -> str:
    """BibTeX of what results rest on = the workbench + the papers of the analyses and of the parameters they ran with.

    A spectrum with a searched xmin cites Clauset, Shalizi and Newman, and one with a given xmin does not; a barrier
    cites REPAIR if statistics of batch norm were reset. A comment above the entries says what each result rests on.

    Args:
        results: a Result, a figure of one (`wb.figure`), weights that were merged, patched, repaired, smoothed or
            sharpened here, a Signature; several give each entry once.

    Returns:
        Comment lines and entries, in the order in which the results need them.

    Raises:
        ArgumentError: nothing was given, or something that carries no provenance, such as a number or a data frame.

    Cost: none to speak of.

    Source: the Source sections of the docstrings, whose entries were looked up one by one.

    Misreads: it knows what was computed, not what is argued: related work is yours to cite. Weights remember their last
    step, and what they were saved with; a checkpoint that was trained elsewhere has sources nobody here knows.

    Example:
        >>> import torch
        >>> from workbench import spectrum
        >>> print(cite(spectrum({"fc.weight": torch.eye(60)}, xmin=1.0)).splitlines()[0])
        % wb.spectrum: martin2021implicit, marchenko1967distribution
    """
    if not results:
        raise ArgumentError("nothing was given: expected a Result, a figure, merged weights or a Signature.")
    told, keys = [], [OURS]
    for result in results:
        name, own = _basis(result)
        own = list(dict.fromkeys(own))
        told.append(f"% {name}: {', '.join(own) or 'no paper'}")
        keys += own
    entries = references()
    return "\n".join(dict.fromkeys(told)) + "\n\n" + "\n\n".join(entries[key] for key in dict.fromkeys(keys)) + "\n"


@cache
def references() -> Mapping[str, str]:
    """Every entry by its key: the workbench's own, and those of `references.bib`."""
    text = files("workbench.sharing").joinpath("references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{.*?^\}", text, flags=re.MULTILINE | re.DOTALL)
    found = {entry.partition("{")[2].partition(",")[0]: entry for entry in entries}
    own = (
        f"@software{{{OURS},\n  title = {{weight-workbench}},\n  author = {{{{The weight-workbench maintainers}}}},\n"
        f"  version = {{{__version__}}},\n}}"
    )
    return {OURS: own, **found}


def _basis(result: Citable) -> tuple[str, Keys]:
    """What a result is called, and the keys of what it rests on."""
    if isinstance(result, Result):
        return str(result.meta["function"]), _of_call(str(result.meta["function"]), result.meta)
    if isinstance(result, FigureSpec):
        function, parameters = _parsed(result.provenance.get("call", ""))
        return f"figure {result.kind} of {function}", _of_call(function, {"parameters": parameters})
    if isinstance(result, Signature):
        return "wb.signature", [RWS]
    if isinstance(result, Weights):
        return "weights", _of_weights(result)
    raise ArgumentError(
        f"{type(result).__name__} does not say where it comes from: "
        "expected a Result, a figure, weights or a Signature."
    )


def _parsed(call: str) -> tuple[str, dict[str, Any]]:
    """Function and parameters of the call in a figure's provenance, `wb.spectrum(…, xmin='search')`."""
    function, _, rest = call.partition("(")
    try:
        tree = ast.parse(f"f({rest.replace('…, ', '', 1).replace('…', '', 1)}", mode="eval").body
    except SyntaxError:
        return function, {}
    parameters = {}
    for keyword in tree.keywords if isinstance(tree, ast.Call) else ():
        if keyword.arg:
            try:
                parameters[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                continue  # a name such as nan: no rule asks for it
    return function, parameters


def _of_call(function: str, meta: Mapping[str, Any]) -> Keys:
    rule = RULES.get(function.removeprefix("wb."))
    return rule({**meta.get("parameters", {}), "meta": meta}) if rule else ()


def _spectrum(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (HEAVY, NOISE)
    if given.get("xmin") == "search":
        yield FIT
    if given.get("compat") == "weightwatcher":
        yield WEIGHTWATCHER
    for detail in given.get("detail") or ():
        yield from DETAILS.get(detail, ())


def _farms(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (FARMS, NOISE)
    if given.get("xmin") == "search":
        yield FIT


def _estimated(*first: str) -> Callable[[Mapping[str, Any]], Iterator[str]]:
    """An analysis on top of the exponents of `spectrum` or of `farms`."""

    def keys(given: Mapping[str, Any]) -> Iterator[str]:
        yield from first
        analysis = given.get("estimator", given.get("analysis"))
        yield from _farms(given) if analysis == "farms" else _spectrum(given)

    return keys


def _reset(*first: str) -> Callable[[Mapping[str, Any]], Iterator[str]]:
    """An analysis between networks: REPAIR only where it was used."""

    def keys(given: Mapping[str, Any]) -> Iterator[str]:
        yield from first
        if given.get("batch_norm") == "reset":
            yield REPAIR

    return keys


def _surface(given: Mapping[str, Any]) -> Iterator[str]:
    three = len(given["meta"].get("sources", ())) == 3
    yield "garipov2018loss" if three else "li2018visualizing"
    yield from _reset()(given)


def _match(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (REBASIN, "ito2024analysis")
    if given.get("method", "weights") != "weights":
        yield "li2016convergent"


def _basis_of(kind: Any) -> Iterator[str]:
    """What an interaction basis rests on; principal components and neurons are there to compare with."""
    if kind in ("integrated", "gradient-flow"):
        yield DEGENERACY
    elif kind == "local":
        yield LOCAL


def _graph(given: Mapping[str, Any]) -> Iterator[str]:
    yield DEGENERACY if given.get("edges") == "functional" else LOCAL
    yield from _basis_of((given["meta"].get("basis") or {}).get("kind"))


def _diff(given: Mapping[str, Any]) -> Iterator[str]:
    yield "yadav2023ties"
    details = given.get("detail") or ()
    if "spectra" in details:
        yield "roy2007effective"
    if "activations" in details:
        yield "kornblith2019similarity"


def _of_weights(weights: Weights) -> Iterator[str]:
    saved = json.loads(weights.metadata.get("workbench", "{}")) if weights.metadata else {}
    story = " ".join([weights.source, str(saved.get("source", "")), *weights.notes])
    for name, method in MERGE_METHODS.items():
        if re.search(rf"\b{name}\(", story):
            yield from keys_of(method.SOURCE)
    for word, keys in STORIES.items():
        if word in story:
            yield from keys


def keys_of(source: str) -> list[str]:
    """The entries that a line of sources names, by arXiv number or by first author and year."""
    number = re.search(r"\d{4}\.\d{4,5}", source)
    found = []
    for key, entry in references().items():
        fields = dict(re.findall(r"^\s*(\w+) = \{(.*)\},$", entry, flags=re.MULTILINE))
        named = fields.get("author", "").partition(",")[0] in source and fields.get("year", "none") in source
        if fields.get("eprint") == number[0] if number else named:
            found.append(key)
    return found


RULES: Mapping[str, Callable[[Mapping[str, Any]], Keys]] = {
    "spectrum": _spectrum,
    "farms": _farms,
    "comparison": _estimated(),
    "tempbalance": _estimated("zhou2023temperature"),
    "alphapruning": _estimated("lu2024alphapruning"),
    "contents": lambda given: ["chan1983algorithms"],
    "permutation_groups": lambda given: [REBASIN],
    "match": _match,
    "match_many": _match,
    "barrier": _reset("frankle2020linear", "entezari2022role"),
    "surface": _surface,
    "activations": lambda given: ["chan1983algorithms", "roy2007effective"],
    "degeneracy": lambda given: [DEGENERACY],
    "interaction_basis": lambda given: _basis_of(given.get("kind")),
    "interaction_graph": _graph,
    "interaction_modules": lambda given: ["newman2006modularity", "traag2019leiden", LOCAL],
    "ablation": lambda given: [LOCAL, *_basis_of((given["meta"].get("basis") or {}).get("kind"))],
    "diff": _diff,
    "similarity": lambda given: [RWS],
    "atlas": lambda given: STATISTICS,
}
STORIES = {
    "REPAIR at t": (REPAIR,),
    "signature of": (RWS,),
    "(smoothed": ("eckart1936approximation", WEIGHTWATCHER),
    "(sharpened": (HEAVY, WEIGHTWATCHER),
    " pruned": ("lu2024alphapruning",),
}
