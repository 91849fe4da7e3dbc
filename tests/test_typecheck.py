"""The checks of the tests check: shapes, types, methods and dataclasses of a module that is loaded with them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import typecheck
import workbench as wb

SOURCE = """
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

def product(a: Float[Tensor, "m n"], b: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
    return a @ b if a.shape[0] != 4 else a

def half(value: float) -> float:
    return value / 2

@dataclass(frozen=True)
class Pair:
    one: int

    def plus(self, other: int) -> int:
        return self.one + other
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("checked") / "checked.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_loader("checked", typecheck.Loader("checked", str(path)))
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert not list(path.parent.rglob("*.pyc")), "an ordinary import would run it"
    return made


def test_shapes_are_those_of_all_arguments(module: ModuleType) -> None:
    assert module.product(torch.ones(2, 3), torch.ones(3, 5)).shape == (2, 5)
    for a, b in (((2, 3), (2, 5)), ((2,), (2, 5)), ((4, 3), (3, 5))):  # the last is returned in another shape
        with pytest.raises(Exception, match="m n|m k|n k"):
            module.product(torch.ones(a), torch.ones(b))


def test_types_are_checked(module: ModuleType) -> None:
    assert module.half(3) == 1.5 and module.Pair(1).plus(2) == 3
    for wrong in (lambda: module.half("3"), lambda: module.Pair("1"), lambda: module.Pair(1).plus(2.5)):
        with pytest.raises(Exception, match="violates type hint"):
            wrong()


def test_the_workbench_is_loaded_with_them(path: Path = Path("x")) -> None:
    with pytest.raises(Exception, match="violates type hint"):
        wb.figure({}, 3)
