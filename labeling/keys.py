"""What keys do on the task pages, and which ones a labeler chose instead. Pure functions: no ORM.

A key is written as the page's script reads it: `Ctrl+` (⌘ on a Mac), `Alt+` and `Shift+` in this order, then a
character or a name such as `ArrowUp`. A character that needs Shift stands without it: `?`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from labeling.rankings import LETTERS, preferences

NAMED = "Arrow(?:Up|Down|Left|Right)|Enter|Space|Home|End|PageUp|PageDown|Backspace|Delete|F[2-9]"
KEY = re.compile(rf"(Ctrl\+)?(Alt\+)?(Shift\+)?([^\s\x00-\x1f]|{NAMED})")
BROWSERS = {f"Ctrl+{key}" for key in ("a", "c", "v", "x", "t", "w", "n", "r", "l", "f", "p", "q")}
"""What people expect a browser to do with these, or what it does before any page is asked."""


@dataclass(frozen=True)
class Action:
    name: str
    key: str
    words: str | Promise
    pages: tuple[str, ...]
    """Where it counts: rating step, tier board, two side by side, writing, or every task."""


RATE, BOARD, PAIR, WRITE = "rate", "board", "pair", "write"
RANKING = (RATE, BOARD)
COMPARING = (*RANKING, PAIR)
EVERY = (*COMPARING, WRITE)

ACTIONS = (
    *(
        Action(f"choose_{number}", str(number), _("rate it %(number)s, or send it to tier %(number)s"), RANKING)
        for number in range(1, 10)
    ),
    *(Action(f"prefer_{number}", str(number), "", (PAIR,)) for number in range(1, 8)),
    Action("toward_a", "ArrowLeft", _("of two: one step towards A"), (PAIR,)),
    Action("toward_b", "ArrowRight", _("of two: one step towards B"), (PAIR,)),
    Action("rate", "r", _("of two: go to the marks of one, then of the other; 1 to 7 rate there"), (PAIR,)),
    Action("clear", "0", _("take it out of its tier"), (BOARD,)),
    Action("previous", "ArrowUp", _("the completion before"), RANKING),
    Action("next", "ArrowDown", _("the completion after"), RANKING),
    Action("better", "Alt+ArrowUp", _("move it one tier up"), (BOARD,)),
    Action("worse", "Alt+ArrowDown", _("move it one tier down"), (BOARD,)),
    Action("tie", "=", _("tie it with the one above"), (BOARD,)),
    Action("split", "-", _("split it from its tie"), (BOARD,)),
    Action("pin", "p", _("pin it to compare, or unpin it"), RANKING),
    Action("diff", "d", _("show the difference of the two"), COMPARING),
    Action("fold", "Space", _("fold a long completion, or unfold it"), (BOARD,)),
    Action("flags", "x", _("go to its flags"), COMPARING),
    Action("none_acceptable", "n", _("none is acceptable"), COMPARING),
    Action("markdown", "m", _("show Markdown as written, or as it looks"), COMPARING),
    Action("skip", "s", _("skip, or say that you cannot judge"), EVERY),
    Action("undo", "Ctrl+z", _("undo; with nothing to undo, take back what you handed in last"), EVERY),
    Action("save", "Ctrl+s", _("save the draft now"), EVERY),
    Action("submit", "Ctrl+Enter", _("hand in"), EVERY),
    Action("help", "?", _("show these keys"), EVERY),
)
_BY_NAME = {action.name: action for action in ACTIONS}


def keymap(chosen: Mapping[str, str]) -> dict[str, str]:
    """The key of every action: the one chosen, else its own."""
    return {action.name: chosen.get(action.name, action.key) for action in ACTIONS}


def clean_keys(wanted: Mapping[str, Any]) -> dict[str, str]:
    """The keys of `wanted` (by action) that differ from the defaults.

    Raises ValidationError, by action, for what is no key, is the browser's own, or does two things on one page.
    """
    keys = {name: _spelled(str(wanted[name]).strip()) for name in _BY_NAME if name in wanted}
    whole = keymap(keys)
    wrong: dict[str, Any] = {}
    for name, key in keys.items():
        if not KEY.fullmatch(key):
            wrong[name] = _("This is not a key. Press one in the field.")
        elif key in BROWSERS:
            wrong[name] = _("The browser needs this key itself. Choose another.")
        elif taken := _also(name, key, whole):
            wrong[name] = ValidationError(
                _("This key is taken on the same page by: %(action)s."), params={"action": words(taken)}
            )
    if wrong:
        raise ValidationError(wrong)
    return {name: key for name, key in keys.items() if key != _BY_NAME[name].key}


def _also(name: str, key: str, keys: Mapping[str, str]) -> Action | None:
    """Another action with this key, on a page on which the first counts, too."""
    pages = set(_BY_NAME[name].pages)
    others = (action for action in ACTIONS if action.name != name and keys[action.name] == key)
    return next((action for action in others if pages & set(action.pages)), None)


def words(action: Action) -> str:
    """What an action does, in the language of the page."""
    kind, _underscore, number = action.name.rpartition("_")
    if kind == "prefer":
        return preferences(*LETTERS[:2])[int(number) - 1][1]
    text = str(action.words)
    return text % {"number": action.name.removeprefix("choose_")} if action.name.startswith("choose_") else text


def _spelled(key: str) -> str:
    """A letter alone in lower case: with caps lock on, the same key means the same."""
    head, plus, last = key.rpartition("+") if len(key) > 1 and not key.endswith("++") else ("", "", key)
    return f"{head}{plus}{last.lower()}" if len(last) == 1 else key
