"""`config.json` of a LLaMA-Omni2 directory (spec §1.1)."""

from __future__ import annotations

from typing import Any

from omni2_engine.model.config import Capabilities, DecoderConfig
from omni2_export.checkpoint_writer.dimensions import Dimensions
from omni2_export.checkpoint_writer.tokenizer import SPECIALS, Vocabulary


def model_fields(d: Dimensions, vocabulary: Vocabulary) -> dict[str, Any]:
    """`config.json` (spec §1.1)."""
    ids = {"bos_token_id": vocabulary.id(SPECIALS[0]), "eos_token_id": vocabulary.id(SPECIALS[2])}
    encoder = d.encoder
    return {
        "architectures": ["Omni2Speech2SQwen2ForCausalLM"],
        "model_type": "omni2_speech2s_qwen2",
        **_qwen_fields(d.llm, d.tie_llm),
        **ids,
        "speech_encoder": "models/speech_encoder/large-v3.pt",
        "speech_encoder_type": "whisper",
        "speech_encoder_ds_rate": encoder.stack,
        "speech_encoder_hidden_size": encoder.width,
        "speech_encoder_dims": {
            "n_mels": encoder.mel_bins,
            "n_audio_ctx": encoder.context,
            "n_audio_state": encoder.width,
            "n_audio_head": encoder.heads,
            "n_audio_layer": encoder.layers,
        },
        "speech_projector_type": "linear",
        "speech_generator": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            **_qwen_fields(d.speech_lm, d.tie_speech),
            **ids,
        },
        "stream_params": f"({d.read},{d.write})",
        "tts_tokenizer": f"models/{d.name}/tts_tokenizer",
        "unit_vocab_size": d.flow_encoder.units,
        **({} if d.capabilities == Capabilities() else {"capabilities": d.capabilities.model_dump()}),
    }


def _qwen_fields(c: DecoderConfig, tied: bool) -> dict[str, Any]:
    head = {} if c.hidden == c.heads * c.head_dim else {"head_dim": c.head_dim}
    return {
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        **head,
        "intermediate_size": c.ffn,
        "hidden_act": "silu",
        "rms_norm_eps": c.rms_eps,
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.max_positions,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
    }
