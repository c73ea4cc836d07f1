"""Makes what lies beside it: a checkpoint of random weights in the released formats, and its goldens.

    python tests/goldens/make.py DIRECTORY

The checkpoint comes out the same to the bit everywhere, as long as random checkpoints are made as they are now. The
goldens come from PyTorch: their floats differ in the last digits from one processor to another.
"""

from __future__ import annotations

import sys
from pathlib import Path

from omni2_bench.random_checkpoint import PRESETS, CheckpointPaths, write_checkpoint
from omni2_engine.cli.app import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIMENSIONS = PRESETS["tiny"].changed(
    text_tokens=12, last_units=12, decoder_storage="F16",
    encoder={"mel_bins": 40, "context": 60, "width": 32, "heads": 2, "ffn": 48, "layers": 1, "projector_hidden": 32},
    llm={"vocab": 290, "hidden": 48, "heads": 4, "kv_heads": 2, "layers": 2, "ffn": 48},
    speech_lm={"vocab": 360, "hidden": 32, "heads": 2, "kv_heads": 1, "layers": 2, "ffn": 48},
    flow_encoder={"units": 60, "width": 32, "heads": 2, "ffn": 48, "up_ffn": 48, "blocks": 1, "up_blocks": 1,
                  "mel": 20, "unit_rate": 10},
    estimator={"width": 16, "heads": 2, "head_dim": 8, "mid_blocks": 1, "ffn": 32, "time_hidden": 32, "speaker": 32},
    vocoder={"upsample_rates": (4, 2), "upsample_kernels": (8, 4), "sample_rate": 800, "base": 32, "harmonics": 1,
             "fft": 20, "fft_hop": 5, "resblock_kernels": (3, 5), "resblock_dilations": ((1, 3), (1, 2)),
             "source_kernels": (7, 11), "source_dilations": ((1, 3), (1, 3)), "f0_width": 16},
)  # fmt: skip


def make_arrays(checkpoint: Path, arrays: Path) -> int:
    """Golden arrays of a checkpoint; returns the exit status of `omni2-engine verify --write-goldens`."""
    paths = CheckpointPaths.below(checkpoint)
    options = {"decoder": paths.decoder, "voice": EXAMPLES / "sum.wav", "write-goldens": arrays}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    questions = [f"--audio={EXAMPLES / name}" for name in ("question.wav", "sum.wav")]
    return run(["verify", str(paths.model), *arguments, *questions])


def main(directory: Path) -> int:
    """Write `checkpoint/` and `arrays/`."""
    write_checkpoint(directory / "checkpoint", DIMENSIONS)
    return make_arrays(directory / "checkpoint", directory / "arrays")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
