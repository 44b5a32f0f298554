import random

import pytest

from benchmarks.korean_noise import NOISES, neighbours, particles, spacing, typos

TEXT = "오늘은 날씨가 정말 좋아서 친구와 함께 공원에 가고 싶어요. 밥을 먹고 영화를 봤어요."


@pytest.mark.parametrize("name", NOISES)
def test_noise_changes_some_of_the_text_and_repeats_with_its_seed(name: str) -> None:
    noisy = NOISES[name](TEXT, random.Random(1))
    assert noisy != TEXT and noisy == NOISES[name](TEXT, random.Random(1))
    assert noisy != NOISES[name](TEXT, random.Random(2))
    assert sum(character in TEXT for character in noisy) > 0.5 * len(TEXT)


@pytest.mark.parametrize("noise", [typos, spacing, particles])
def test_no_noise_leaves_the_text_as_it_is(noise: object) -> None:
    assert noise(TEXT, random.Random(1), rate=0.0) == TEXT  # type: ignore[operator]


def test_a_slip_hits_a_key_beside_the_right_one() -> None:
    assert neighbours("ㄱ") == ["ㄷ", "ㅅ"] and neighbours("ㅔ") == ["ㅐ"]
    for seed in range(50):
        (slip,) = typos("가", random.Random(seed), rate=1.0)
        assert slip in "다사거기"  # ㄷ ㅅ beside ㄱ, ㅓ ㅣ beside ㅏ


def test_spacing_changes_spaces_alone() -> None:
    assert spacing(TEXT, random.Random(3)).replace(" ", "") == TEXT.replace(" ", "")


def test_particles_change_to_their_other_form_or_go() -> None:
    seen = {particles("밥을", random.Random(seed), rate=1.0) for seed in range(20)}
    assert seen == {"밥를", "밥"}
    assert particles("정말 좋아요", random.Random(0), rate=1.0) == "정말 좋아요"
