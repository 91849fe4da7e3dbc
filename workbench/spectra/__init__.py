"""Eigenvalue spectra of weight matrices."""

from workbench.spectra.farms import Farms, farms
from workbench.spectra.power_law import PowerLaw, power_law
from workbench.spectra.spectrum import Spectrum, spectrum

__all__ = ["Farms", "PowerLaw", "Spectrum", "farms", "power_law", "spectrum"]
