"""One load: all conversations of a behaviour, open-loop, and the figures of what their callers saw."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni2_bench.common.statistics import continuity
from omni2_bench.load.caller import Caller, Server
from omni2_bench.load.clock import Clock
from omni2_bench.load.recordings import RecordedQuestion
from omni2_bench.load.records import Call, HeardTurn
from omni2_bench.load.visits import Behaviour, visits

PERCENTILES = (50, 95, 99)


async def meet(server: Server, behaviour: Behaviour, recordings: list[RecordedQuestion]) -> list[Call]:
    """Let all callers call, each at its time, without a look at how the server does.

    Args:
        server: to call.
        behaviour: of the callers.
        recordings: the questions.
    """
    clock = Clock()
    callers = [Caller(server, visit, recordings, clock) for visit in visits(behaviour, len(recordings))]
    return list(await asyncio.gather(*(caller.call() for caller in callers)))


@dataclass(frozen=True)
class Trial:
    """What came of one load.

    Args:
        behaviour: of the callers.
        calls: what they saw.
    """

    behaviour: Behaviour
    calls: list[Call]

    @property
    def turns(self) -> list[HeardTurn]:
        """All questions that were asked."""
        return [turn for call in self.calls for turn in call.turns]

    def figures(self) -> dict[str, float]:
        """Every figure an objective may name; those without any sample are absent.

        first_sound, decision, rtf, stopped, told: seconds (rtf: a ratio), each with suffixes _p50, _p95, _p99, _mean;
        continuity: share of the answers whose worst gap is below 0.1 s; gap_p95, gap_max: an answer's worst gap;
        refused, failed: share of the conversations; unanswered: share of the questions; at_once: conversations at
        once on average.
        """
        turns = self.turns
        heard = [turn for turn in turns if turn.ready]
        samples: dict[str, list[float | None]] = {
            "first_sound": [turn.first_sound for turn in heard],
            "decision": [turn.decided - turn.speech_ended for turn in turns if turn.decided is not None],
            "rtf": [turn.rtf for turn in heard],
            "stopped": [turn.stopped for turn in heard],
            "told": [turn.told for turn in heard],
        }
        found: dict[str, float] = {}
        for name, values in samples.items():
            found |= _summary(name, [value for value in values if value is not None])
        worst = [max(turn.gaps, default=0.0) for turn in heard]
        if worst:
            found |= {
                "continuity": continuity(worst),
                "gap_p95": float(np.percentile(worst, 95)),
                "gap_max": max(worst),
            }
        outcomes = Counter(call.outcome for call in self.calls)
        calls = max(1, len(self.calls))
        missing = sum(turn.status in ("failed", "unanswered") for turn in turns)
        talked = sum(call.ended - call.began for call in self.calls if call.outcome != "refused")
        length = max((call.ended for call in self.calls), default=0.0) - min((c.began for c in self.calls), default=0.0)
        return found | {
            "refused": outcomes["refused"] / calls,
            "failed": outcomes["failed"] / calls,
            "unanswered": missing / max(1, len(turns)),
            "at_once": talked / length if length else 0.0,
        }

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rate": self.behaviour.rate,
            "conversations": len(self.calls),
            "turns": len(self.turns),
            "outcomes": dict(Counter(call.outcome for call in self.calls)),
            "statuses": dict(Counter(turn.status for turn in self.turns)),
            "problems": dict(Counter(call.problem for call in self.calls if call.problem).most_common(5)),
            "figures": self.figures(),
        }


def _summary(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    points = np.percentile(np.asarray(values), PERCENTILES)
    found = {f"{name}_p{at}": float(point) for at, point in zip(PERCENTILES, points, strict=True)}
    return {**found, f"{name}_mean": float(np.mean(values))}
