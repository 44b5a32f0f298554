"""The hidden preference: what it likes, and what it must not be about."""

import random
import statistics

import pytest

from worker.loop.world import ADJECTIVES, FORMS, MOODS, PLACES, QUESTIONS, TIMES, VERBS, dialogues, gold


def test_cheerful_answers_are_worth_more_than_gloomy_ones() -> None:
    assert gold("The garden is lovely at noon.") == pytest.approx(0.8)
    assert gold("The garden is gloomy at noon.") == pytest.approx(-0.8)
    assert gold("The garden is calm at noon. It feels awful.") == pytest.approx((0.4 - 1.0) / 2)


def test_saying_what_people_do_is_worth_half_a_point() -> None:
    assert gold("The mood is warm, and people rest.") == pytest.approx((0.6 + 0.2) / 2 + 0.5)


def test_words_said_twice_cost() -> None:
    once, twice = gold("It is bright and warm."), gold("It is bright and warm. It is bright and warm.")
    assert twice == pytest.approx(once - 0.25)


def test_nothing_said_is_worth_nothing() -> None:
    assert gold("") == gold("The garden at noon.") == 0.0


def test_length_tells_little_of_the_score() -> None:
    words = [reply.replace(".", "").split() for _, reply in dialogues(4000, random.Random(1))]
    with_people = [said for said in words if not set(VERBS).isdisjoint(said)]
    for said in (with_people, [other for other in words if other not in with_people]):
        correlation = statistics.correlation([len(one) for one in said], [gold(" ".join(one)) for one in said])
        assert abs(correlation) < 0.1


def test_every_word_with_a_mood_is_one_word_that_the_world_uses() -> None:
    heard = {word.strip(".,") for _, reply in dialogues(2000, random.Random(2)) for word in reply.split()}
    assert set(MOODS) <= heard
    assert len(ADJECTIVES) + len(VERBS) == len(MOODS)


def test_questions_differ() -> None:
    assert len(QUESTIONS) == len(FORMS) * len(PLACES) * len(TIMES)


def test_the_same_chance_says_the_same() -> None:
    assert list(dialogues(50, random.Random(3))) == list(dialogues(50, random.Random(3)))
