"""The part of the prompt that is the same for every conversation: prefilled once per system prompt, then copied."""

from __future__ import annotations

import logging
import threading

from omni2_engine.backends.base.kv_cache import DecoderState, Prefix
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.settings.tuning import MEMORY
from omni2_engine.turn.prompt import Exchange, Layout, PromptBuilder

log = logging.getLogger("omni2_engine.memory")


class PrefixCache:
    """Prefilled beginnings of prompts, those used last. Several threads may use it.

    Args:
        llm: prefills them.
        prompts: lays them out.
    """

    def __init__(self, llm: LanguageModel, prompts: PromptBuilder) -> None:
        self._llm = llm
        self._prompts = prompts
        self._kept: dict[str | None, tuple[list[int], Prefix]] = {}  # by system prompt, the one used last at the end
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def fill(self, state: DecoderState, layout: Layout, system: str | None) -> int:
        """Fill an empty state with everything before what the first turn says.

        Args:
            state: of a conversation; its length moves on.
            layout: the prompt.
            system: its system prompt.

        Returns:
            Positions filled that the layout begins with.
        """
        with self._lock:
            held = self._kept.pop(system, None)
            if held is not None:
                items, prefix = held
                state.copy_prefix(prefix)
            else:
                items = self._fixed_items(system)
                if items:
                    self._llm.extend(state, self._llm.embed(items))
                prefix = state.keep()
            self._kept[system] = (items, prefix)
            if len(self._kept) > MEMORY.prefixes:
                _, dropped = self._kept.pop(next(iter(self._kept)))
                log.info("prefix cache full: a system prompt of %d positions dropped", dropped.length)
        return min(layout.common_prefix(items), len(layout.items) - 1)

    def _fixed_items(self, system: str | None) -> list[int]:
        """What two prompts that differ in the first turn have in common."""
        first, second = (self._prompts.lay_out([Exchange(text=text)], system) for text in ("a", "b"))
        return first.items[: first.common_prefix(second.items)]
