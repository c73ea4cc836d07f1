"""`.pt` files: PyTorch's pickled state dicts, mapped rather than read, with nothing in them executed."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from omni2_engine.errors import CheckpointError
from omni2_export.checkpoint.safetensors_file import SafetensorsFile
from omni2_export.checkpoint.tensors import Float32, finite, to_float32
from omni2_export.input_files import is_there, require_content

if TYPE_CHECKING:
    import torch

STATE = "model_state_dict"  # where a Whisper file keeps its tensors, beside its `dims` (spec §1.3)


class TorchFile:
    """One `.pt` file: a flat state dict, or a Whisper one with `dims` and `model_state_dict`.

    `metadata` holds what stands beside the tensors as JSON text, as a converted `.safetensors` file does.

    Args:
        path: the file.

    Raises:
        CheckpointError: missing, truncated, not a state dict, holding code, or torch is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _load(path)
        nested = content.get(STATE)
        state = nested if isinstance(nested, dict) else content
        import torch

        self._tensors = {
            name: tensor.detach().resolve_neg()
            for name, tensor in state.items()
            if isinstance(name, str) and isinstance(tensor, torch.Tensor)
        }
        if not self._tensors:
            raise CheckpointError(f"{path} holds no tensors", "give the state dict of the model")
        self._dtypes: dict[torch.dtype, np.dtype[np.generic]] = {
            torch.float64: np.dtype(np.float64),
            torch.float32: np.dtype(np.float32),
            torch.float16: np.dtype(np.float16),
            torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
            torch.int64: np.dtype(np.int64),
            torch.int32: np.dtype(np.int32),
            torch.int16: np.dtype(np.int16),
            torch.int8: np.dtype(np.int8),
            torch.uint8: np.dtype(np.uint8),
            torch.bool: np.dtype(np.bool_),
        }
        for name, tensor in self._tensors.items():
            if tensor.layout != torch.strided or tensor.dtype not in self._dtypes or tensor.device.type != "cpu":
                raise CheckpointError(
                    f"{path}: `{name}` is a {tensor.dtype} tensor of a kind we do not read", "save it as plain float"
                )
        dims = content.get("dims")
        self.metadata = _plain_entries(content)
        if state is nested and _is_plain(dims):
            self.metadata["dims"] = json.dumps(dims)

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> np.dtype[np.generic]:
        return self._dtypes[self._tensors[name].dtype]

    def stored(self, name: str) -> npt.NDArray[np.generic]:
        """A view of the mapped file, in the type it is stored in."""
        return self._array(self._tensors[name])

    def read(self, name: str) -> Float32:
        return finite(to_float32(self.stored(name)), f"{self.path}: `{name}`")

    def rows(self, name: str, start: int, stop: int) -> Float32:
        return finite(to_float32(self._array(self._tensors[name][start:stop])), f"{self.path}: `{name}`")

    def _array(self, tensor: torch.Tensor) -> npt.NDArray[np.generic]:
        import torch

        if tensor.dtype == torch.bfloat16:  # numpy has no such type of its own
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()


def torch_installed() -> bool:
    """Whether `.pt` files can be read here."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _load(path: Path) -> dict[Any, Any]:
    require_content(path, text=False)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", "check the path, or download the file")
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"reading {path.name} needs PyTorch",
            "pip install 'omni2-engine[torch]', or give the .safetensors file that `omni2-engine convert` makes of it",
        ) from error
    try:
        # Only zip archives can be mapped; files from before torch 1.6 are none.
        content = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
    except Exception as error:  # hostile input: the unpickler fails in many ways
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read: {reason}", "download the file again from a trusted place"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a state dict", "give the model's state dict"
        )
    return content


def _is_plain(dims: object) -> bool:
    return isinstance(dims, dict) and all(isinstance(k, str) and type(v) is int for k, v in dims.items())


def _plain_entries(content: dict[Any, Any]) -> dict[str, str]:
    """What stands beside the tensors and is numbers, text, or lists and tables of them, as JSON: `epoch`, for one."""
    entries = {}
    for name, value in content.items():
        if isinstance(name, str) and name not in ("dims", STATE):
            with contextlib.suppress(TypeError, ValueError, RecursionError):  # tensors, and what else JSON lacks
                entries[name] = json.dumps(value)
    return entries


def open_weights(path: Path) -> SafetensorsFile | TorchFile:
    """A weight file by its suffix: `.safetensors` without torch, anything else as a `.pt`.

    Raises:
        CheckpointError: missing, broken, or torch is needed and not installed.
    """
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def find_weights(directory: Path, stem: str, warnings: list[str]) -> Path:
    """`<stem>.safetensors` or `<stem>.pt` in a directory, the former first as it needs no torch.

    Args:
        directory, stem: where to look, and for what.
        warnings: gets a sentence if the file taken is older than the other.

    Raises:
        CheckpointError: neither is there.
    """
    for suffix in (".safetensors", ".pt"):
        if is_there(path := directory / f"{stem}{suffix}"):
            warn_if_older(path, directory / f"{stem}.pt", warnings)
            return path
    raise CheckpointError(f"{directory} holds neither {stem}.pt nor {stem}.safetensors", "download the whole directory")


def warn_if_older(taken: Path, original: Path, warnings: list[str]) -> None:
    """Say that a `.safetensors` file is read though the `.pt` beside it is newer."""
    if taken.suffix != ".safetensors" or not original.is_file() or taken == original:
        return
    if taken.stat().st_mtime < original.stat().st_mtime:
        warnings.append(
            f"{taken} is read, and is older than {original.name} beside it: if that has other weights, remove "
            f"{taken.name} and run `omni2-engine convert {original}`"
        )
