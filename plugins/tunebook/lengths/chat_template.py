"""Chat templates in Jinja, rendered as transformers does it (transformers/utils/chat_template_utils.py)."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunebook.errors import TunebookError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2.parser import Parser


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, by which templates mark answers; it writes what stands in it."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template, with the special tokens of its tokenizer and the recipe's options.

    Args:
        text: In Jinja.
        special: Named special tokens.
        options: Passed to the template, e.g. `{"enable_thinking": False}`.
    """

    def __init__(self, text: str, special: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self.text = text
        self._compiled = _compile(text)
        self._options = {**special, **options}

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """Return the conversation as text.

        Raises:
            TunebookError: The template refuses it, or cannot be rendered.
        """
        try:
            return self._compiled.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._options,
            )
        except (jinja2.TemplateError, TypeError) as err:
            raise TunebookError(
                f"the chat template refuses the conversation: {err}",
                fix="mend the row, or choose another template",
            ) from err


@functools.cache
def _compile(text: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as upstream
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as err:
        raise TunebookError(f"the chat template is no Jinja: {err}", fix="mend the template") from err


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
