// Marks, flags and notes of completions; step 1 of a ranking shows each alone on the stage.
"use strict";

/** Indices of the completions that a card stands for: several where they say the same. */
function indicesOf(card) {
  return card.dataset.indices.split(" ").map(Number);
}

class Ratings {
  /** `cards` in the order shown; `changed` is called after every change. */
  constructor({ cards, changed }) {
    Object.assign(this, { cards, changed });
    for (const card of cards) {
      card.addEventListener("change", () => {
        this.update();
        this.changed();
      });
      card.addEventListener("submit", (event) => event.preventDefault()); // Enter on a mark
      card.querySelector(".rating-note").addEventListener("input", () => this.changed());
    }
  }

  /** Show elsewhere what was marked. */
  update() {}

  /** Give a card its mark, and say so. */
  setMark(card, mark) {
    card.querySelector(`.marks input[value="${mark}"]`).checked = true;
    window.announce(interpolate(gettext("%(letter)s rated %(mark)s"), { letter: card.dataset.letter, mark }, true));
    this.update();
    this.changed();
  }

  mark(card) {
    const chosen = card.querySelector(".marks input:checked");
    return chosen ? Number(chosen.value) : null;
  }

  unrated() {
    return this.cards.filter((card) => !this.mark(card)).map((card) => card.dataset.letter);
  }

  /** Ratings by completion index. */
  read() {
    const ratings = new Array(this.cards.flatMap(indicesOf).length).fill(null);
    for (const card of this.cards) {
      const flags = [...card.querySelectorAll(".flags input:checked")].map((box) => box.value);
      const note = card.querySelector(".rating-note").value;
      const overall = this.mark(card);
      if (!overall && !flags.length && !note) continue;
      for (const index of indicesOf(card)) ratings[index] = { overall, flags, note };
    }
    return ratings;
  }

  apply(ratings) {
    for (const card of this.cards) {
      const rating = (Array.isArray(ratings) && ratings[indicesOf(card)[0]]) || {};
      for (const radio of card.querySelectorAll(".marks input")) radio.checked = Number(radio.value) === rating.overall;
      for (const box of card.querySelectorAll(".flags input")) box.checked = (rating.flags || []).includes(box.value);
      card.querySelector(".rating-note").value = rating.note || "";
    }
    this.update();
  }

  /** The focus to the first flag of a card, or to its note where there are no flags. */
  toFlagsOf(card) {
    const fold = card.querySelector("details");
    if (fold) fold.open = true;
    (card.querySelector(".flags input") || card.querySelector(".rating-note")).focus();
  }
}

class RatingStep extends Ratings {
  /** `finished` is called when a digit rated the last one. */
  constructor({ cards, changed, finished }) {
    super({ cards, changed });
    this.finished = finished;
    this.current = 0;
    this.stage = document.getElementById("stage");
    this.letters = [...document.querySelectorAll(".letters button")];
    this.letters.forEach((button, place) => button.addEventListener("click", () => this.show(place, true)));
  }

  /** Put completion number `place` on the stage. */
  show(place, withFocus = false) {
    this.current = Math.max(0, Math.min(place, this.cards.length - 1));
    this.stage.replaceChildren(this.cards[this.current]);
    this.letters.forEach((button, index) => button.setAttribute("aria-current", index === this.current ? "step" : "false"));
    if (withFocus) this.cards[this.current].focus({ preventScroll: true });
  }

  /** Rate the one on the stage and go on: to the next without a mark, or to the next one where all have theirs. */
  rate(mark) {
    const card = this.cards[this.current];
    const wasComplete = !this.unrated().length;
    this.setMark(card, mark);
    const order = [...this.cards.keys()];
    const onward = [...order.slice(this.current + 1), ...(wasComplete ? [] : order.slice(0, this.current))];
    const next = onward.find((place) => wasComplete || !this.mark(this.cards[place]));
    if (next === undefined) this.finished();
    else this.show(next, true);
  }

  /** Show the marks on the letters and on the cards. */
  update() {
    this.cards.forEach((card, place) => {
      const mark = this.mark(card);
      this.letters[place].querySelector(".mark").textContent = mark || "–";
      const tag = card.querySelector(".rated");
      tag.hidden = !mark;
      tag.textContent = mark ? `${mark} / 7` : "";
    });
  }

  /** Do what a key means here. Returns whether it meant anything. */
  act(action, event) {
    const isRadio = event.target.matches("input[type=radio]") && event.key.startsWith("Arrow");
    const digit = /^choose_([1-7])$/.exec(action);
    if (digit) this.rate(Number(digit[1]));
    else if (action === "next" && !isRadio) this.show(this.current + 1, true);
    else if (action === "previous" && !isRadio) this.show(this.current - 1, true);
    else if (action === "flags") this.toFlags();
    else return false;
    return true;
  }

  /** To the flags of the one on the stage. */
  toFlags() {
    this.toFlagsOf(this.cards[this.current]);
  }
}
