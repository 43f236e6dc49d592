"""No mistake of the product but a fault of its disk."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.mutants.replacement import Function, replace

DISK_THAT_HANGS = "disk-that-hangs"
STALL = "stall"
"""While a file of this name is in its data directory, the agent's disk does not sync."""


def disk_that_hangs(data_dir: str) -> None:
    """fdatasync does not return while the file STALL is there."""

    def make(original: Function) -> Function:
        def sync(file: Any) -> None:
            while os.path.exists(os.path.join(data_dir, STALL)):
                time.sleep(0.005)
            original(file)

        return sync

    replace("impl.runtime.real_disk:RealFile.sync", make)
