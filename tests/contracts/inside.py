"""Runs the contract with QEMU where there is no pytest: in a node.

``python3 -m tests.contracts.inside FOLDER`` prints a line for each test, and ends with 1 if one failed.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from tests.contracts.grounds import QemuGround
from tests.contracts.hypervisors import HypervisorContract


def main(folder: Path) -> int:
    failed = 0
    for number, name in enumerate(n for n in dir(HypervisorContract) if n.startswith("test_")):
        # Short names: the path of a socket has its limit.
        ground = QemuGround(folder / str(number))
        (folder / str(number)).mkdir()
        try:
            getattr(HypervisorContract(), name)(ground)
        except Exception:
            failed += 1
            traceback.print_exc()
            print("failed:", name)
        else:
            print("passed:", name)
        finally:
            ground.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
