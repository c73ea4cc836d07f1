"""The text tokenizer: byte-level BPE of Qwen's kind, learnt from the corpus: most of its words are one token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

from omni2_engine.text import ChatTemplate, TextTokenizer
from omni2_export.checkpoint_writer.tokenizer import (
    ROLES,
    SPECIALS,
    SPEECH,
    Vocabulary,
    train_vocabulary,
    write_speech_tokenizer,
    write_text_tokenizer,
)
from omni2_export.tokenizer_files import QWEN_SPLIT, load_tokenizer
from omni2_training.config import Settings
from omni2_training.domain import Corpus
from omni2_training.workspace import Workspace

# As Qwen's, without a system message of its own: it would cost positions in every turn and say nothing.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def learn_vocabulary(corpus: Corpus, merges: int) -> Vocabulary:
    """Learn merges from the questions and answers to be trained on."""
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    whole = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    texts = [text for item in corpus.train for turn in item.turns for text in (turn.question, turn.answer)]
    return train_vocabulary([*sorted(texts), *ROLES * 2], whole, merges, min_frequency=2)


def make_vocabulary(settings: Settings, workspace: Workspace) -> Path:
    """Stage `vocabulary`: both tokenizer directories, `vocabulary/` and `vocabulary/tts_tokenizer`."""
    directory = workspace.path("vocabulary", "vocab.json").parent
    vocabulary = learn_vocabulary(workspace.corpus(), settings.merges)
    write_text_tokenizer(directory, vocabulary, CHAT_TEMPLATE)
    write_speech_tokenizer(directory / "tts_tokenizer", vocabulary, settings.flow.encoder.units)
    return directory


def read_vocabulary(workspace: Workspace) -> Vocabulary:
    """What `make_vocabulary` wrote."""
    directory = workspace.path("vocabulary", "vocab.json").parent
    tokens: dict[str, int] = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = tuple((left, right) for left, _, right in (line.partition(" ") for line in lines))
    return Vocabulary(tuple(sorted(tokens, key=tokens.__getitem__)), merges)


@dataclass(frozen=True)
class TextIds:
    """Texts as ids, and the ids that steer.

    Args:
        tokenizer: of the text.
        end: ends an answer, and a turn.
        speech: the placeholder of an utterance.
        size: ids of the text tokenizer; the speech tokenizer's `<sep>` is the next, then come the units.
    """

    tokenizer: TextTokenizer
    end: int
    speech: int
    size: int

    @classmethod
    def load(cls, workspace: Workspace) -> TextIds:
        """Read what stage `vocabulary` wrote."""
        tokenizer = load_tokenizer(workspace.path("vocabulary", "vocab.json").parent).tokenizer
        end, speech = tokenizer.token_id(SPECIALS[2]), tokenizer.token_id(SPEECH)
        assert end is not None and speech is not None
        return cls(tokenizer, end, speech, tokenizer.size)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer with the token that ends it."""
        return [*self.tokenizer.encode(text), self.end]

    def prompt(self, answers: tuple[str, ...] = ()) -> list[int]:
        """Ids of a prompt: for every answer that was given a spoken turn before it, then another spoken turn."""
        messages = []
        for answer in answers:
            messages += [{"role": "user", "content": SPEECH}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": SPEECH})
        return self.tokenizer.encode(ChatTemplate(CHAT_TEMPLATE).render(messages))
