"""A conversation as the language model sees it: a row of items, each a token id or a position of spoken input.

The whole row is laid out anew for every turn. What the KV cache already holds of it is found by comparing items, so a
turn costs only what is new, and a chat template may do anything with earlier turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omni2_engine.errors import ContextError, SettingError
from omni2_engine.text.template import ChatTemplate
from omni2_engine.text.tokenizer import TextTokenizer

Floats = NDArray[np.float32]
PLACEHOLDER = "<speech>"  # spec §0
REPLY_MARK = (
    "\ue0f3\ue0f2reply\ue0f2\ue0f3"  # private-use characters: stands for an answer while a template is rendered
)


@dataclass(eq=False)
class Exchange:
    """One turn: what the user said, spoken or typed, and what was answered.

    Args:
        first_item: this turn's speech positions are the items −1 − first_item, −2 − first_item, …; no two turns of a
            conversation share one, so that items can be compared across layouts.
        speech: (positions, hidden) float32 of the encoder; None if typed, or not encoded yet.
        text: what was typed; unused for speech.
        reply: ids generated so far, without the end token.
        positions: of the speech in the prompt, known before it is encoded; 0 if typed. Given by `speech` if that is.
    """

    first_item: int = 0
    speech: Floats | None = None
    text: str = ""
    reply: list[int] = field(default_factory=list)
    positions: int = 0

    def __post_init__(self) -> None:
        if self.speech is not None:
            self.positions = len(self.speech)

    @property
    def spoken(self) -> bool:
        """Whether it was spoken, and not typed."""
        return self.positions > 0

    def items(self) -> range:
        """The items of its speech."""
        first = -1 - self.first_item
        return range(first, first - self.positions, -1)


@dataclass(frozen=True)
class Layout:
    """A prompt: `items` are token ids, or negative for a position of one of the exchanges' speech."""

    items: list[int]
    spoken: list[Exchange]

    def common_prefix(self, items: list[int]) -> int:
        """How many items it begins with that `items` begins with too."""
        pairs = zip(self.items, items, strict=False)
        return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(self.items), len(items)))

    def embeds(self, start: int, embed_tokens: Callable[[NDArray[np.int64]], Floats]) -> Floats:
        """Vectors (n, hidden) float32 of the items from `start` on; `embed_tokens` gives those of token ids (k,)."""
        items = np.asarray(self.items[start:], np.int64)
        vectors = embed_tokens(np.maximum(items, 0))
        for exchange in self.spoken:
            assert exchange.speech is not None
            rows = -1 - exchange.first_item - items
            here = (rows >= 0) & (rows < len(exchange.speech))
            vectors[here] = exchange.speech[rows[here]]
        return vectors


class PromptBuilder:
    """Turns exchanges into a layout (spec §4).

    Args:
        template: the checkpoint's chat template.
        tokenizer: the language model's.
        speech_id: id of the `<speech>` placeholder.
    """

    def __init__(self, template: ChatTemplate, tokenizer: TextTokenizer, speech_id: int) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._speech_id = speech_id

    def check_typed(self, text: str, what: str) -> None:
        """Refuse typed text that would be read as a control token.

        Raises:
            SettingError: it contains one, or the reply mark, or halves of characters.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SettingError(f"the {what} is not whole Unicode characters", "give it as UTF-8") from None
        for control in (*self._tokenizer.added_tokens, REPLY_MARK):
            if control in text:
                raise SettingError(f"the {what} contains the control token {control}", "leave it out")

    def text(self, exchanges: list[Exchange], system: str | None) -> str:
        """The rendered prompt, answers replaced by the reply mark."""
        messages = [{"role": "system", "content": system}] if system is not None else []
        for index, exchange in enumerate(exchanges):
            content = PLACEHOLDER if exchange.spoken else exchange.text
            messages.append({"role": "user", "content": content})
            if index + 1 < len(exchanges):
                messages.append({"role": "assistant", "content": REPLY_MARK})
        return self._template.render(messages, add_generation_prompt=True)

    def lay_out(self, exchanges: list[Exchange], system: str | None) -> Layout:
        """Items of the prompt that asks for the last exchange's answer.

        Raises:
            ContextError: the chat template leaves an answer or the speech out.
        """
        pieces = self.text(exchanges, system).split(REPLY_MARK)
        spoken = [exchange for exchange in exchanges if exchange.spoken]
        if len(pieces) != len(exchanges):
            raise ContextError(
                "the chat template does not repeat every answer once", "use the checkpoint's own template"
            )
        items: list[int] = []
        used = 0
        for piece, exchange in zip(pieces, exchanges, strict=True):
            for token in self._tokenizer.encode(piece):
                if token == self._speech_id and used < len(spoken):
                    items.extend(spoken[used].items())
                    used += 1
                else:
                    items.append(token)
            if exchange is not exchanges[-1]:
                items.extend(exchange.reply)
        if used != len(spoken):
            raise ContextError(
                "the chat template does not repeat every spoken turn", "use the checkpoint's own template"
            )
        return Layout(items, spoken)
