"""What leaves the notebook: a page that works offline, references, and a report of this machine."""

from workbench.sharing.cite import cite
from workbench.sharing.doctor import Doctor, doctor
from workbench.sharing.export import export

__all__ = ["Doctor", "cite", "doctor", "export"]
