"""Chat templates: which control tokens surround what people and models said.

A template is Jinja, as in Hugging Face's `tokenizer_config.json`, run in a sandbox. What people wrote may contain the
very strings of control tokens; those must stay text, so control tokens are recognised only where the template wrote
them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, str]
"""One turn: `role` (system, user or assistant) and `content`."""

ROLES = ("system", "user", "assistant")

TURN_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Template of the tokenizers we train: one token opens a turn and one ends it."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""For imported models that bring no template of their own."""

PRIVATE_USE = range(0xF0000, 0x10FFFE)


class ChatTemplateError(ValueError):
    """The messages cannot be put through the template; the text says why."""


def check_messages(messages: Sequence[Message]) -> None:
    """Raise ChatTemplateError unless this is a non-empty list of turns with known roles and text."""
    if not messages:
        raise ChatTemplateError("a conversation needs at least one message")
    for number, message in enumerate(messages, 1):
        if message.get("role") not in ROLES:
            raise ChatTemplateError(
                f"message {number}: role must be one of {', '.join(ROLES)}, not {message.get('role')!r}"
            )
        if not isinstance(message.get("content"), str):
            raise ChatTemplateError(f"message {number}: content must be text, not {message.get('content')!r}")


def render(
    template: str,
    messages: Sequence[Message],
    control_tokens: Mapping[str, int],
    *,
    add_generation_prompt: bool,
    variables: Mapping[str, str],
) -> list[int | str]:
    """The conversation as control-token ids and runs of plain text between them.

    Before rendering, a private-use character that nobody wrote is put into the contents so that no control token's
    string is whole in them; whatever is whole afterwards is the template's own. Filters such as `trim` work as usual.
    """
    check_messages(messages)
    used = set().union(*(message["content"] for message in messages))
    guard = next((chr(code) for code in PRIVATE_USE if chr(code) not in used), None)
    if guard is None:
        raise ChatTemplateError("the conversation uses every private-use character there is")
    broken = [
        {"role": message["role"], "content": _break(message["content"], control_tokens, guard)} for message in messages
    ]
    text = _run(template, {**variables, "messages": broken, "add_generation_prompt": add_generation_prompt})
    parts: list[int | str] = []
    pieces = _split_pattern(control_tokens).split(text) if control_tokens else [text]
    for piece in pieces:
        if piece in control_tokens:
            parts.append(control_tokens[piece])
        elif plain := piece.replace(guard, ""):
            parts.append(plain)
    return parts


def _break(content: str, control_tokens: Mapping[str, int], guard: str) -> str:
    """Guards after each character that can open a control token, and at both ends, inside the spaces a filter may trim.

    So neither a token's whole string nor a part that the template would complete survives in what people wrote.
    """
    core = content.strip()
    if not core:
        return content
    start = content.index(core)
    end = start + len(core)
    for opening in {token[0] for token in control_tokens}:
        core = core.replace(opening, opening + guard)
    return content[:start] + guard + core + guard + content[end:]


def _split_pattern(control_tokens: Mapping[str, int]) -> re.Pattern[str]:
    longest_first = sorted(control_tokens, key=len, reverse=True)
    return re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")


def _run(template: str, variables: Mapping[str, Any]) -> str:
    try:
        return _compiled(template).render(tools=None, documents=None, **variables)
    except ChatTemplateError:
        raise
    except (TemplateError, TypeError, ValueError) as error:
        raise ChatTemplateError(f"the chat template refuses this conversation: {error}") from error


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """Compiling costs some fifty times as much as rendering a short conversation."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_exception
    environment.filters["tojson"] = _to_json
    return environment.from_string(template)


def _raise_exception(message: str) -> None:
    raise ChatTemplateError(f"the chat template refuses this conversation: {message}")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)  # Jinja's own escapes for HTML
