"""`python -m omni2_training STAGE`: one stage, or all of them in their order."""

from __future__ import annotations

from omni2_training.cli import main

main()
