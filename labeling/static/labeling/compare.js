// Two pinned completions side by side, with what differs between them; Markdown as written or as it looks.
"use strict";

/** Two texts as pieces to append: what only one of them says is marked there, and left out in the other. */
function markedDifference(texts) {
  const parts = Diff.diffWordsWithSpace(...texts);
  return [["removed", "added"], ["added", "removed"]].map(([own, others]) => parts.filter((part) => !part[others]).map((part) => {
    if (!part[own]) return part.value;
    return Object.assign(document.createElement("mark"), { textContent: part.value });
  }));
}

/** Show the Markdown of these cards as it looks, or as it is written. */
function showMarkdown(cards, isRendered) {
  document.getElementById("markdown").setAttribute("aria-pressed", isRendered);
  for (const card of cards) {
    card.querySelector(".said").hidden = isRendered;
    card.querySelector(".rendered").hidden = !isRendered;
  }
}

class Compare {
  constructor(cards) {
    this.cards = cards;
    this.pinned = [];
    this.place = document.getElementById("compare");
    this.diffButton = document.getElementById("diff");
    this.isDiff = false;
    for (const card of cards) card.querySelector(".pin").addEventListener("click", () => this.pin(card));
    this.diffButton.addEventListener("click", () => this.toggleDiff());
    document.getElementById("unpin").addEventListener("click", () => this.clear());
    const markdown = document.getElementById("markdown");
    markdown.addEventListener("click", () => this.toggleMarkdown());
    this.isMarkdown = false;
  }

  /** Pin a card, or unpin it; a third one takes the place of the first. */
  pin(card) {
    if (this.pinned.includes(card)) this.pinned = this.pinned.filter((other) => other !== card);
    else this.pinned = [...this.pinned, card].slice(-2);
    this.render();
    const letters = this.pinned.map((each) => each.dataset.letter).join(", ");
    window.announce(letters ? interpolate(gettext("Pinned: %s"), [letters]) : gettext("Nothing is pinned"));
  }

  clear() {
    const last = this.pinned.at(-1);
    this.pinned = [];
    this.render();
    if (last && last.isConnected) last.focus({ preventScroll: true });
  }

  toggleDiff() {
    this.isDiff = !this.isDiff;
    this.render();
  }

  toggleMarkdown() {
    this.isMarkdown = !this.isMarkdown;
    showMarkdown(this.cards, this.isMarkdown);
  }

  render() {
    for (const card of this.cards) card.querySelector(".pin").setAttribute("aria-pressed", this.pinned.includes(card));
    this.place.hidden = !this.pinned.length;
    this.diffButton.hidden = this.pinned.length < 2;
    this.diffButton.setAttribute("aria-pressed", this.isDiff);
    const texts = this.pinned.map((card) => card.querySelector(".said").textContent);
    const pieces = this.isDiff && texts.length === 2 ? markedDifference(texts) : texts.map((text) => [text]);
    const columns = this.pinned.map((card, side) => this.column(card, pieces[side]));
    this.place.querySelector(".compare-texts").replaceChildren(...columns);
  }

  column(card, pieces) {
    const column = document.createElement("div");
    const heading = Object.assign(document.createElement("h3"), { textContent: card.dataset.letter });
    const text = Object.assign(document.createElement("div"), { className: "text", lang: card.querySelector(".said").lang });
    text.append(...pieces);
    column.append(heading, text);
    return column;
  }
}
