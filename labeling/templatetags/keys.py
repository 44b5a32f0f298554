"""`{{ "Alt+ArrowUp"|key_name }}`: a key as people know it."""

from django import template

register = template.Library()
NAMES = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→", "Ctrl": "Ctrl/⌘"}


@register.filter
def key_name(key: str) -> str:
    head, plus, last = key.rpartition("+") if len(key) > 1 and not key.endswith("++") else ("", "", key)
    parts = [*(head.split("+") if plus else []), last.upper() if len(last) == 1 else last]
    return " + ".join(NAMES.get(part, part) for part in parts)
