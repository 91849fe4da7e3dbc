"""Eigenvalue spectra of weight matrices, and what their tails are used for."""

from workbench.spectra.alphapruning import AlphaPruning, alphapruning
from workbench.spectra.farms import Farms, farms
from workbench.spectra.power_law import PowerLaw, power_law
from workbench.spectra.spectrum import Spectrum, spectrum
from workbench.spectra.tempbalance import TempBalance, tempbalance
from workbench.spectra.tempbalance_scheduler import TempBalanceScheduler

__all__ = [
    "AlphaPruning",
    "Farms",
    "PowerLaw",
    "Spectrum",
    "TempBalance",
    "TempBalanceScheduler",
    "alphapruning",
    "farms",
    "power_law",
    "spectrum",
    "tempbalance",
]
