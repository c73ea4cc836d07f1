"""Checks of built graphs against the reference modules, a file per part of the model."""

from omni2_export.reference.checks.encoder import check_encoder
from omni2_export.reference.checks.language_model import check_llm, check_speech_lm
from omni2_export.reference.checks.signals import check_conditions, check_fusion, check_log_mel
from omni2_export.reference.checks.speech import check_flow, check_vocoder
from omni2_export.reference.checks.subject import Subject

CHECKS = (
    check_log_mel,
    check_encoder,
    check_llm,
    check_fusion,
    check_speech_lm,
    check_conditions,
    check_flow,
    check_vocoder,
)

__all__ = ["CHECKS", "Subject"]
