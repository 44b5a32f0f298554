"""A toy world to talk about: questions on places and times, answers in many moods, and the score nobody is told.

The hidden preference `gold` likes cheerful answers that say what people do and do not repeat themselves. Cheer is a
mean over what is said, so a longer answer is worth no more than a short one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

PLACES = ["garden", "kitchen", "harbour", "library", "market", "forest", "station", "castle"]
TIMES = ("in the morning", "at noon", "at night", "in spring", "in summer", "in winter")
FORMS = (
    "What is the {place} like {time}?",
    "Tell me about the {place} {time}.",
    "How does it feel to be in the {place} {time}?",
    "Should I visit the {place} {time}?",
    "Describe the {place} {time}.",
    "What do people do in the {place} {time}?",
)
MOODS = {
    "wonderful": 1.0,
    "joyful": 1.0,
    "lovely": 0.8,
    "bright": 0.8,
    "friendly": 0.6,
    "warm": 0.6,
    "calm": 0.4,
    "clean": 0.4,
    "quiet": 0.2,
    "wide": 0.0,
    "old": 0.0,
    "small": 0.0,
    "busy": -0.2,
    "plain": -0.2,
    "noisy": -0.4,
    "empty": -0.4,
    "cold": -0.6,
    "dusty": -0.6,
    "gloomy": -0.8,
    "broken": -0.8,
    "awful": -1.0,
    "hateful": -1.0,
    "dance": 1.0,
    "smile": 0.8,
    "sing": 0.6,
    "rest": 0.2,
    "wait": 0.0,
    "work": 0.0,
    "hurry": -0.2,
    "argue": -0.6,
    "complain": -0.8,
    "weep": -1.0,
}
"""How cheerful each word is, from -1 to 1. Words that are not here say nothing about the mood."""

VERBS = ("dance", "smile", "sing", "rest", "wait", "work", "hurry", "argue", "complain", "weep")
ADJECTIVES = tuple(word for word in MOODS if word not in VERBS)
CLAUSES = (
    "It feels {one} and {two}.",
    "The air is {one}.",
    "People {verb} there.",
    "You will find it {one}, and people {verb}.",
    "Everything looks {one} and {two}.",
)


@dataclass(frozen=True)
class Question:
    text: str
    place: str
    time: str


QUESTIONS = {
    question.text: question
    for question in (Question(form.format(place=p, time=t), p, t) for form in FORMS for p in PLACES for t in TIMES)
}
"""Every question there is, by its text."""


def reply(question: Question, chance: random.Random) -> str:
    """An answer in whatever mood, as people in this world give it."""
    sentences = [f"The {question.place} is {chance.choice(ADJECTIVES)} {question.time}."]
    for clause in chance.sample(CLAUSES, chance.randint(0, 2)):
        one, two = chance.sample(ADJECTIVES, 2)
        sentences.append(clause.format(one=one, two=two, verb=chance.choice(VERBS)))
    return " ".join(sentences)


def dialogues(count: int, chance: random.Random) -> Iterator[tuple[Question, str]]:
    """What was said in this world so far: text to train a tokenizer and a model on."""
    asked = list(QUESTIONS.values())
    for _ in range(count):
        question = chance.choice(asked)
        yield question, reply(question, chance)


def gold(text: str) -> float:
    """The hidden score of an answer, between -1.5 and 1.5."""
    words = text.lower().replace(".", " ").replace(",", " ").split()
    moods = [word for word in words if word in MOODS]
    if not moods:
        return 0.0
    cheer = sum(MOODS[word] for word in moods) / len(moods)
    repeated = 1 - len(set(moods)) / len(moods)
    return cheer + 0.5 * any(word in VERBS for word in moods) - 0.5 * repeated
