"""Targets are read or refused, and refused again where the TensorRT of this machine cannot build for them."""

from __future__ import annotations

import pytest

from omni2_engine.backends.tensorrt.library import MAINLINE, TensorRt
from omni2_engine.errors import BackendError, SettingError
from omni2_export.tensorrt import targets
from omni2_export.tensorrt.targets import check_buildable, parse_targets


def test_targets_are_read() -> None:
    both = parse_targets("cpu, SM89,sm86,sm89")
    assert both.cpu and both.gpus == ("sm89", "sm86") and both.names == ("cpu", "sm89", "sm86")
    assert not parse_targets("sm120").cpu and parse_targets("cpu").gpus == ()
    for wrong in ("", "gpu", "sm", "89", "sm89;sm86", "sm9000", "cpu,"):
        with pytest.raises(SettingError, match="target"):
            parse_targets(wrong)


def test_rtx_builds_for_what_it_lists(library: TensorRt) -> None:
    if not library.builds_for_other_gpus:
        pytest.skip("mainline TensorRT is installed")
    assert check_buildable(("sm80", "sm86", "sm89", "sm120")) is library
    with pytest.raises(BackendError, match="no plans for sm90") as caught:
        check_buildable(("sm89", "sm90"))
    assert "CUDA provider" in caught.value.remedy


@pytest.mark.parametrize("present", [None, "sm90"])
def test_mainline_builds_for_the_gpu_present(monkeypatch: pytest.MonkeyPatch, present: str | None) -> None:
    mainline = TensorRt(module=None, flavour=MAINLINE, version="11.0", logger=None)
    monkeypatch.setattr(targets, "find_tensorrt", lambda: mainline)
    monkeypatch.setattr(targets, "gpu_architecture", lambda: present)
    if present:
        assert check_buildable((present,)) is mainline
    with pytest.raises(BackendError, match=present or "there is no GPU"):
        check_buildable(("sm89",))
