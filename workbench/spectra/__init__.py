"""Eigenvalue spectra of weight matrices, and what their tails are used for."""

from workbench.spectra.alphapruning import AlphaPruning, alphapruning
from workbench.spectra.comparison import Comparison, comparison
from workbench.spectra.farms import Farms, farms
from workbench.spectra.power_law import PowerLaw, power_law
from workbench.spectra.spectrum import Spectrum, spectrum
from workbench.spectra.tempbalance import TempBalance, tempbalance
from workbench.spectra.tempbalance_scheduler import TempBalanceScheduler
from workbench.spectra.transforms import sharpened, smoothed

__all__ = [
    "AlphaPruning",
    "Comparison",
    "Farms",
    "PowerLaw",
    "Spectrum",
    "TempBalance",
    "TempBalanceScheduler",
    "alphapruning",
    "comparison",
    "farms",
    "power_law",
    "sharpened",
    "smoothed",
    "spectrum",
    "tempbalance",
]
