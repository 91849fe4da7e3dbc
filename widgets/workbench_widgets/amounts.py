"""Numbers of things and bytes, as statuses say them."""

UNITS = ("B", "kB", "MB", "GB", "TB")


def count_text(count: int, noun: str) -> str:
    """A number of things, as in the reprs of results: `1 tensor`, `2,000 tensors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(count: int) -> str:
    """Bytes as people say them, in powers of 1000."""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"
