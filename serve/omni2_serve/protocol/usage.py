"""What a response cost, in positions of the models."""

from __future__ import annotations

from typing import Any

from omni2_engine.turn.metrics import TurnMetrics


def usage(metrics: TurnMetrics | None) -> dict[str, Any]:
    """The object `usage` of a response; zeros where the turn did not come so far.

    A token of input is a position of the prompt, text or speech; cached are those that the KV cache held. A token of
    output is one of the text or one of the speech language model.
    """
    m = metrics or TurnMetrics()
    heard = min(m.speech_positions, m.prompt_positions)
    return {
        "total_tokens": m.prompt_positions + m.text_tokens + m.speech_tokens,
        "input_tokens": m.prompt_positions,
        "output_tokens": m.text_tokens + m.speech_tokens,
        "input_token_details": {
            "cached_tokens": m.reused_positions,
            "text_tokens": m.prompt_positions - heard,
            "audio_tokens": heard,
            "image_tokens": 0,
            "cached_tokens_details": {
                "text_tokens": max(m.reused_positions - heard, 0),
                "audio_tokens": min(m.reused_positions, heard),
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": m.text_tokens, "audio_tokens": m.speech_tokens},
    }
