"""An engine as sessions see it."""

from __future__ import annotations

from functools import partial

from omni2_engine import Engine, Options, Session
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.detection.base import SentenceEnd
from omni2_engine.live.settings import Detection
from omni2_engine.turn.options import Chunks
from omni2_serve.host import Host

SPECULATE_AFTER = 0.12  # seconds of silence


def engine_host(
    engine: Engine,
    *,
    typed_turns: bool | None = None,
    history_turns: int | None = None,
    speculate: bool = True,
    sentence_end: SentenceEnd | None = None,
    seed: int = 0,
    chunks: Chunks = "growing",
) -> Host:
    """What sessions need of an engine.

    Args:
        engine: loaded and warm.
        typed_turns, history_turns, seed, chunks: see `Options`; what chunks there are holds for live conversations.
        speculate: begin an answer as soon as the speaker may be done.
        sentence_end: see `Engine.live`.
    """
    settled = Options(typed_turns=typed_turns, history_turns=history_turns, seed=seed)

    def open_conversation(voice: str, detection: Detection | None, system: str | None) -> LiveConversation:
        return engine.live(
            detection=detection,
            sentence_end=sentence_end,
            voice=voice,
            system=system,
            typed_turns=typed_turns,
            history_turns=history_turns,
            seed=seed,
            long="truncate",
            chunks=chunks,
        )

    def open_session(voice: str, system: str | None) -> Session:
        return engine.session(
            voice=voice, system=system, typed_turns=typed_turns, history_turns=history_turns, seed=seed
        )

    def check_typed(text: str) -> None:
        settled.check_typed(engine.config)
        engine.prompts.check_typed(text, "typed turn")

    return Host(
        name=engine.config.name,
        voices=engine.voices,
        capabilities=settled.over(engine.config.capabilities),
        rate=engine.sample_rate,
        most_tokens=settled.max_new_tokens,
        soft_end=SPECULATE_AFTER if speculate else None,
        check_typed=check_typed,
        check_answer=partial(engine.prompts.check_typed, what="answer"),
        check_instructions=partial(engine.prompts.check_typed, what="instructions"),
        open=open_conversation,
        session=open_session,
        waiting=lambda: engine.waiting,
        memory=lambda: engine.states.budget.used,
    )
