"""What a turn has room for: which earlier turns go into its prompt, and how much it may say."""

from __future__ import annotations

import logging
from bisect import bisect_left

from omni2_engine.errors import ContextError, SettingError
from omni2_engine.sessions.runtime import Runtime
from omni2_engine.settings.tuning import SESSIONS
from omni2_engine.turn.options import Options
from omni2_engine.turn.prompt import Exchange, Layout

log = logging.getLogger("omni2_engine.sessions")


def check_speech_room(runtime: Runtime, options: Options) -> None:
    """Refuse a turn whose speech might outgrow the speech LM's positions; the text's room is `lay_out`'s.

    Raises:
        SettingError: it might.
    """
    pipeline, most = runtime.pipeline, runtime.max_speech
    if pipeline.speech_positions(options.max_new_tokens, options.max_last_write) > most:
        raise SettingError(
            f"{options.max_new_tokens} text tokens and a last write of {options.max_last_write} may take more than "
            f"the {most} positions of the speech model",
            "lower max_new_tokens or max_last_write",
        )


def lay_out(
    runtime: Runtime, earlier: list[Exchange], text: str | None, options: Options
) -> tuple[list[Exchange], Layout, int]:
    """The prompt of a turn with the earlier turns that fit.

    Where not all fit, the oldest go until a part of the context is free again, so that many turns follow before the
    next must go: what is left has to be prefilled anew each time. The turn before is kept if it fits.

    Args:
        runtime: of the session.
        earlier: all turns before.
        text: what was typed; None if the turn is spoken.
        options: how to answer.

    Returns:
        The turns that the prompt holds, this one at their end; the prompt; how many were dropped for lack of room.

    Raises:
        ContextError: this turn alone does not fit.
    """
    exchanges = [*wanted(runtime, earlier, options), _exchange(runtime, earlier, text)]
    tokens = runtime.pipeline.config.tokens
    room = min(runtime.max_context - options.max_new_tokens, tokens.context_limit or runtime.max_context)

    def without(oldest: int) -> Layout:
        return runtime.prompts.lay_out(exchanges[oldest:], options.system)

    layout, dropped = without(0), 0
    if len(layout.items) > room:
        last = len(exchanges) - 1  # only this turn stays
        dropped = bisect_left(range(last), True, key=lambda n: len(without(n).items) <= SESSIONS.kept_when_full * room)
        if dropped == last > 1 and len(without(last - 1).items) <= room:
            dropped = last - 1
        layout = without(dropped)
    if len(layout.items) > room:
        raise _too_long(len(layout.items), options.max_new_tokens, runtime.max_context, tokens.context_limit)
    return exchanges[dropped:], layout, dropped


def log_dropped(dropped: int, kept: list[Exchange], layout: Layout) -> None:
    """Log it where earlier turns were dropped for lack of room.

    Args:
        dropped: how many.
        kept: the others, and the turn they went for.
        layout: the prompt of these.
    """
    if dropped:
        earlier, positions = dropped + len(kept) - 1, len(layout.items)
        log.info("context full: %d of %d earlier turns dropped, %d positions stay", dropped, earlier, positions)


def wanted(runtime: Runtime, earlier: list[Exchange], options: Options) -> list[Exchange]:
    """The earlier turns that the model should be given."""
    most = options.over(runtime.pipeline.config.capabilities).history_turns
    return earlier if most is None else earlier[max(0, len(earlier) - most) :]


def _exchange(runtime: Runtime, earlier: list[Exchange], text: str | None) -> Exchange:
    """This turn in the conversation; its speech is encoded by the turn's first step."""
    first_item = sum(exchange.first_item + exchange.positions for exchange in earlier[-1:])
    if text is not None:
        return Exchange(first_item, text=text)
    return Exchange(first_item, positions=runtime.pipeline.config.encoder.positions)


def _too_long(prompt: int, answer: int, context: int, checkpoint_limit: int | None) -> ContextError:
    """The error for a single turn that does not fit."""
    if checkpoint_limit is not None and prompt > checkpoint_limit:
        return ContextError(
            f"this turn takes {prompt} positions and the checkpoint allows {checkpoint_limit} in a prompt",
            "say it in fewer words, or shorten the system prompt",
        )
    return ContextError(
        f"this turn takes {prompt} positions and {answer} for the answer; the context has {context}",
        "load the engine with a larger max_context, or lower max_new_tokens",
    )
