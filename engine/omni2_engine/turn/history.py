"""What a conversation remembers from one turn to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni2_engine.backends.base.kv_cache import CacheTail, DecoderState
from omni2_engine.backends.base.language_model import LanguageModel
from omni2_engine.turn.prefix import PrefixCache
from omni2_engine.turn.prompt import Exchange, Layout


@dataclass
class History:
    """Belongs to the turn that runs, and to the session between turns.

    Attributes:
        exchanges: the turns; the last one's reply grows while it runs.
        fed: items the KV cache holds.
        rounds: of the last turn, (units before the round, text ids the speech LM had read with it).
    """

    exchanges: list[Exchange] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    rounds: list[tuple[int, int]] = field(default_factory=list)

    def copy(self) -> History:
        """As it is now, before a turn; the turn changes no exchange but its own."""
        return History(list(self.exchanges), list(self.fed), list(self.rounds))

    def reuse(self, layout: Layout, state: DecoderState, prefixes: PrefixCache, system: str | None) -> int:
        """How many items of a prompt the KV cache holds already; where it holds none, it is given the fixed beginning.

        Args:
            layout: the prompt.
            state: the conversation's KV cache.
            prefixes: beginnings of prompts that are prefilled already.
            system: the system prompt.
        """
        if not self.fed:
            state.truncate(0)  # what a turn that was given up has left, or it would count as the beginning
            return prefixes.fill(state, layout, system)
        return min(layout.common_prefix(self.fed), len(layout.items) - 1)

    def feed(self, layout: Layout, reused: int, state: DecoderState, llm: LanguageModel) -> None:
        """Feed the rest of a prompt in place of what else the KV cache holds.

        Args:
            layout: the prompt, its speech encoded.
            reused: items that stay, see `reuse`.
            state: the conversation's KV cache.
            llm: the language model.
        """
        state.truncate(reused)
        self.fed = layout.items[:reused]
        llm.extend(state, layout.embeds(reused, llm.table))
        self.fed = list(layout.items)

    def drop_last(self, before: History) -> None:
        """Forget a turn that said nothing.

        The KV cache may hold its question. The next turn's speech gets the same items, and must not be taken for it.

        Args:
            before: the history without the turn.
        """
        if self.exchanges[-1:] != before.exchanges[-1:]:  # it had come as far as its prompt
            own = self.exchanges[-1].items()
            self.fed = self.fed[: next((index for index, item in enumerate(self.fed) if item in own), None)]
        self.exchanges = before.exchanges

    def restore(self, before: History, state: DecoderState, overwritten: CacheTail | None) -> None:
        """Be again as before a turn.

        Args:
            before: the history then.
            state: the conversation's KV cache.
            overwritten: what the turn has overwritten there.
        """
        state.truncate(len(before.fed))
        if overwritten is not None:
            state.put_back(overwritten)
        self.exchanges, self.fed, self.rounds = before.exchanges, before.fed, before.rounds
