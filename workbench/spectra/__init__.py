"""Eigenvalue spectra of weight matrices."""

from workbench.spectra.comparison import Comparison, comparison
from workbench.spectra.farms import Farms, farms
from workbench.spectra.power_law import PowerLaw, power_law
from workbench.spectra.spectrum import Spectrum, spectrum
from workbench.spectra.transforms import sharpened, smoothed

__all__ = [
    "Comparison",
    "Farms",
    "PowerLaw",
    "Spectrum",
    "comparison",
    "farms",
    "power_law",
    "sharpened",
    "smoothed",
    "spectrum",
]
