"""The two Qwen2 decoders and the fusion between them: dimensions, tensors and tied heads (spec §1.1, §5, §6)."""

from __future__ import annotations

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import DecoderConfig, FusionConfig
from omni2_export.checkpoint.tensors import Selection, Tensors, agreed_dimension, overlaid, renamed, under_prefix
from omni2_export.fields import MOST_LAYERS, Fields

EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"
NOT_OURS = ("speech_encoder.", "speech_projector.")  # live under `model.` too
BUFFER = ".rotary_emb.inv_freq"  # older transformers stored this; it follows from rope_theta


def refuse_unsupported(config: Fields) -> None:
    """Refuse a Qwen2 configuration whose mathematics we do not have.

    Raises:
        CheckpointError: naming the first such field.
    """
    config.require("hidden_act", ("silu",))
    config.require("use_sliding_window", (False,))
    config.require("partial_rotary_factor", (1,))
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.values.get(key) or {}
        fields = Fields(rope, f"{config.where}: {key}")
        for kind in ("rope_type", "type"):
            fields.require(kind, ("default",))
        unknown = set(rope) - {"rope_type", "type", "rope_theta"}
        if unknown:
            raise CheckpointError(
                f"{fields.where}: `{min(map(str, unknown))}` is not supported", "use a model without it"
            )
    if config.has("quantization_config"):
        raise CheckpointError(
            f"{config.where}: `quantization_config`: the weights are quantised", "use the original bf16 model"
        )
    kinds = config.values.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise CheckpointError(f"{config.where}: `layer_types` is {kinds!r:.80}", "only full attention is supported")


def decoder_config(config: Fields, tensors: Tensors) -> DecoderConfig:
    """Dimensions of one decoder, from its configuration; the vocabulary from its tensors.

    Raises:
        CheckpointError: a field is missing or contradicts another.
    """
    refuse_unsupported(config)
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if not config.has("head_dim") and hidden % heads:
        raise CheckpointError(
            f"{config.where}: `num_attention_heads` {heads} does not divide {hidden}", "give `head_dim`"
        )
    head_dim = config.integer("head_dim", hidden // heads)
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads or head_dim % 2:
        raise CheckpointError(
            f"{config.where}: {heads} heads of width {head_dim} cannot share {kv_heads} key-value heads",
            "heads must be a multiple of key-value heads, and their width even",
        )
    rope = config.section("rope_parameters") if config.has("rope_parameters") else config
    return DecoderConfig(
        vocab=agreed_dimension(tensors, (EMBEDDING, 0), (HEAD, 0), default=config.integer("vocab_size", 1)),
        hidden=hidden,
        layers=config.integer("num_hidden_layers", most=MOST_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=config.integer("intermediate_size"),
        rms_eps=_positive(config, "rms_norm_eps"),
        rope_theta=_positive(rope if rope.has("rope_theta") else config, "rope_theta"),
        max_positions=config.integer("max_position_embeddings"),
    )


def _positive(config: Fields, key: str) -> float:
    value = config.number(key)
    if value <= 0:
        raise config.wrong(key, "a number above 0")
    return value


def llm_tensors(tensors: Tensors, config: Fields, warnings: list[str]) -> Selection:
    """The language model, its head resolved: tied to the embedding if `tie_word_embeddings` says so."""

    def rename(name: str) -> str | None:
        if name == HEAD:
            return HEAD
        inner = name.removeprefix("model.")
        return None if inner == name or inner.startswith(NOT_OURS) or name.endswith(BUFFER) else inner

    own = renamed(tensors, rename)
    stated = config.has("tie_word_embeddings")
    if HEAD in own.names() and not config.flag("tie_word_embeddings", False):
        return own
    if HEAD not in own.names() and not stated:
        warnings.append(f"the language model has no {HEAD} and nothing says it is tied; its embedding is used")
    return _tied(own) if config.flag("tie_word_embeddings", True) else own


def speech_lm_tensors(tensors: Tensors, warnings: list[str]) -> Selection:
    """The speech language model. Its head is used if the file has one, with either value of the flag; else it is tied
    (spec §1.1)."""
    inner = under_prefix(tensors, "speech_generator.model.")

    def rename(name: str) -> str | None:
        return None if name.endswith(BUFFER) else name.removeprefix("model.")

    own = renamed(inner, rename)
    if HEAD in own.names():
        return own
    warnings.append(
        f"the speech language model has no {HEAD}; its embedding is used (upstream would draw a random head)"
    )
    return _tied(own)


def _tied(own: Selection) -> Selection:
    if EMBEDDING not in own.names():
        return own
    return overlaid(Selection({HEAD: own.source(EMBEDDING)}), own)


def open_fusion(tensors: Tensors, llm: DecoderConfig, speech_lm: DecoderConfig) -> tuple[FusionConfig, Selection]:
    """Gate fusion: what `speech_generator.` holds beside the speech language model."""

    def rename(name: str) -> str | None:
        inner = name.removeprefix("speech_generator.")
        return None if inner == name or inner.startswith("model.") else inner

    own = renamed(tensors, rename)
    hidden = agreed_dimension(own, ("input_proj.0.weight", 0), ("input_proj.0.bias", 0), ("input_proj.2.weight", 1))
    return FusionConfig(llm_hidden=llm.hidden, hidden=hidden, speech_hidden=speech_lm.hidden), own
