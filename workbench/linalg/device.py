"""Where to compute."""

import torch

from workbench.errors import ArgumentError


def resolved_device(device: str) -> torch.device:
    """The torch device that `device` means; `"auto"` is CUDA when there is one, else the CPU.

    Raises:
        ArgumentError: the name is unknown, or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:0'.") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device={device!r}: torch sees no CUDA device here; use device='auto' or 'cpu'.")
    if resolved.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device={device!r}: expected 'auto', 'cpu' or 'cuda', the devices with float64.")
    return resolved
