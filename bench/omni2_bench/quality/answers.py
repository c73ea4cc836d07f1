"""A model's answers to a set of questions: their words, their units and their sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni2_bench.quality.questions import SpokenConversation
from omni2_engine import Engine
from omni2_engine.sampling import Stream

Floats = NDArray[np.float32]
FOLLOW_UP = 2  # turns of a question and what follows from it


@dataclass(frozen=True)
class JudgedAnswer:
    """What a model answered in one turn.

    Args:
        kind: of the question.
        turn, turns: its place in the conversation, from 0 on, and how many that has.
        expected, text: the words of a right answer or what it holds, and the model's words.
        right: whether the text is a right answer.
        units: ids of the speech units in their order.
        pcm: (n,) float32.
        first_chunk, rtf: as in the turn's metrics; seconds, and work per second of sound.
    """

    kind: str
    turn: int
    turns: int
    expected: str
    text: str
    right: bool
    units: list[int]
    pcm: Floats
    first_chunk: float
    rtf: float


def answer_all(engine: Engine, conversations: list[SpokenConversation], seed: int) -> list[JudgedAnswer]:
    """Ask everything, each conversation in a session of its own.

    Up to `FOLLOW_UP` turns belong together and have all their history; longer conversations have as much of it as the
    model was made for.
    """
    answers: list[JudgedAnswer] = []
    for conversation in conversations:
        turns = len(conversation.turns)
        history = turns if turns <= FOLLOW_UP else None
        with engine.session(seed=seed, history_turns=history) as session:
            for number, turn in enumerate(conversation.turns):
                spoken: list[int] = []

                def note(stream: Stream, generated: list[int], chosen: int, spoken: list[int] = spoken) -> int:
                    if stream is Stream.SPEECH:
                        spoken.append(chosen)
                    return chosen

                chunks = list(session.stream(turn.audio, steer=note))
                metrics = session.metrics
                assert metrics is not None
                text = "".join(chunk.text for chunk in chunks).strip()
                answers.append(
                    JudgedAnswer(
                        conversation.kind,
                        number,
                        turns,
                        turn.accept.pattern if turn.accept else turn.answer or "",
                        text,
                        turn.accepts(text),
                        _voiceable(engine, spoken),
                        np.concatenate([chunk.pcm for chunk in chunks]),
                        metrics.first_chunk or 0.0,
                        metrics.rtf or 0.0,
                    )
                )
    return answers


def _voiceable(engine: Engine, ids: list[int]) -> list[int]:
    """The units of speech ids that the flow's table holds; others make no sound (spec §10)."""
    units = engine.pipeline.unit_table.units(ids)
    return [unit for unit in units if unit < engine.config.flow_encoder.units]
