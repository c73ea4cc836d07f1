"""Golden turns: log-mel, encoder, prompt, both language models, fusion and the read/write loop (`llm_*.npz`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from omni2_engine.audio.source import read_audio
from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.engine import Engine
from omni2_engine.model.config import WHISPER_SAMPLE_RATE
from omni2_engine.sampling import DrawKey, Stream, choose
from omni2_engine.text.units import units_of_text
from omni2_engine.turn.options import LAST_WRITE, Options
from omni2_export.inspection import open_cut
from omni2_export.verify.compare import FileComparison
from omni2_export.verify.goldens import REMAKE, Golden, GoldenError
from omni2_export.verify.prompts import compare_prompt, spoken_exchanges
from omni2_export.verify.schema import Kind
from omni2_export.verify.tolerances import DEVIATION, LOG_MEL, LOGITS
from omni2_export.verify.turn import AnsweredTurn, greedy, run_turn

Floats = NDArray[np.float32]
LLM, FUSED, SPEECH = ("llm",), ("fusion", "llm"), ("speech_lm", "llm")


def compare_turn(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison) -> None:
    """One spoken turn: every stage on its golden input, then the loop with forced and with greedy tokens."""
    golden = compare.golden
    if "audio16k_i16" in golden:
        _compare_hearing(engine, backend, compare)
        compare_prompt(engine, spoken_exchanges(engine, [golden]), compare)
    if "tts_hidden" in golden and "text_ids" in golden:
        _compare_fusion(engine, backend, compare)
    if "inputs_embeds" in golden:
        _compare_prefill(engine, compare, [len(golden["inputs_embeds"])])
        penalty = engine.config.tokens.repetition_penalty
        for prefix, text_penalty in {"g": penalty, "rp1": 1.0}.items():
            if f"{prefix}_text_ids" in golden:
                _compare_greedy(engine, compare, prefix, text_penalty)
        if "f_tts_tokens" in golden:
            _compare_forced(engine, compare)
    if "f_tts_inputs_final" in golden and "f_tts_logits" in golden:
        _compare_speech_lm(engine, compare)


def _compare_hearing(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison) -> None:
    golden, window = compare.golden, engine.config.encoder.samples / WHISPER_SAMPLE_RATE
    audio = read_audio(golden["audio16k_i16"].astype(np.int16), WHISPER_SAMPLE_RATE, window, "truncate")
    compare.close("log_mel", ("frontend",), engine.pipeline.frontend(audio)[0].T, absolute=LOG_MEL)
    if "log_mel" in golden:
        log_mel = np.ascontiguousarray(golden["log_mel"].T)[None]
        inside = open_cut(backend, engine.directory.graph("encoder"), [], ["encoder_out"])
        compare.close(
            "encoder_out", ("encoder",), inside.run({"log_mel": log_mel})["encoder_out"][0], relative=DEVIATION
        )
        compare.close("projector_out", ("encoder",), engine.pipeline.encoder(log_mel), relative=DEVIATION)


def _compare_fusion(engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison) -> None:
    golden, pipeline = compare.golden, engine.pipeline
    inputs = {"hidden": golden["tts_hidden"], "token_embeds": pipeline.speech_lm.embed(golden.ids("text_ids"))}
    inside = open_cut(backend, engine.directory.graph("fusion"), [], ["input_proj_out"])
    projected = inside.run({name: inputs[name] for name in inside.inputs})["input_proj_out"]
    compare.close("input_proj_out", ("fusion",), projected, relative=DEVIATION)
    compare.close("fused", ("fusion",), pipeline.fusion(**inputs), relative=DEVIATION)


def _compare_prefill(engine: Engine, compare: FileComparison, stops: list[int]) -> None:
    """Feed the golden embeddings, cut at `stops` as a session would feed them, and compare what comes of the last."""
    llm, embeds = engine.pipeline.llm, compare.golden["inputs_embeds"]
    state = llm.new_state(len(embeds))
    for start, stop in zip([0, *stops], stops, strict=False):
        if embeds[start:stop].size:
            llm.extend(state, embeds[start:stop])
    compare.close("prefill_last_logits", LLM, state.logits, absolute=LOGITS)
    compare.close("prefill_last_hidden", LLM, state.hidden, relative=DEVIATION)


def _compare_greedy(engine: Engine, compare: FileComparison, prefix: str, penalty: float) -> None:
    golden = compare.golden
    turn = run_turn(
        engine,
        golden["inputs_embeds"],
        Options(
            text_sampling=greedy(penalty),
            speech_sampling=greedy(),
            max_new_tokens=len(golden.ids(f"{prefix}_text_ids")),
            max_last_write=_last_write(golden, f"{prefix}_group_unit_len", f"{prefix}_tts_tokens"),
        ),
    )
    _compare_tokens(engine, compare, prefix, turn)
    if prefix == "g":
        compare.same("text_ids", LLM, turn.text_ids)
        if "g_top8_ids" in golden and not compare.comparison.quantised(SPEECH):
            _compare_top(turn, compare)


def _compare_top(turn: AnsweredTurn, compare: FileComparison) -> None:
    """The greatest logits of every step, and those of the golden ids: ids of near equals may stand in any order."""
    logits, ids = np.stack(turn.speech_logits), compare.golden["g_top8_ids"]
    top = -np.sort(-logits, axis=1)[:, : ids.shape[1]]
    compare.close("g_top8_vals", SPEECH, top, absolute=LOGITS)
    if len(ids) == len(logits):
        top = np.take_along_axis(logits, ids, axis=1)
        values = compare.golden["g_top8_vals"]
        compare.comparison.close(compare.golden.name, "g_top8_ids (logits)", SPEECH, top, values, absolute=LOGITS)


def _compare_forced(engine: Engine, compare: FileComparison) -> None:
    golden, text_ids = compare.golden, compare.golden.ids("f_text_ids")
    turn = run_turn(
        engine,
        golden["inputs_embeds"],
        Options(max_new_tokens=len(text_ids), max_last_write=_last_write(golden, "f_group_unit_len", "f_tts_tokens")),
        forced={Stream.TEXT: text_ids, Stream.SPEECH: golden.ids("f_tts_tokens")},
    )
    compare.same("f_text_ids", LLM, _chosen(engine, turn.text_logits, text_ids))
    compare.close("llm_logits", LLM, np.stack(turn.text_logits), absolute=LOGITS)
    compare.close("tts_hidden", LLM, np.stack(turn.hidden), relative=DEVIATION)
    assert turn.last_context is not None
    compare.close("f_tts_inputs_final", FUSED, turn.last_context, relative=DEVIATION)
    compare.comparison.close(
        golden.name,
        "f_tts_logits (loop)",
        SPEECH,
        np.stack(turn.speech_logits),
        golden["f_tts_logits"],
        absolute=LOGITS,
    )
    _compare_tokens(engine, compare, "f", turn)


def _chosen(engine: Engine, logits: Sequence[Floats], text_ids: list[int]) -> list[int]:
    """The text ids that the engine's sampler chooses greedily, each after the golden ids before it."""
    sampling, key = greedy(engine.config.tokens.repetition_penalty), DrawKey(0, Stream.TEXT, 0)
    return [choose(row, sampling, key, step, text_ids[:step]) for step, row in enumerate(logits)]


def _compare_speech_lm(engine: Engine, compare: FileComparison) -> None:
    """The speech LM alone, fed the golden context; a write's last token goes in with the next read, as in the loop."""
    golden, model = compare.golden, engine.pipeline.speech_lm
    context, tokens = golden["f_tts_inputs_final"], golden.ids("f_tts_tokens")
    reads, writes = golden.ids("f_group_text_len"), golden.ids("f_group_unit_len")
    if len(context) != sum(reads) + sum(writes[:-1]) + 1 or len(tokens) != sum(writes):
        raise GoldenError(
            f"{golden.path}: group lengths, tokens and context of the forced run do not fit together", REMAKE
        )
    fed = np.concatenate([context, model.embed(tokens[sum(writes[:-1]) :])])
    state, logits, start = model.new_state(len(fed)), [], 0
    for k, (read, written) in enumerate(zip(reads, writes, strict=True)):
        stop = start + read + (1 if k else 0) + (1 if k + 1 == len(reads) else 0)  # the token held back; `<sep>`
        for _ in range(written):
            model.extend(state, fed[start:stop])
            logits.append(state.logits.copy())
            start, stop = stop, stop + 1
    compare.close("f_tts_logits", ("speech_lm",), np.stack(logits), absolute=LOGITS)


def _compare_tokens(engine: Engine, compare: FileComparison, prefix: str, turn: AnsweredTurn) -> None:
    stages = ("loop",) if prefix == "f" else ("loop", "llm", "speech_lm")
    if prefix != "f":  # forced ids would be compared with themselves
        compare.same(f"{prefix}_text_ids", stages, turn.text_ids)
        compare.same(f"{prefix}_tts_tokens", stages, turn.speech_ids)
    compare.same(f"{prefix}_group_text_len", stages, turn.reads)
    compare.same(f"{prefix}_group_unit_len", stages, turn.write_lengths)
    compare.same(f"{prefix}_units_string", stages, "".join(turn.spoken(engine)))
    if f"{prefix}_units_string" in compare.golden:
        known = engine.config.flow_encoder.units
        wanted = [unit for unit in units_of_text(compare.golden.text(f"{prefix}_units_string")) if unit < known]
        compare.comparison.same(compare.golden.name, f"{prefix} units", (*stages, "units"), turn.units, wanted)


def compare_multiturn(engine: Engine, compare: FileComparison, goldens: Mapping[str, Golden]) -> None:
    """The prompt of several turns, prefilled in the pieces a session feeds: an earlier turn is never fed again."""
    golden = compare.golden
    utterances = [_named(goldens, f"llm_{number}", golden) for number in golden.ids("wavs")]
    exchanges = spoken_exchanges(engine, utterances)
    compare_prompt(engine, exchanges, compare)
    stops = []
    for turns in range(1, len(exchanges) + 1):
        asked = len(engine.prompts.lay_out(exchanges[:turns], None).items)
        stops.append(asked)
        if turns < len(exchanges):  # an answer comes token by token
            stops += range(asked + 1, asked + len(exchanges[turns - 1].reply) + 1)
    _compare_prefill(engine, compare, stops)


def compare_text_end(engine: Engine, compare: FileComparison, goldens: Mapping[str, Golden]) -> None:
    """Turns whose text ends by an end token, on every case the file holds."""
    golden = compare.golden
    turns = [other for other in goldens.values() if other.kind is Kind.TURN]
    if not turns:
        raise GoldenError(f"{golden.path} needs an llm_<n>.npz beside it for its prompt", "copy the folder whole")
    prompt = min(turns, key=lambda turn: int(turn.name.removeprefix("llm_")))["inputs_embeds"]
    config = engine.config
    for case in golden.matches("(.+)_text_ids"):
        last_write = _last_write(golden, f"{case}_write_len", f"{case}_tts_tokens")
        turn = run_turn(
            engine,
            prompt,
            Options(
                text_sampling=greedy(config.tokens.repetition_penalty),
                speech_sampling=greedy(),
                max_new_tokens=len(golden.ids(f"{case}_text_ids")) + config.read,  # room to miss the end
                max_last_write=last_write,
            ),
            eos=(golden.ids(f"{case}_eos")[0],),
        )
        stages = ("loop", "llm", "speech_lm")
        capped = golden.ids(f"{case}_max_new")[-1] == last_write  # the file may tell the cap it was made with
        limits = [config.write] * (len(turn.reads) - 1) + [last_write if capped else LAST_WRITE]
        found = {
            "text_ids": turn.text_ids,
            "read_len": turn.reads,
            "ctx_len": turn.contexts,
            "max_new": limits,
            "write_len": turn.write_lengths,
            "tts_tokens": turn.speech_ids,
        }
        for name, value in found.items():
            compare.same(f"{case}_{name}", stages, value)


def _last_write(golden: Golden, lengths: str, tokens: str) -> int:
    """How many tokens the last write has in the file."""
    written = golden.ids(lengths)
    if min(written) < 1 or sum(written) != len(golden.ids(tokens)):
        raise GoldenError(f"{golden.path}: {lengths} does not add up to the length of {tokens}", REMAKE)
    return written[-1]


def _named(goldens: Mapping[str, Golden], name: str, asking: Golden) -> Golden:
    if name not in goldens:
        raise GoldenError(f"{asking.path} refers to {name}.npz, which is not beside it", "copy the folder whole")
    return goldens[name]
