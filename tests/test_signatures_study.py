"""The study of signatures: its acceptance on the shipped networks, measured here, and what was saved."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb

DATA = Path(__file__).parents[1] / "data"
CHECKPOINTS = DATA / "checkpoints"

sys.path.insert(0, str(DATA))
try:
    import build
    import signatures_study as module
    from corruptions import CORRUPTIONS, FAMILIES
finally:
    sys.path.remove(str(DATA))

Signatures = dict[str, wb.Signature]


def shipped(name: str, seed: int) -> wb.Weights:
    return wb.load(CHECKPOINTS / f"digits-corruptions-{name}-seed{seed}.safetensors")


def taken(seed: int) -> Signatures:
    ancestor, clean = shipped("ancestor", build.corruption_family.ANCESTORS[seed]), shipped("clean", seed)
    return {name: wb.signature(ancestor=ancestor, clean=clean, robust=shipped(name, seed)) for name in CORRUPTIONS}


@pytest.fixture(scope="module")
def signatures() -> dict[int, Signatures]:
    return {seed: taken(seed) for seed in (0, 1, 2)}


@pytest.fixture(scope="module")
def evaluators() -> dict[str | None, wb.Evaluator]:
    network = build.RECIPES["digits-corruptions-clean"].module()
    data = {name: build.corrupted(name) for name in (None, *CORRUPTIONS)}
    return {
        name: wb.evaluator(network, [(one.test_x, one.test_y)], "cross_entropy", device="cpu")
        for name, one in data.items()
    }


@pytest.fixture(scope="module")
def study() -> wb.Result:
    return wb.open_result(DATA / "results" / "signatures")


def mean(evaluators: dict[str | None, wb.Evaluator], weights: dict[str, Any]) -> float:
    """Accuracy over the corruptions, each with the weights for it."""
    return sum(evaluators[name](weights[name])["accuracy"] for name in CORRUPTIONS) / len(CORRUPTIONS)


# Acceptance, on the files that are shipped


def test_the_nearest_signature_is_of_the_same_type(signatures: dict[int, Signatures]) -> None:
    for seed in (0, 1):
        found = wb.similarity(signatures[seed], types=FAMILIES)
        words = found.frame()["verdict"].tolist()
        assert words.count("same type") >= 6 and words.count("not judged") == 1  # a rotation is alone of its type
        assert found.within > found.between + 0.3


def test_another_data_seed_gives_the_same_signature_again(signatures: dict[int, Signatures]) -> None:
    found = wb.similarity(signatures[0], signatures[1])
    assert found.frame()["verdict"].tolist().count("same type") >= 7
    assert found.within > 0.6 > 0.3 > found.between


def test_another_initialisation_gives_nothing_alike(signatures: dict[int, Signatures]) -> None:
    found = wb.similarity(signatures[0], signatures[2])
    assert float(found.matrix().abs().to_numpy().max()) < 0.1


def test_a_signature_makes_robust_scaled_and_in_few_bits(
    signatures: dict[int, Signatures], evaluators: dict[str | None, wb.Evaluator], tmp_path: Path
) -> None:
    clean, own = shipped("clean", 0), signatures[0]
    base = mean(evaluators, dict.fromkeys(CORRUPTIONS, clean))
    half, full = (mean(evaluators, {n: s.apply(clean, scale=a) for n, s in own.items()}) for a in (0.5, 1.0))
    shuffled = mean(evaluators, {name: module.shuffled(one, 0).apply(clean) for name, one in own.items()})
    assert full - base >= 0.15 and full - shuffled >= 0.2
    assert base < half < full
    stored = {
        name: wb.Signature.load(one.save(tmp_path / f"{name}.safetensors", bits=4)).apply(clean)
        for name, one in own.items()
    }
    assert mean(evaluators, stored) >= full - 0.015


def test_a_signature_comes_off_the_shipped_network_where_subtraction_fails(
    signatures: dict[int, Signatures], tmp_path: Path
) -> None:
    clean = shipped("clean", 0)
    wrong = elements = 0
    for signature in signatures[0].values():
        patched = signature.apply(clean)
        undo = patched.save_undo(tmp_path / "undo.safetensors")
        found = wb.Signature.remove(wb.save(patched, tmp_path / "patched.safetensors"), undo)
        for name, before in clean.items():
            assert torch.equal(found[name].view(torch.int32), before.view(torch.int32))
            wrong += int((patched[name] - signature[name] != before).sum())
            elements += before.numel()
    assert 0.01 < wrong / elements < 0.5, "one element in seven would stay wrong"


def test_few_bits_of_three_layers_are_a_small_share_of_the_model(
    signatures: dict[int, Signatures], tmp_path: Path
) -> None:
    """26 times smaller without the headers, which are of the size of so small a signature themselves."""
    own = signatures[0]["blur"].only("conv[123]")
    path = own.save(tmp_path / "s.safetensors", bits=4)
    head = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    payload = path.stat().st_size - head
    assert payload == sum(-(-tensor.numel() // 2) + 8 for tensor in own.values()) == 2992
    assert shipped("clean", 0).bytes / payload > 26


# The saved study


def test_every_family_has_every_measurement(study: wb.Result) -> None:
    runs = study.frame("runs")
    assert set(runs["family"]) == set(module.SEEDS)
    counts = runs.groupby(["measure", "setting"]).size()
    assert set(counts) == {5, 5 * len(CORRUPTIONS)}
    assert (study.frame()["families"] == 5).all()
    assert module.claimed(runs.to_dict("records")) == study.frame().to_dict("records")


def test_the_verdicts_are_the_spec_s(study: wb.Result) -> None:
    verdicts = study.frame().groupby("claim", sort=False)["verdict"].first().to_dict()
    expected = {
        "shallow layers differ most": "yes",
        "signatures tell types apart": "yes",
        "consistent across data seeds": "yes",
        "consistent across initialisations": "no",
        "patching makes robust": "yes",
        "scaling is monotone": "yes",
        "signatures compose": "yes",
        "composition needs 1/K": "yes",
        "batch norm: a control is needed": "yes",
        "batch norm: the signature adds to it": "yes",
    }
    assert {claim: verdicts[claim] for claim in expected} == expected


def test_the_shipped_family_measured_again_is_as_saved(
    signatures: dict[int, Signatures], evaluators: dict[str | None, wb.Evaluator], study: wb.Result
) -> None:
    """The study trained it anew: other processors round otherwise, and an image or two may be read otherwise."""
    runs = study.frame("runs").query("family == 0 and measure == 'scaling'")
    clean = shipped("clean", 0)
    for scale in (0.0, 0.5, 1.0):
        saved = runs[runs["setting"] == f"{scale:g}"].set_index("corruption")["value"]
        for name in ("gauss_noise", "blur", "bright"):
            found = evaluators[name](signatures[0][name].apply(clean, scale=scale))["accuracy"]
            assert found == pytest.approx(saved[name], abs=0.03)


def test_a_verdict_needs_its_interval() -> None:
    values = [0.1, 0.2, 0.3]
    found = module.verdict("c", "m", 0.0, values)
    assert (found["mean"], found["families"]) == (pytest.approx(0.2), 3)
    assert found["high"] - found["mean"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert [module.verdict("c", "m", least, values)["verdict"] for least in (-0.1, 0.0, 0.5)] == [
        "yes",
        "not shown",
        "no",
    ]
