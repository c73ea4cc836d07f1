"""The checkpoint's own chat template: messages in, prompt text out (spec §4), rendered in a sandbox.

The template's surroundings are those it was written for: block lines leave no trace, `raise_exception`, `tojson`,
`strftime_now`, loop controls and `{% generation %}` are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from omni2_engine.errors import CheckpointError, EngineDirectoryError, SettingError
from omni2_engine.system.file_content import read_text

TEMPLATE = "chat_template.jinja"
SPECIAL_TOKENS = "special_tokens.json"


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks assistant text for training; here it is plain text."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=options.pop("ensure_ascii", False), indent=indent, **options)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the jinja2 text.
        special_tokens: names a template may use (`bos_token`, `eos_token`, …) → token text.

    Raises:
        CheckpointError: the text is no template.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str | list[str]] | None = None) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        helpers: dict[str, Callable[..., Any]] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        environment.globals.update(helpers)
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError, SyntaxError) as error:
            raise CheckpointError(
                f"the chat template cannot be read: {error}", "take it from the original model"
            ) from error
        self.source = source
        self.special_tokens = dict(special_tokens or {})

    @classmethod
    def load(cls, directory: Path) -> ChatTemplate:
        """Read what `save` wrote.

        Raises:
            EngineDirectoryError: a file is missing or damaged.
        """
        try:
            special_tokens = json.loads(read_text(directory / SPECIAL_TOKENS))
            return cls(read_text(directory / TEMPLATE), special_tokens)
        except (OSError, ValueError, TypeError, CheckpointError) as error:
            raise EngineDirectoryError(
                f"{directory} has no chat template: {error}", "build the engine again"
            ) from error

    def save(self, directory: Path) -> None:
        """Write the template and its special tokens into a directory."""
        (directory / TEMPLATE).write_text(self.source, encoding="utf-8")
        (directory / SPECIAL_TOKENS).write_text(json.dumps(self.special_tokens), encoding="utf-8")

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt text of a conversation.

        Args:
            messages: each with `role` (system, user or assistant) and `content`.
            add_generation_prompt: end with the opening of the assistant's turn.

        Raises:
            SettingError: the template refuses these messages.
        """
        try:
            return self._template.render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self.special_tokens,
            )
        except Exception as error:  # a template is a program: it may fail in any way
            raise SettingError(
                f"the checkpoint's chat template refuses this conversation: {error}",
                "use the roles system, user and assistant in the order the model was trained on",
            ) from error
