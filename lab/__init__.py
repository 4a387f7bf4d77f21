"""Two or three micro-VMs with real OpenZFS, for tests, demonstrations and benchmarks.

`with Lab() as lab:` starts them; `python -m lab` does so by hand. See lab/README.md.
"""

from lab.audit import Seen, Started
from lab.errors import LabError
from lab.lab import Lab
from lab.node import Completed, Node

__all__ = ["Completed", "Lab", "LabError", "Node", "Seen", "Started"]
