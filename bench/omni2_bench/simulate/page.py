"""`simulate.json` as a page to read."""

from __future__ import annotations

from typing import Any

from omni2_bench.common.results import table
from omni2_bench.common.statistics import AUDIBLE
from omni2_bench.simulate.overload import OVERLOAD
from omni2_bench.simulate.sweep import ORIGINAL, OURS

LOADS = {
    "burst": "{most} long answers under way, {most} short ones begin after {after:g} s",
    "lasting": "{twice} long answers",
}
ORDERS = {"deadline": "deadlines", "arrival": "first come"}


def page(record: dict[str, Any]) -> str:
    """Everything that was computed, in tables."""
    device, share = record["device"], record["efficiency"]
    head = (
        f"# A simulated {device['name']}\n\n"
        f"**This is a model: {record['note']}.** Stage times follow from the model's dimensions and the data sheet "
        f"({device['bandwidth'] / 1e9:g} GB/s, {device['operations'] / 1e12:g} TFLOPS dense bf16), at "
        f"{100 * share['memory']:g} % of the bandwidth and {100 * share['compute']:g} % of the arithmetic, with "
        f"{record['launch_us']:g} µs for every kernel that waits for another (an assumption; the data sheet says "
        "nothing of it). Weights, caches and arithmetic are in bf16.\n"
    )
    parts = [_verdict(record), _first_chunk(record), _sessions(record), _overload(record["overload"])]
    return "\n".join([head, *parts, _paper(record["paper"])])


def verdict(record: dict[str, Any]) -> list[str]:
    """What the first chunk is beside the paper's and the goal, a sentence per size."""
    lines = []
    for row in record["first_chunk"]:
        paper, ours, least = row["paper_ms"], row["ours_ms"], row["efficiency_that_equals_paper"]
        if least is None:
            beaten = f"the paper's {paper:.0f} ms is not beaten even at 100 % of the limits"
        else:
            beaten = f"the paper's {paper:.0f} ms is beaten from {100 * least:.1f} % of the limits on"
        at_stated = f"at the stated efficiencies {ours:.0f} ms, {row['times_faster_than_paper']:.2f} times as fast"
        share, best = row["efficiency_for_goal"], row["ours_at_all_of_the_limits_ms"]
        if share is None:
            goal = f"{record['goal_ms']:.0f} ms are out of reach: {best:.0f} ms at 100 %"
        else:
            goal = f"{record['goal_ms']:.0f} ms are reached from {100 * share:.0f} % on"
        lines.append(f"{row['size']}: {beaten} ({at_stated}); {goal}.")
    return lines


def _verdict(record: dict[str, Any]) -> str:
    text = "One session, memory and arithmetic at the same share of their limits.\n\n"
    return "## Which efficiency is enough\n\n" + text + "".join(f"- {line}\n" for line in verdict(record))


def _first_chunk(record: dict[str, Any]) -> str:
    rows = [
        [
            row["size"],
            f"{row['paper_ms']:.0f} ms",
            f"{row['original_at_limits_ms']:.0f} ms",
            f"{row['ours_ms']:.0f} ms",
            f"{row['one_call_at_a_time_ms']:.0f} ms",
            f"{row['ours_at_all_of_the_limits_ms']:.0f} ms",
        ]
        for row in record["first_chunk"]
    ]
    header = ["", "paper, measured", "original's steps", "ours", "ours, one call at a time", "ours at 100 %"]
    text = (
        "All but the first column are computed. A first chunk that is alone on the device is one stage after another "
        "in any schedule, so the original's steps take as long at the same efficiencies. Streams that run at the same "
        "time do not slow each other in the model; one call at a time is the other extreme, and a GPU is to be "
        "expected between.\n\n"
    )
    return "## First chunk of one session\n\n" + text + table(header, rows)


def _sessions(record: dict[str, Any]) -> str:
    load = record["load"]
    text = (
        f"Sessions begin {load['arrivals_s']:g} s apart on average (Poisson, seed {load['seed']}) and ask "
        f"{load['turns']} questions each, {load['question_s'][0]:g} to {load['question_s'][1]:g} s after they have "
        f"heard the answer before; an answer has {load['text_tokens'][0]} to {load['text_tokens'][1]} text tokens and "
        f"{load['units_per_token']:g} units for each. Every question is prefilled without history. RTF counts from the "
        "question to the last chunk, waiting included. Memory is weights and the caches of the longest answer for "
        f"every session, all in bf16; what exceeds {record['device']['memory'] / 1e9:g} GB could not run so. Of two "
        f"figures the first is of {OURS[0]} streams, the second of {OURS[1]}; the original's steps, at the same "
        "efficiencies, answer one question after another.\n\n"
    )
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in record["sessions"]:
        found.setdefault((cell["size"], cell["sessions"]), {})[cell["schedule"]] = cell
    rows = []
    for (size, sessions), schedules in found.items():
        ours, original = [schedules[name] for name in OURS], schedules[ORIGINAL]
        rows.append(
            [
                size,
                str(sessions),
                *(" / ".join(_time(cell[key]) for cell in ours) for key in ("first_chunk", "first_chunk_p90")),
                " / ".join(f"{cell['rtf']:.2f}" for cell in ours),
                *(" / ".join(_time(cell[key]) for cell in ours) for key in ("underrun", "underrun_p90")),
                " / ".join(f"{100 * cell['continuity']:.0f} %" for cell in ours),
                _time(original["first_chunk_p90"]),
                f"{100 * original['continuity']:.0f} %",
                f"{ours[0]['memory_bytes'] / 1e9:.0f} GB" + ("" if ours[0]["fits"] else " (too much)"),
            ]
        )
    header = ["", "sessions", "first chunk", "p90", "RTF", "worst underrun", "p90", "continuity"]
    header += ["original: first chunk p90", "original: continuity", "memory"]
    return "## Many sessions\n\n" + text + table(header, rows)


def _overload(found: dict[str, Any]) -> str:
    most = found["capacity"]
    rows = [
        [
            LOADS[load].format(most=most, twice=OVERLOAD * most, after=found["under_way_s"]),
            ORDERS[order],
            f"{served['underruns']} in {served['broken']} of {served['turns']} turns",
            f"{served['silence']:.1f} s",
            _time(served["longest"]),
            _time(served["first_chunk"]),
        ]
        for load, orders in found["loads"].items()
        for order, served in orders.items()
    ]
    text = (
        f"{most} answers of {found['long_s']:.0f} s at once are as many as the device makes as fast as they are heard "
        f"({found['size']}, one call at a time; memory is not looked at). Below it has twice as many, the same ones in "
        "both orders. First chunks go ahead of everything: in a burst an answer that has just begun may wait for the "
        "first chunks of others.\n\n"
    )
    audible = f"gaps of {1e3 * AUDIBLE:.0f} ms and more"
    header = ["", "order", audible, "gaps in all", "longest gap", "worst first chunk"]
    return "## Twice what the device can do\n\n" + text + table(header, rows)


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def _paper(found: dict[str, Any]) -> str:
    constants = ", ".join(f"`{name}` {value:.0f}" for name, value in found["constants_us"].items())
    met = "met" if found["kept"] else "missed"
    lines = [
        (f"{found['size']}, ({line['R']}, {line['W']})" + (", fitted" if line["fitted"] else ""), line)
        for line in found["trials"]
    ]
    lines += [(row["size"], row) for row in found["other_sizes"]]
    rows = [
        [name, f"{line['total_ms']:.2f} ms", f"{line['predicted_ms']:.2f} ms", f"{100 * line['error']:+.2f} %"]
        for name, line in lines
    ]
    reached = [
        [row["step"], f"{row['ms']:.1f} ms", f"{row['limit_ms']:.2f} ms", f"{100 * row['share']:.0f} %"]
        for row in found["reached"]
    ]
    turn = found["turn"]
    return "\n".join(
        [
            "## The original's schedule in five constants\n",
            f"Least squares on the fitted lines: {constants}. The worst held-out total is off by "
            f"{100 * found['worst_held_out_error']:+.2f} % ({100 * found['promised_error']:g} % promised: {met}). "
            f"Other sizes have their own LLM column with the {found['size']} model's speech LM, flow and vocoder.\n",
            table(["size, (R, W)", "paper", "predicted", "error"], rows),
            "What the original reaches of the device's limits by these constants:\n",
            table(["", "takes", "at the limit", "share"], reached),
            f"After a first chunk of {turn['first_sound_ms']:.0f} ms of sound, {turn['first_chunk_ms']:.0f} ms after "
            f"the question, the player waits {turn['first_gap_ms']:.0f} ms for the second.\n",
        ]
    )
