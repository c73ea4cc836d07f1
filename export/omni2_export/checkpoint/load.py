"""A whole checkpoint: model directory, speech encoder and decoder directory, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from omni2_engine.errors import CheckpointError
from omni2_engine.model.config import Capabilities, ModelConfig
from omni2_engine.system.file_content import is_apple_double
from omni2_engine.text import ChatTemplate
from omni2_export.checkpoint.decoder import open_flow, open_vocoder, read_decoder_yaml
from omni2_export.checkpoint.names import check_names
from omni2_export.checkpoint.qwen2 import decoder_config, llm_tensors, open_fusion, speech_lm_tensors
from omni2_export.checkpoint.safetensors_file import open_model_directory, weight_files
from omni2_export.checkpoint.tensors import Tensors
from omni2_export.checkpoint.tokens import read_write, token_config
from omni2_export.checkpoint.torch_file import find_weights
from omni2_export.checkpoint.whisper import open_encoder
from omni2_export.fields import Fields, read_json
from omni2_export.input_files import is_there, require_content
from omni2_export.tokenizer_files import chat_template, special_tokens

SPEECH_TOKENIZER = "tts_tokenizer"  # the path in config.json is overwritten with this at load (spec §1.1)
KNOWN_TOPS = ("model.", "speech_generator.", "lm_head.weight")


@dataclass
class Checkpoint:
    """An opened checkpoint; no weight has been read yet.

    Attributes:
        config: every dimension.
        modules: "encoder" (Whisper names, `projector.*`), "llm", "speech_lm", "fusion", "flow" and "vocoder" → tensors,
            prefixes stripped, weight norm undone, heads resolved.
        sources: module → the weight files it is read from.
        text_tokenizer: directory of the language model's tokenizer.
        speech_tokenizer: directory of the speech language model's.
        chat_template: jinja2 text.
        campplus: the speaker encoder's ONNX file, if the decoder directory has it.
        warnings: sentences the user should see.
    """

    config: ModelConfig
    modules: dict[str, Tensors]
    sources: dict[str, list[Path]]
    text_tokenizer: Path
    speech_tokenizer: Path
    chat_template: str
    campplus: Path | None
    warnings: list[str]


def open_checkpoint(model: Path, *, decoder: Path, speech_encoder: Path | None = None) -> Checkpoint:
    """Open a checkpoint of the released formats (spec §1) and check it whole.

    Args:
        model: LLaMA-Omni2 directory.
        decoder: directory of flow and vocoder.
        speech_encoder: Whisper file, for a model directory without encoder weights.

    Raises:
        CheckpointError: a file is missing or broken, a field is missing or not supported, or tensors do not fit; the
            last in one error that names all of them.
    """
    for path, option in ((model, "CHECKPOINT"), (decoder, "--decoder")):
        if not path.is_dir():
            raise CheckpointError(f"{path} is not a directory", f"{option} takes a directory or a Hugging Face id")
    try:
        return _open(model, decoder, speech_encoder)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"the checkpoint's {error.title} has a `{place}` of {first['input']!r:.80}: {first['msg']}",
            "use weights and configuration of the same model",
        ) from error


def _open(model: Path, decoder: Path, speech_encoder: Path | None) -> Checkpoint:
    warnings = [
        f"{path} is ignored: macOS left it, and it is no part of the model; you may delete it"
        for directory in (model, model / SPEECH_TOKENIZER, decoder)
        for path in sorted(directory.glob("._*"))
        if is_apple_double(path)
    ]
    config = read_json(model / "config.json")
    generator = _generator(config)
    tensors = open_model_directory(model)
    llm_own, speech_own = llm_tensors(tensors, config, warnings), speech_lm_tensors(tensors, warnings)
    llm, speech_lm = decoder_config(config, llm_own), decoder_config(generator, speech_own)
    fusion, fusion_own = open_fusion(tensors, llm, speech_lm)
    encoder = open_encoder(tensors, config, model, speech_encoder, warnings)

    root = read_decoder_yaml(decoder)
    flow_file, vocoder_file = (find_weights(decoder, stem, warnings) for stem in ("flow", "hift"))
    flow_encoder, estimator, flow_own = open_flow(flow_file, root)
    vocoder, vocoder_own = open_vocoder(vocoder_file, root)
    if vocoder.mel != flow_encoder.mel:
        raise CheckpointError(
            f"{root.where}: the flow makes mels of {flow_encoder.mel} bins, the vocoder takes {vocoder.mel}",
            "use flow and vocoder of the same decoder",
        )
    frames = flow_encoder.unit_rate * flow_encoder.ratio
    if frames * vocoder.hop != vocoder.sample_rate:
        warnings.append(
            f"{frames} mel frames a second of {vocoder.hop} samples each do not make {vocoder.sample_rate} Hz: "
            "speech will come out at another speed"
        )

    speech_tokenizer = model / SPEECH_TOKENIZER
    require_content(speech_tokenizer, text=True)
    if not speech_tokenizer.is_dir():
        raise CheckpointError(f"{model} has no directory {SPEECH_TOKENIZER}", "download the whole model directory")
    read, write = read_write(config)
    whole = ModelConfig(
        name=_name(model),
        read=read,
        write=write,
        encoder=encoder.config,
        llm=llm,
        fusion=fusion,
        speech_lm=speech_lm,
        flow_encoder=flow_encoder,
        estimator=estimator,
        vocoder=vocoder,
        tokens=token_config(config, model, speech_tokenizer, llm.vocab, speech_lm.vocab),
        capabilities=Capabilities.model_validate(config.values.get("capabilities") or {}),
    )
    modules: dict[str, Tensors] = {
        "encoder": encoder.tensors,
        "llm": llm_own,
        "speech_lm": speech_own,
        "fusion": fusion_own,
        "flow": flow_own,
        "vocoder": vocoder_own,
    }
    files = weight_files(model)
    sources = {name: files for name in ("llm", "speech_lm", "fusion")}
    sources |= {"encoder": [*files, encoder.file] if encoder.file else files}
    sources |= {"flow": [flow_file], "vocoder": [vocoder_file]}
    strays = [name for name in tensors.names() if not name.startswith(KNOWN_TOPS)]
    check_names(modules, whole, strays)
    template = chat_template(model)
    ChatTemplate(template, special_tokens(model))  # a template that cannot be compiled must not get into an engine
    campplus = decoder / "campplus.onnx"
    return Checkpoint(
        config=whole,
        modules=modules,
        sources=sources,
        text_tokenizer=model,
        speech_tokenizer=speech_tokenizer,
        chat_template=template,
        campplus=campplus if is_there(campplus) else None,
        warnings=warnings,
    )


def _generator(config: Fields) -> Fields:
    """The nested configuration of the speech language model, once the outer one is seen to be of our kind."""
    if not config.has("speech_generator"):
        raise CheckpointError(
            f"{config.where} has no `speech_generator`: it is not a LLaMA-Omni2 model",
            "give one, e.g. ICTNLP/LLaMA-Omni2-0.5B",
        )
    config.require("speech_projector_type", ("linear",))
    if "whisper" not in config.text("speech_encoder_type", "whisper").lower():
        raise config.wrong("speech_encoder_type", "a Whisper encoder, the only kind supported")
    generator = config.section("speech_generator")
    generator.require("model_type", ("qwen2",))
    return generator


def _name(model: Path) -> str:
    """The model's name: its directory's, or its id's where the directory is a snapshot in the Hugging Face cache."""
    path = model.resolve()
    return path.parent.parent.name.rpartition("--")[2] if path.parent.name == "snapshots" else path.name
