"""Tensors a piece at a time: whole again in order, and memory that is used again."""

import torch

from workbench.linalg.pieces import flat_pieces


def test_pieces_are_the_whole_in_order_in_one_dtype() -> None:
    one, other = torch.arange(10).reshape(2, 5).half(), torch.arange(10.0, dtype=torch.float64).reshape(5, 2)
    found = [[piece.clone() for piece in pieces] for pieces in flat_pieces(one, other, size=4)]
    assert [len(pieces[0]) for pieces in found] == [4, 4, 2]
    for place, whole in enumerate((one, other)):
        joined = torch.cat([pieces[place] for pieces in found])
        assert joined.dtype == torch.float64 and torch.equal(joined, whole.reshape(-1).double())


def test_what_is_cast_goes_through_one_memory_and_the_rest_is_the_tensor_s_own() -> None:
    cast, own = torch.ones(8), torch.ones(8, dtype=torch.float64)
    places = [[piece.data_ptr() for piece in pieces] for pieces in flat_pieces(cast, own, size=4)]
    assert places[0][0] == places[1][0]
    assert [row[1] for row in places] == [own.data_ptr(), own[4:].data_ptr()]
    assert not any(piece.requires_grad for piece in next(flat_pieces(cast.requires_grad_())))
