"""`latency.json` as a page to read."""

from __future__ import annotations

from typing import Any

from omni2_bench.common.gpu import gpu_line
from omni2_bench.common.results import table
from omni2_bench.latency.rounds import REFERENCE

RATIOS = {
    "first_chunk": "first chunk",
    "after_prefill": "first chunk, after the prefill",
    "answer": "whole answer",
    "chunk": "last chunk alone",
    "growth": "chunk cost, last block against the second",
}


def page(record: dict[str, Any]) -> str:
    """Tables of one benchmark."""
    machine, request = record["machine"], record["request"]
    head = (
        f"# Latency of {request['model']}\n\n"
        f"{machine['processor']} ({machine['family']}; {', '.join(machine['flags'])}), {machine['threads']} threads, "
        f"{record['rounds']} interleaved rounds, medians with p10 to p90. "
        + ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
        + ".\n"
    )
    parts = [head, _table6(record), _ratios(record), _turns(record), _reference(record)]
    if "places" in record:
        parts[1:1] = [_places(record), _paper(record), _calls(record)]
    return "\n".join(parts)


def _summary(figures: dict[str, float], unit: str = "") -> str:
    return f"{figures['median']:.2f}{unit} ({figures['p10']:.2f} to {figures['p90']:.2f})"


def _table6(record: dict[str, Any]) -> str:
    variants = record["variants"]
    theirs = variants[REFERENCE]["first_chunk"]
    rows = []
    for name in _shown(record):
        variant, cells = variants[name], []
        for row, figures in variant["first_chunk"].items():
            cells.append(f"{figures['median']:.2f} s (×{theirs[row]['median'] / figures['median']:.2f})")
        rows.append([name, *cells])
    return "## First chunk, from the waveform to the first sound\n\n" + table(["", *theirs], rows)


def _places(record: dict[str, Any]) -> str:
    """Where it ran, and the GPU's state when the benchmark began."""
    gpu = record["machine"].get("gpu")
    lines = [f"GPU: {'nvidia-smi says nothing here' if gpu is None else gpu_line(gpu)}."]
    lines += [f"{name}: {place}." for name, place in record["places"].items() if name in _shown(record)]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _paper(record: dict[str, Any]) -> str:
    """The paper's line of this size and schedule above the measured ones."""
    paper, rows = record["paper"], []
    if paper is not None:
        theirs = [1e3 * paper[part] for part in ("llm", "speech", "synthesis", "total")]
        rows.append(["the paper's original, one L40", *(f"{value:.2f}" for value in theirs)])
    for name in _shown(record):
        figures = record["variants"][name]["first_chunk"].values()
        rows.append([f"{name}, measured", *(f"{1e3 * part['median']:.2f}" for part in figures)])
    title = "## Beside the paper's Table 6: first chunk, ms\n\n"
    if paper is None:
        title += "The paper has no line of this size and schedule.\n\n"
    else:
        title += f"LLaMA-Omni2-{paper['size']}, R = {paper['read']}, W = {paper['write']}.\n\n"
    return title + table(["", "LLM", "TTS", "FM+Voc", "total"], rows)


def _calls(record: dict[str, Any]) -> str:
    """What every group of graphs took in a whole turn."""
    rows = []
    for name, variant in record["variants"].items():
        for group, figures in variant.get("calls", {}).items():
            device, host = figures["device"], figures["host"]
            each = f"{1e3 * device / figures['calls']:.3f}"
            rows.append([f"{name}: {group}", str(figures["calls"]), each, f"{1e3 * device:.1f}", f"{1e3 * host:.1f}"])
    text = (
        "Sums over a whole turn, medians of the rounds: by events on the stage's stream around every call, copies of "
        "what it reads and writes included, and beside it the host's time for the same steps.\n\n"
    )
    header = ["", "calls", "device, ms each", "device, ms", "host, ms"]
    return "## Time on the device\n\n" + text + table(header, rows)


def _shown(record: dict[str, Any]) -> tuple[str, ...]:
    """The reference, every preset with its usual memory, and those with growing chunks."""
    return (REFERENCE, *record["spread"])


def _ratios(record: dict[str, Any]) -> str:
    presets = list(record["spread"])
    rows = []
    for key in record["spread"][presets[0]]:
        kind, _, which = key.rpartition("_") if key.rpartition("_")[0] in RATIOS else (key, "", "")
        label = f"{RATIOS[kind]} ({which.replace('s', ' s')})" if which else RATIOS[kind]
        found = [record["spread"][preset].get(key) for preset in presets]
        rows.append([label, *("" if figures is None else _summary(figures) for figures in found)])
    text = "How many times faster than the reference in the same round; growth is the engine's own.\n\n"
    return "## Ratios\n\n" + text + table(["", *presets], rows)


def _turns(record: dict[str, Any]) -> str:
    rows = []
    for name, variant in record["variants"].items():
        line, memory = variant.get("chunk_fit"), variant["memory"].get("RssAnon")
        rows.append(
            [
                name,
                _summary(variant["answer"], " s"),
                f"{variant['rtf']['median']:.2f}",
                f"{variant['rtf_after_first_chunk']['median']:.2f}",
                f"{variant['core_seconds_per_second']['median']:.2f}",
                "" if line is None else f"{line['first']:.2f} → {line['last']:.2f} s, {line['verdict']}",
                f"{variant['start_in']['median']:.2f} s",
                f"{variant['underrun_worst']['median']:.2f} s",
                f"{variant['underrun_total']['median']:.2f} s",
                f"{100 * variant['continuity']:.0f} %",
                "?" if memory is None else f"{memory / 2**30:.2f} GiB",
            ]
        )
    header = [
        "",
        "whole answer",
        "RTF",
        "RTF after the first chunk",
        "core-seconds per second",
        "chunk cost, second → last block",
    ]
    header += ["a player waits", "worst underrun", "underrun in all", "continuity", "anonymous memory"]
    return "## The whole answer\n\n" + table(header, rows)


def _reference(record: dict[str, Any]) -> str:
    rows, known = [], any("original" in figures for figures in record["reference_rows"].values())
    for row, figures in record["reference_rows"].items():
        cells = [row, f"{figures['seconds']:.3f} s", f"{figures['of_encoder']:.4f}"]
        if "original" in figures:
            cells += [f"{figures['original']:.4f}", f"{100 * figures['deviation']:+.0f} %"]
        rows.append(cells + [""] * (2 if known and "original" not in figures else 0))
    header, text = ["", "seconds", "of the encoder"], "Every row divided by the encoder row.\n\n"
    if known:
        header += ["original", "deviation"]
        text = (
            "Every row divided by the encoder row, beside the same of the original itself on another machine: "
            "rows bound by memory or by convolutions move where its balance was another.\n\n"
        )
    return "## The reference\n\n" + text + table(header, rows)
