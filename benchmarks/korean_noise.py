"""What people's Korean looks like when they type in a hurry: slips of the finger, spaces, particles.

A Hangul syllable is 0xAC00 + (initial * 21 + medial) * 28 + final; a slip puts a jamo's neighbour on the two-set
keyboard in its place. Functions of a text and a random stream; each changes about `rate` of the places it can.
"""

import random
from collections.abc import Callable

INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
MEDIALS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
KEYBOARD = ("ㅂㅈㄷㄱㅅ", "ㅁㄴㅇㄹㅎ", "ㅋㅌㅊㅍ", "ㅛㅕㅑㅐㅔ", "ㅗㅓㅏㅣ", "ㅠㅜㅡ")  # rows of one hand each
FIRST, LAST = 0xAC00, 0xD7A3
SWAPPED = {"은": "는", "는": "은", "이": "가", "가": "이", "을": "를", "를": "을", "과": "와", "와": "과"}
DROPPED = ("에", "도", "로", "의", "만")

Noise = Callable[[str, random.Random], str]


def neighbours(jamo: str) -> list[str]:
    """Keys beside a jamo's own."""
    row = next((row for row in KEYBOARD if jamo in row), "")
    place = row.find(jamo)
    return [row[i] for i in (place - 1, place + 1) if row and 0 <= i < len(row)]


def typos(text: str, chance: random.Random, rate: float = 0.15) -> str:
    """One wrong key in some syllables."""
    return "".join(_slip(character, chance) if chance.random() < rate else character for character in text)


def _slip(character: str, chance: random.Random) -> str:
    if not FIRST <= ord(character) <= LAST:
        return character
    rest, final = divmod(ord(character) - FIRST, 28)
    initial, medial = divmod(rest, 21)
    if chance.random() < 0.5 and (near := neighbours(INITIALS[initial])):
        initial = INITIALS.index(chance.choice(near))
    elif near := neighbours(MEDIALS[medial]):
        medial = MEDIALS.index(chance.choice(near))
    return chr(FIRST + (initial * 21 + medial) * 28 + final)


def spacing(text: str, chance: random.Random, rate: float = 0.4) -> str:
    """Spaces left out between words, and a quarter as often put inside them."""
    noisy = []
    for before, character in zip(" " + text, text, strict=False):
        if character == " " and chance.random() < rate:
            continue
        if " " not in (before, character) and chance.random() < rate / 4:
            noisy.append(" ")
        noisy.append(character)
    return "".join(noisy)


def particles(text: str, chance: random.Random, rate: float = 0.6) -> str:
    """Particles (josa) at the ends of words in the form that fits other sounds, or left out."""
    return " ".join(_particle(word, chance) if chance.random() < rate else word for word in text.split(" "))


def _particle(word: str, chance: random.Random) -> str:
    stem, end = word[:-1], word[-1:]
    if not stem or end not in (*SWAPPED, *DROPPED):
        return word
    return stem + (SWAPPED[end] if end in SWAPPED and chance.random() < 0.5 else "")


def everything(text: str, chance: random.Random) -> str:
    """All three, each half as often."""
    return typos(spacing(particles(text, chance, 0.3), chance, 0.2), chance, 0.075)


NOISES: dict[str, Noise] = {"typos": typos, "spacing": spacing, "particles": particles, "all three": everything}
