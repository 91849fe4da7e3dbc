"""Eight corruptions of images in [0, 1], each a plain function of images and a generator."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "samples 1 rows cols"]
Corruption = Callable[[Images, torch.Generator], Images]

NOISE, PHOTONS, SPECKLE = 0.4, 3.0, 1.0
SPREAD, RADIUS = 1.3, 1.8
CONTRAST, BRIGHTNESS, ANGLE = 0.3, 0.4, 45.0


def gauss_noise(images: Images, random: torch.Generator) -> Images:
    """Normal noise: x + 0.4·n."""
    return (images + NOISE * torch.randn(images.shape, generator=random)).clamp(0, 1)


def shot(images: Images, random: torch.Generator) -> Images:
    """Photons: Poisson(3x)/3, three where the image is white."""
    return (torch.poisson(images * PHOTONS, generator=random) / PHOTONS).clamp(0, 1)


def speckle(images: Images, random: torch.Generator) -> Images:
    """Normal noise in proportion: x + x·n."""
    return (images + SPECKLE * images * torch.randn(images.shape, generator=random)).clamp(0, 1)


def blur(images: Images, random: torch.Generator) -> Images:
    """A Gaussian of standard deviation 1.3 pixels."""
    return _filtered(images, lambda squared: torch.exp(-squared / (2 * SPREAD**2)))


def defocus(images: Images, random: torch.Generator) -> Images:
    """A disk of radius 1.8 pixels."""
    return _filtered(images, lambda squared: (squared <= RADIUS**2).float())


def contrast(images: Images, random: torch.Generator) -> Images:
    """Towards the middle grey: 0.3·(x − 0.5) + 0.5."""
    return CONTRAST * (images - 0.5) + 0.5


def bright(images: Images, random: torch.Generator) -> Images:
    """Brighter: x + 0.4, at most 1."""
    return (images + BRIGHTNESS).clamp(0, 1)


def rotate45(images: Images, random: torch.Generator) -> Images:
    """Turned by 45 degrees, bilinear."""
    cos, sin = math.cos(math.radians(ANGLE)), math.sin(math.radians(ANGLE))
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _filtered(images: Images, weight: Callable[[Tensor], Tensor]) -> Images:
    """The mean of 5 × 5 neighbours with weights by their squared distance; beyond the edge all is black."""
    squares = torch.arange(-2.0, 3.0).square()
    kernel = weight(squares[:, None] + squares)
    return F.conv2d(images, (kernel / kernel.sum())[None, None], padding=2)


CORRUPTIONS: Mapping[str, Corruption] = {
    function.__name__: function for function in (gauss_noise, shot, speckle, blur, defocus, contrast, bright, rotate45)
}
FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("gauss_noise", "shot", "speckle"), "noise"),
    **dict.fromkeys(("blur", "defocus"), "blur"),
    **dict.fromkeys(("contrast", "bright"), "light"),
    "rotate45": "geometry",
}
