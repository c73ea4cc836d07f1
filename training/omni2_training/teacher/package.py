"""Stage `voice`: the teacher's voice out of the npm package `kokoro-js`."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from omni2_engine.errors import Omni2Error
from omni2_training.workspace import Workspace

PACKAGE = "kokoro-js@1.2.1"
CHECKSUMS = {
    "af_heart": "d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b"
}  # sha256 of the voices that have been used


def voice_file(workspace: Workspace, voice: str) -> Path:
    """Where the voice lies once `fetch_voice` has run."""
    return workspace.path("packages", "kokoro-js", "package", "voices", f"{voice}.bin")


def fetch_voice(workspace: Workspace, voice: str) -> None:
    """Download the package with npm's own client and unpack its voices.

    Raises:
        Omni2Error: npm is missing or fails, or the voice is another than it was.
    """
    path = voice_file(workspace, voice)
    if not path.is_file():
        root = path.parents[2]
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                raise Omni2Error(f"npm cannot fetch {PACKAGE}: {error}", "install npm and try again") from error
            [archive] = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as tar:
                members = [m for m in tar if m.name.startswith("package/voices/") or m.name == "package/LICENSE"]
                tar.extractall(root, members, filter="data")
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if found != CHECKSUMS.get(voice, found) or found == "missing":
        raise Omni2Error(f"the voice {voice} of {PACKAGE} is {found}", "choose a voice the package has, unchanged")
