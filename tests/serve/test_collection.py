"""Later collections of a server's process do not look at what was loaded."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
import omni2_serve.app
from omni2_serve.collection import leave_out_what_is_loaded
loaded = len(gc.get_objects())
leave_out_what_is_loaded()
assert len(gc.get_objects()) < loaded / 100, (len(gc.get_objects()), loaded)
"""


def test_what_is_loaded_is_left_out_of_collections() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
