"""Near duplicates across the split, found as comparing everything with everything finds them."""

import random

import pytest

from labeling.leakage import Leak, grams, leaks, likeness

FJORD = "Explain in two sentences what a fjord is and how it forms."


def test_likeness_is_the_share_of_5_grams_in_common() -> None:
    assert len(grams("abcdefg")) == 3 and len(grams("abc")) == 1 and grams("?!") == frozenset()
    assert likeness("abcdefg", "bcdefgh") == 2 / 4
    assert likeness("abcdefg", "xyz") == 0
    assert likeness("", "") == 0


def test_case_punctuation_accents_and_spaces_count_for_nothing() -> None:
    assert likeness("Où est  le CAFÉ?", "ou est le cafe") == 1


def test_hangul_with_another_particle_is_still_alike() -> None:
    one = "조선 시대의 한글 창제 과정을 초등학생에게 설명해 주세요."
    other = "조선 시대 한글의 창제 과정을 초등학생에게 설명해 줘."
    assert likeness(one, other) > 0.6
    assert likeness(one, "오늘 저녁에 먹을 만한 매운 음식을 추천해 주세요.") < 0.2


def test_what_stands_on_both_sides_is_found_with_its_likest() -> None:
    heldout = [(1, FJORD), (2, "Write a haiku about rain in the city."), (3, "Name three rivers of Europe.")]
    train = [
        (11, FJORD.replace("two", "three")),
        (12, FJORD.upper()),
        (13, "List the parts of a sailing boat and what each is for."),
    ]
    [leak] = leaks(heldout, train)
    assert leak == Leak(1.0, 12, 1)
    [leak] = leaks(heldout, train[:1])
    assert leak == Leak(likeness(FJORD, train[0][1]), 11, 1) and 0.7 < leak.likeness < 1
    assert leaks(heldout, train[2:]) == [] == leaks([], train)


@pytest.mark.parametrize("alike", [0.3, 0.6, 0.9])
def test_none_is_missed(alike: float) -> None:
    chance = random.Random(7)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "teru") for b in ("n", "ssa", "vo", "x")]
    base = [" ".join(chance.choices(words, k=12)) for _ in range(30)]

    def changed(text: str) -> str:
        parts = text.split()
        for _ in range(chance.randrange(5)):
            parts[chance.randrange(len(parts))] = chance.choice(words)
        return " ".join(parts)

    heldout = [(number, changed(chance.choice(base))) for number in range(60)]
    train = [(number, changed(chance.choice(base))) for number in range(100, 250)]
    best = [max(likeness(text, other) for _key, other in train) for _number, text in heldout]
    found = leaks(heldout, train, alike=alike)
    assert [leak.likeness for leak in found] == sorted((one for one in best if one >= alike), reverse=True)
    assert len(found) > 5
