"""Eigenvalue spectra of weight matrices."""

from workbench.spectra.power_law import PowerLaw, power_law
from workbench.spectra.spectrum import Spectrum, spectrum

__all__ = ["PowerLaw", "Spectrum", "power_law", "spectrum"]
