"""Keys of one's own."""

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from labeling.keys import ACTIONS, KEY, clean_keys, keymap
from labeling.models import User


def test_the_defaults_are_keys_and_none_means_two_things_on_a_page() -> None:
    assert all(KEY.fullmatch(action.key) for action in ACTIONS)
    assert clean_keys(keymap({})) == {}


def test_only_what_differs_is_kept() -> None:
    wanted = keymap({}) | {"pin": "g", "skip": "F4"}
    assert clean_keys(wanted) == {"pin": "g", "skip": "F4"}
    assert keymap({"pin": "g"})["pin"] == "g"


def test_two_may_change_places() -> None:
    assert clean_keys(keymap({}) | {"pin": "d", "diff": "p"}) == {"pin": "d", "diff": "p"}


@pytest.mark.parametrize(
    "key", ["", "  ", "ab", "Ctrl+", "Shift+Ctrl+p", "Tab", "Escape", "Ctrl+w", "Ctrl+C", "\x00", "<b>"]
)
def test_what_is_no_key_or_the_browsers_is_refused(key: str) -> None:
    with pytest.raises(ValidationError) as refused:
        clean_keys(keymap({}) | {"pin": key})
    assert list(refused.value.message_dict) == ["pin"]


def test_a_key_means_one_thing_on_a_page() -> None:
    with pytest.raises(ValidationError) as refused:
        clean_keys(keymap({}) | {"pin": "m"})
    assert "Markdown" in refused.value.message_dict["pin"][0]


def test_keys_are_kept_for_the_person_and_set_back(alice: User) -> None:
    client = Client()
    client.force_login(alice)
    page = client.post("/keys/", keymap({}) | {"pin": "m"}).content.decode()
    assert "This key is taken" in page and 'aria-invalid="true"' in page
    client.post("/keys/", keymap({}) | {"pin": "g"})
    alice.refresh_from_db()
    assert (alice.keys, alice.single_keys) == ({"pin": "g"}, False)
    client.post("/keys/", {"reset": ""})
    alice.refresh_from_db()
    assert (alice.keys, alice.single_keys) == ({}, True)
