"""A directory for what the user named: a directory itself, or a Hugging Face id to download or find cached."""

from __future__ import annotations

import re
from pathlib import Path

from omni2_engine.errors import CheckpointError
from omni2_export.input_files import require_content

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
UNUSED = ["*.plan", "*.zip", "flow.decoder.estimator*", "speech_tokenizer_v2.onnx", "*.wav", "*.mp4"]


def resolve(name: str, *, revision: str | None = None, token: str | None = None, cache: Path | None = None) -> Path:
    """The directory of a model.

    `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the other settings of huggingface_hub hold where nothing is given.

    Args:
        name: a directory, or a Hugging Face id such as `ICTNLP/LLaMA-Omni2-7B`.
        revision: branch, tag or commit.
        token: access token.
        cache: cache directory.

    Raises:
        CheckpointError: there is no such directory, or the download failed; it says what to download, and where to.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        user = Path(name).parts[0]
        raise CheckpointError(f"{name} is not a directory: there is no user {user[1:]}", "write the path out") from None
    if path.is_dir():
        return path
    require_content(path, text=True)
    if path.exists() or not REPOSITORY.fullmatch(name) or name.startswith("."):
        raise CheckpointError(f"{name} is not a directory", "give a model directory or a Hugging Face id (owner/name)")
    by_hand = f"download https://huggingface.co/{name} into a directory and give that directory instead of the id"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"downloading {name} needs huggingface_hub", f"pip install 'omni2-engine[export]', or {by_hand}"
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision, token=token, cache_dir=cache, ignore_patterns=UNUSED))
    except Exception as error:  # network, disk, permission and server errors of several libraries
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name} could not be downloaded: {reason:.300}", by_hand) from error
