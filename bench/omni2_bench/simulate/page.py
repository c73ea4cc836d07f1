"""`simulate.json` as a page to read."""

from __future__ import annotations

from typing import Any

from omni2_bench.common.results import table
from omni2_bench.common.statistics import AUDIBLE
from omni2_bench.simulate.effort import QUESTION
from omni2_bench.simulate.sweep import CONTINUOUS, LOADS, ORIGINAL, OURS
from omni2_engine.settings.tuning import MEMORY

ORDERS = {"deadline": "deadlines", "arrival": "first come"}


def page(record: dict[str, Any]) -> str:
    """Everything that was computed, in tables."""
    share = record["shares"]["likely"]
    head = (
        f"# Simulated GPUs\n\n**This is a model: {record['note']}.** A call takes its bytes at "
        f"{100 * share['memory']:g} % of the data sheet's bandwidth or its arithmetic at {100 * share['compute']:g} %, "
        f"the longer of the two, and {1e6 * share['launch']:g} µs for every kernel that waits for another; the host "
        f"takes {1e6 * share['hop']:g} µs for every call of a stage (an assumption). Kernels were counted, not timed. "
        "Weights, caches and arithmetic are in 16 bits; `fast` has language models in int4, `fp8` these and the "
        "encoder in fp8, whose products take half the time, `mixed` encoder and prefill in fp8 and decoding weights in "
        "int8 and int4. The beginning of a prompt, which is the same in all turns, is kept from the first. `tail`: the "
        f"encoder computes a question of {QUESTION:g} s and reads the silence behind it.\n"
    )
    parts = [_first_chunk(record), _evidence(record["evidence"]), _sessions(record), _capacity(record)]
    return "\n".join([head, *parts, _overload(record["overload"]), _paper(record["paper"])])


def _first_chunk(record: dict[str, Any]) -> str:
    rows, stages = [], list(record["first_chunk"][0]["stages_ms"])
    for row in record["first_chunk"]:
        paper = "" if row["paper_ms"] is None else f"{row['paper_ms']:.0f} ms"
        kernels = sum(row["kernels"].values())
        rows.append(
            [
                f"{row['size']}, {row['device'].removeprefix('NVIDIA ')}, {row['runtime']}, {row['precision']}"
                + (", tail" if row["encoder"] == "tail" else ""),
                paper,
                f"{row['ours_ms']:.0f} ms",
                f"{row['best_ms']:.0f} to {row['worst_ms']:.0f} ms",
                f"{kernels:,}",
                *(f"{row['stages_ms'][stage]:.0f} ms, {row['kernels'][stage]:,}" for stage in stages),
            ]
        )
    best, worst = record["shares"]["best"], record["shares"]["worst"]
    text = (
        f"The band is from {100 * best['memory']:g} % and {1e6 * best['launch']:g} µs to {100 * worst['memory']:g} % "
        f"and {1e6 * worst['launch']:g} µs. Every stage is given with its time and kernels. Alone on the device, one "
        f"stage follows another in any schedule; the goal is {record['goal_ms']:.0f} ms.\n\n"
    )
    header = ["", "paper, measured", "computed", "band", "kernels", *stages]
    return "## First chunk of one session\n\n" + text + table(header, rows)


def _evidence(found: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['what']}, {row['device']}" + (", fitted" if row["fitted"] else ""),
            f"{row['measured_ms']:.2f} ms",
            f"{row['predicted_ms']:.2f} ms",
            f"{100 * row['miss']:+.0f} %",
            row["source"],
        ]
        for row in found["measured"]
    ]
    text = (
        "Measured by others, batch 1, beside what the model says of the same. The fitted ones are missed by "
        f"{100 * found['rms_miss']:.1f} % (root mean square), {100 * abs(found['worst_miss']):.0f} % at worst.\n\n"
    )
    return "## What it was fitted to\n\n" + text + table(["", "measured", "the model", "miss", "source"], rows)


def _sessions(record: dict[str, Any]) -> str:
    load, device = record["load"], record["devices"][0]
    text = (
        f"On one {device['name']}. Sessions begin {load['arrivals_s']:g} s apart on average (Poisson, seed "
        f"{load['seed']}) and ask {load['turns']} questions each, {load['question_s'][0]:g} to "
        f"{load['question_s'][1]:g} s after they have heard the answer before; an answer has {load['text_tokens'][0]} "
        f"to {load['text_tokens'][1]} text tokens and {load['units_per_token']:g} units for each. Every question is "
        "prefilled without history. RTF counts from the question to the last chunk, waiting included. Memory is "
        "weights, the language models' caches of every session, and the flow's of as many turns as were answered at "
        f"once, of which there are {100 * MEMORY.share:g} % of what weights leave: the rest is for calls. What exceeds "
        f"{device['memory'] / 1e9:g} GB could not run so. Of two figures the first is of {OURS[0]} streams, the second "
        f"of {OURS[1]}; the original answers one question after another at the paper's times.\n\n"
    )
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in record["sessions"]:
        found.setdefault((cell["size"], cell["sessions"]), {})[cell["schedule"]] = cell
    rows = []
    for (size, sessions), schedules in found.items():
        ours, original = [schedules[name] for name in OURS], schedules.get(ORIGINAL)
        rows.append(
            [
                size,
                str(sessions),
                *(" / ".join(_time(cell[key]) for cell in ours) for key in ("first_chunk", "first_chunk_p90")),
                " / ".join(f"{cell['rtf']:.2f}" for cell in ours),
                *(" / ".join(_time(cell[key]) for cell in ours) for key in ("underrun", "underrun_p90")),
                " / ".join(f"{100 * cell['continuity']:.0f} %" for cell in ours),
                f"{_time(original['first_chunk_p90'])}, {100 * original['continuity']:.0f} %" if original else "",
                f"{ours[0]['memory_bytes'] / 1e9:.0f} GB" + ("" if ours[0]["fits"] else " (too much)"),
            ]
        )
    header = ["", "sessions", "first chunk", "p90", "RTF", "worst underrun", "p90", "continuity"]
    return "## Many sessions\n\n" + text + table([*header, "original: first chunk p90, continuity", "memory"], rows)


def _capacity(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['size']}, {row['precision']}, {row['schedule']}",
            *(_most(row[kind], row["most"]) for kind in ("by_time", "with_memory")),
        ]
        for row in record["capacity"]
    ]
    text = (
        f"Sessions of the same kind of load, {LOADS} of each number, of whose turns {100 * CONTINUOUS:g} % have no gap "
        f"of {1e3 * AUDIBLE:.0f} ms: by time alone, and with memory for weights and caches.\n\n"
    )
    return "## How many are too many\n\n" + text + table(["", "by time", "with memory"], rows)


def _overload(found: dict[str, Any]) -> str:
    rows = [
        [
            ORDERS[order],
            _time(served["first_chunk"]),
            _time(served["first_chunk_p90"]),
            _time(served["underrun"]),
            _time(served["underrun_p90"]),
            f"{100 * served['continuity']:.0f} %",
        ]
        for order, served in found["orders"].items()
    ]
    header = ["order", "first chunk", "p90", "worst underrun", "p90", "continuity"]
    text = f"{found['sessions']} sessions with {found['size']} in both orders, one call at a time.\n\n"
    return "## Twice what the device can do\n\n" + text + table(header, rows)


def _most(sessions: int, most: int) -> str:
    return f"{sessions} or more" if sessions == most else str(sessions)


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def _paper(found: dict[str, Any]) -> str:
    constants = ", ".join(f"`{name}` {value:.0f}" for name, value in found["constants_us"].items())
    rows = [
        [
            f"{line['size']}, ({line['R']}, {line['W']})" + (", fitted" if line["fitted"] else ""),
            f"{line['total_ms']:.2f} ms",
            f"{line['predicted_ms']:.2f} ms",
            f"{100 * line['error']:+.2f} %",
        ]
        for line in [*found["trials"], *found["other_sizes"]]
    ]
    turn, met = found["turn"], "met" if found["kept"] else "missed"
    return (
        f"## The original's schedule in five constants\n\nLeast squares on the fitted lines: {constants}. The worst "
        f"held-out total is off by {100 * found['worst_held_out_error']:+.2f} % ({100 * found['promised_error']:g} % "
        f"promised: {met}). Other sizes have their own LLM column with the {found['size']} model's speech LM, flow and "
        f"vocoder. After a first chunk of {turn['first_sound_ms']:.0f} ms of sound, {turn['first_chunk_ms']:.0f} ms "
        f"after the question, the player waits {turn['first_gap_ms']:.0f} ms for the second.\n\n"
        + table(["size, (R, W)", "paper", "predicted", "error"], rows)
    )
