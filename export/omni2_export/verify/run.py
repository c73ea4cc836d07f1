"""One verification from beginning to end: read every golden file, compare each, report what was left out."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

from omni2_engine.backends.onnxruntime.backend import OnnxRuntimeBackend
from omni2_engine.engine import Engine
from omni2_export.build.precision import snr_floors, unscored_stages
from omni2_export.verify.compare import FileComparison
from omni2_export.verify.decoder import compare_units
from omni2_export.verify.goldens import Golden, read_goldens
from omni2_export.verify.llm import compare_multiturn, compare_text_end, compare_turn
from omni2_export.verify.rows import Comparison, VerifyReport
from omni2_export.verify.sampling import compare_sampling
from omni2_export.verify.schema import Kind
from omni2_export.verify.sessions import compare_heard, compare_spoken
from omni2_export.verify.streams import compare_offline, compare_stream

ALL_CONTEXT = 1e6  # seconds the flow looks back on, as the original does without limit; for `Engine.load`


def verify_engine(
    engine: Engine,
    directory: Path,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> VerifyReport:
    """Compare every stage of an engine with a directory of golden files.

    A float32 engine is held to the tolerances of the original; rows that a quantised stage has a part in are held to
    the SNR floor its precision declares, and its ids are only told.

    Args:
        engine: loaded with `ALL_CONTEXT`, the whole window and the original's flow steps.
        directory: holds `.npz` files of the known kinds; others are only told.
        threads: for the graphs that are cut for inspection.
        progress: called with each file's name before its comparison.

    Raises:
        GoldenError: a golden file is damaged or of another model.
    """
    files, strangers = read_goldens(directory, engine.config)
    goldens = {golden.name: golden for golden in files}
    engine = _on_host(engine)
    stored = engine.directory.manifest.precision
    comparison = Comparison(VerifyReport(), snr_floors(stored), unscored_stages(stored))
    backend = OnnxRuntimeBackend(threads)
    for golden in goldens.values():
        progress(golden.name)
        _compare_file(engine, backend, FileComparison(golden, comparison), goldens)
    compare_sampling(directory, engine.config, comparison)
    comparison.report.skipped = {golden.name: golden.unused for golden in goldens.values() if golden.unused}
    comparison.report.skipped |= {name: ["the whole file: it is named as no known kind"] for name in strangers}
    return comparison.report


def _on_host(engine: Engine) -> Engine:
    """The same engine with language models whose logits can be looked at after every call."""
    p = engine.pipeline
    view = copy(engine)
    view.pipeline = replace(p, llm=p.llm.on_host(), speech_lm=p.speech_lm.on_host())
    return view


def _compare_file(
    engine: Engine, backend: OnnxRuntimeBackend, compare: FileComparison, goldens: dict[str, Golden]
) -> None:
    match compare.golden.kind:
        case Kind.TURN:
            compare_turn(engine, backend, compare)
            compare_heard(engine, compare)
        case Kind.MULTITURN:
            compare_multiturn(engine, compare, goldens)
        case Kind.TEXT_END:
            compare_text_end(engine, compare, goldens)
        case Kind.UNITS:
            compare_units(engine, backend, compare)
        case Kind.STREAM:
            compare_stream(engine, backend, compare, goldens)
            compare_spoken(engine, backend, compare, goldens)
        case Kind.OFFLINE:
            compare_offline(engine, backend, compare, goldens)
