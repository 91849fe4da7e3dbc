"""Samples as people see them: images as small heat maps, tokens as text, other rows as bars."""

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_SQUARE = 16  # numbers from which on a row of n² of them is shown as an image
MOST_BARS, MOST_TOKENS = 256, 200
TALL = 84  # pixels of an image's longer side, at least
HIDDEN = ("labels", "attention_mask", "token_type_ids", "position_ids")  # of a batch's tensors: not its input


def samples(data: Iterable[Any], places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[Tensor, str]]:
    """Inputs and labels, if they are numbers, by batch and number in it; the data are walked once."""
    wanted: dict[int, list[int]] = {}
    for batch, sample in places:
        wanted.setdefault(batch, []).append(sample)
    found = {}
    for number, batch in enumerate(data):
        if number in wanted:
            inputs, labels = _inputs(batch), _labels(batch)
            for sample in wanted.pop(number):
                label = "" if labels is None else str(labels[sample].item())
                found[number, sample] = (inputs[sample].detach().cpu(), label)
        if not wanted:
            break
    return found


def sample_html(sample: Tensor, position: int, positions: int, tokens: Any, ends: tuple[float, float]) -> str:
    """A sample, the place that a datapoint has in it marked.

    Args:
        sample: one sample, without the axis of samples.
        position: which of the layer's positions.
        positions: how many the layer has in a sample.
        tokens: names of token ids, or None.
        ends: the values at the two ends of an image's colours.
    """
    if not sample.is_floating_point():
        return _tokens(sample.flatten(), position if positions == sample.numel() else None, tokens)
    image = as_image(sample)
    if image is None:
        return _bars(sample.flatten())
    rows, cols = image.shape[:2]
    width, height = cols / max(rows, cols), rows / max(rows, cols)
    side = max(TALL, max(rows, cols))
    size = f"width:{side * width:.0f}px;height:{side * height:.0f}px"
    mark = _mark(position, positions, rows, cols)
    data = base64.b64encode(_png(_coloured(image, ends))).decode()
    return f'<span class="wb-image" style="{size}"><img alt="" src="data:image/png;base64,{data}">{mark}</span>'


def as_image(sample: Tensor) -> np.ndarray[Any, Any] | None:
    """Rows and columns (and three colours) of a sample that is an image, else None."""
    values = sample.detach().cpu()
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    elif values.ndim == 3 and values.shape[0] == 3:
        values = values.movedim(0, -1)
    if values.ndim == 1 and len(values) >= LEAST_SQUARE and math.isqrt(len(values)) ** 2 == len(values):
        values = values.reshape(math.isqrt(len(values)), -1)
    if values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3):
        found: np.ndarray[Any, Any] = values.double().numpy()
        return found
    return None


def token_name(number: int, tokens: Any) -> str:
    """What a token id is called."""
    if tokens is None:
        return str(number)
    if hasattr(tokens, "convert_ids_to_tokens"):
        return str(tokens.convert_ids_to_tokens([number])[0])
    if hasattr(tokens, "decode"):
        return str(tokens.decode([number]))
    if isinstance(tokens, Mapping):
        return str(tokens.get(number, number))
    if isinstance(tokens, Sequence):
        return str(tokens[number]) if 0 <= number < len(tokens) else str(number)
    return str(tokens(number))


def _inputs(batch: Any) -> Tensor:
    """The tensor of a batch that holds its samples."""
    if isinstance(batch, Mapping):
        named = [one for name, one in batch.items() if isinstance(one, Tensor) and name not in HIDDEN]
        return batch["input_ids"] if isinstance(batch.get("input_ids"), Tensor) else named[0]
    found: Tensor = batch[0] if isinstance(batch, tuple | list) else batch
    return found


def _labels(batch: Any) -> Tensor | None:
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if isinstance(batch, tuple | list) and len(batch) > 1:
        labels = batch[1]
    return labels if isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point() else None


def _tokens(ids: Tensor, position: int | None, tokens: Any) -> str:
    first = 0 if position is None else max(0, min(position - MOST_TOKENS // 2, len(ids) - MOST_TOKENS))
    words = []
    for place, number in list(enumerate(ids.tolist()))[first : first + MOST_TOKENS]:
        word = escape(token_name(int(number), tokens))
        words.append(f"<mark>{word}</mark>" if place == position else word)
    cut = ("… " if first else "", " …" if first + MOST_TOKENS < len(ids) else "")
    return f'<span class="wb-tokens">{cut[0]}{" ".join(words)}{cut[1]}</span>'


def _bars(row: Tensor) -> str:
    """A strip of bars about zero."""
    values = row[:MOST_BARS].double().nan_to_num()
    high, low = max(float(values.max()), 0.0), min(float(values.min()), 0.0)
    span = (high - low) or 1.0
    width = max(2.0, min(14.0, 160 / len(values)))
    bars = "".join(
        f'<rect x="{place * width:.1f}" y="{(high - max(value, 0.0)) / span * 60:.1f}" width="{width - 0.5:.1f}" '
        f'height="{max(abs(value) / span * 60, 0.4):.1f}"><title>{place}: {value:.4g}</title></rect>'
        for place, value in enumerate(values.tolist())
    )
    rest = f" … {len(row) - MOST_BARS:,} more" if len(row) > MOST_BARS else ""
    return f'<svg class="wb-bars" width="{len(values) * width:.0f}" height="60" aria-hidden="true">{bars}</svg>{rest}'


def _mark(position: int, positions: int, rows: int, cols: int) -> str:
    """A frame about the pixels that a position stands for, where the layer's positions divide the image evenly."""
    if positions == 1:
        return ""
    if positions == rows:
        down, across, where = rows, 1, (position, 0)
    else:
        down = math.isqrt(round(positions * rows / cols))
        across = positions // down if down else 0
        if down == 0 or down * across != positions or rows * across != cols * down:
            return ""
        where = divmod(position, across)
    left, top = 100 * where[1] / across, 100 * where[0] / down
    return f'<i style="left:{left:.2f}%;top:{top:.2f}%;width:{100 / across:.2f}%;height:{100 / down:.2f}%"></i>'


def _coloured(image: np.ndarray[Any, Any], ends: tuple[float, float]) -> np.ndarray[Any, Any]:
    """Values as bytes of red, green and blue."""
    low, high = ends
    shares = np.clip((np.nan_to_num(image) - low) / ((high - low) or 1.0), 0, 1)
    if image.ndim == 3:
        return (255 * shares).round().astype(np.uint8)
    places, colors = _cividis()
    return np.stack([np.interp(shares, places, colors[:, part]) for part in range(3)], -1).round().astype(np.uint8)


def _cividis() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The colours of the figures' heat maps."""
    from plotly.colors import get_colorscale, hex_to_rgb

    scale = get_colorscale("cividis")
    return np.array([place for place, _ in scale]), np.array([hex_to_rgb(color) for _, color in scale], float)


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG of rows × cols × 3 bytes."""
    rows, cols = pixels.shape[:2]
    lines = b"".join(b"\0" + pixels[row].tobytes() for row in range(rows))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", cols, rows, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def image_ends(every: Iterable[Tensor]) -> tuple[float, float]:
    """The least and the largest value of samples, so that their colours can be compared."""
    values = [one.double().nan_to_num().flatten() for one in every if one.is_floating_point() and one.numel()]
    if not values:
        return 0.0, 1.0
    whole = torch.cat(values)
    return float(whole.min()), float(whole.max())
