// Step 2: the tier board. Tier 0 is the tray. Cards in one tier are tied, so within a tier they stand by letter.
"use strict";

class TierBoard {
  constructor({ cards, changed }) {
    Object.assign(this, { cards, changed });
    this.k = cards.length;
    this.tiers = new Map(cards.map((card) => [card, 0]));
    this.places = [...document.querySelectorAll(".cards-in-tier")];
    for (const card of cards) {
      card.addEventListener("focus", () => { this.active = card; });
      for (const button of card.querySelectorAll("[data-to]")) {
        const tier = Number(button.dataset.to);
        button.addEventListener("click", () => this.move(card, this.tiers.get(card) === tier ? 0 : tier));
      }
      for (const button of card.querySelectorAll("[data-move]")) {
        button.addEventListener("click", () => this.moveBy(card, Number(button.dataset.move)));
      }
    }
    this.makeDraggable();
  }

  makeDraggable() {
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    for (const place of this.places) {
      new Sortable(place, {
        group: "tiers",
        handle: ".handle",
        draggable: ".completion",
        sort: false,
        forceFallback: true, // the same with mouse, pen and finger
        fallbackTolerance: 3,
        emptyInsertThreshold: 24,
        scrollSensitivity: 90, // px: the bar at the foot covers the edge of the window
        animation: isStill ? 0 : 120,
        onChoose: () => this.freeze(true),
        onUnchoose: () => this.freeze(false),
        onEnd: (drop) => this.move(drop.item, Number(drop.to.dataset.tier)),
      });
    }
  }

  /** While a card is dragged nothing moves away under the pointer: every tier keeps its height. */
  freeze(isDragging) {
    for (const place of this.places) place.style.minHeight = isDragging ? `${place.offsetHeight}px` : "";
    document.body.classList.toggle("is-dragging", isDragging);
  }

  /** Put every card where its tier says. */
  render() {
    for (const place of this.places) {
      const tier = Number(place.dataset.tier);
      const members = this.cards.filter((card) => this.tiers.get(card) === tier);
      if (members.length !== place.children.length || members.some((card, index) => place.children[index] !== card)) {
        place.replaceChildren(...members);
      }
      const heading = place.parentElement;
      heading.classList.toggle("is-empty", members.length === 0);
      const tie = heading.querySelector(".tie");
      if (tie) tie.hidden = members.length < 2;
    }
    for (const card of this.cards) {
      const tier = this.tiers.get(card);
      for (const button of card.querySelectorAll("[data-to]")) button.setAttribute("aria-pressed", Number(button.dataset.to) === tier);
      card.querySelector("[data-move='-1']").disabled = tier === 0;
      card.querySelector("[data-move='1']").disabled = tier === this.k;
      card.setAttribute("aria-label", this.describe(card));
    }
  }

  describe(card) {
    const [letter, tier] = [card.dataset.letter, this.tiers.get(card)];
    return tier
      ? interpolate(gettext("Completion %(letter)s, tier %(tier)s"), { letter, tier }, true)
      : interpolate(gettext("Completion %(letter)s, to be ranked"), { letter }, true);
  }

  /** Move `card` to `tier`, say so, and keep the focus where the person is. */
  move(card, tier) {
    const focused = card.contains(document.activeElement) ? document.activeElement : null;
    this.tiers.set(card, tier);
    this.render();
    if (focused) (focused.disabled ? card : focused).focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
    window.announce(this.tell(card, tier));
    this.changed();
  }

  moveBy(card, step) {
    const tier = this.tiers.get(card) + step;
    if (tier >= 0 && tier <= this.k) this.move(card, tier);
  }

  tell(card, tier) {
    const letter = card.dataset.letter;
    if (!tier) return interpolate(gettext("%(letter)s is to be ranked again"), { letter }, true);
    const others = this.cards.filter((other) => other !== card && this.tiers.get(other) === tier);
    const names = others.map((other) => other.dataset.letter).join(", ");
    return names
      ? interpolate(gettext("%(letter)s moved to tier %(tier)s, tied with %(names)s"), { letter, tier, names }, true)
      : interpolate(gettext("%(letter)s moved to tier %(tier)s"), { letter, tier }, true);
  }

  /** Cards as they stand on the page: the tray first, then tier by tier. */
  inOrder() {
    return this.places.flatMap((place) => [...place.children]);
  }

  unranked() {
    return this.cards.filter((card) => !this.tiers.get(card)).map((card) => card.dataset.letter);
  }

  focusFirst() {
    const waiting = this.inOrder().find((card) => !this.tiers.get(card));
    this.focus(waiting || this.inOrder()[0]);
  }

  focus(card) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  /** Tiers by completion index; null is "not yet". */
  read() {
    const tiers = new Array(this.cards.flatMap(indicesOf).length).fill(null);
    for (const [card, tier] of this.tiers) for (const index of indicesOf(card)) tiers[index] = tier || null;
    return tiers;
  }

  apply(tiers) {
    for (const card of this.cards) {
      const tier = Array.isArray(tiers) ? tiers[indicesOf(card)[0]] : null;
      this.tiers.set(card, Number.isInteger(tier) && tier >= 1 ? tier : 0);
    }
    // Tiers of completions that are one card here may leave gaps beyond the last tier there is.
    if (Math.max(...this.tiers.values()) > this.k) this.closeGaps();
  }

  /** Do what a key means here. Returns whether it meant anything. */
  act(action) {
    const card = document.activeElement.closest(".completion") || this.active || this.inOrder()[0];
    const tier = action === "clear" ? 0 : Number((/^choose_([1-9])$/.exec(action) || [])[1]);
    const acts = {
      previous: () => this.select(card, -1),
      next: () => this.select(card, 1),
      better: () => this.moveBy(card, -1),
      worse: () => this.moveBy(card, 1),
      tie: () => this.tie(card),
      split: () => this.split(card),
      fold: () => this.fold(card),
    };
    if (tier >= 0 && tier <= this.k) this.send(card, tier);
    else if (acts[action]) acts[action]();
    else return false;
    return true;
  }

  /** Into the tier above, wherever the next card better than this one stands. */
  tie(card) {
    const own = this.tiers.get(card) || this.k + 1;
    const above = Math.max(0, ...[...this.tiers.values()].filter((tier) => tier && tier < own));
    if (above) this.move(card, above);
  }

  /** Out of its tie, into a tier of its own just below. */
  split(card) {
    const tier = this.tiers.get(card);
    if (!tier || ![...this.tiers].some(([other, its]) => other !== card && its === tier)) return;
    this.closeGaps();
    const own = this.tiers.get(card);
    for (const [other, its] of this.tiers) if (its > own) this.tiers.set(other, its + 1);
    this.move(card, own + 1);
  }

  /** Tiers 1, 2, 3 ... with no empty one between them. */
  closeGaps() {
    const used = [...new Set(this.tiers.values())].filter(Boolean).sort((a, b) => a - b);
    for (const [card, tier] of this.tiers) if (tier) this.tiers.set(card, used.indexOf(tier) + 1);
  }

  /** Full text is what is shown; a long one may be folded to see more of the others. */
  fold(card) {
    card.classList.toggle("is-folded");
  }

  send(card, tier) {
    const wasWaiting = !this.tiers.get(card);
    const waiting = this.cards.filter((other) => other !== card && !this.tiers.get(other));
    const next = waiting.find((other) => other.dataset.letter > card.dataset.letter) || waiting[0];
    this.move(card, tier);
    this.focus(wasWaiting && tier && next ? next : card);
  }

  select(card, step) {
    const order = this.inOrder();
    const place = order.indexOf(card) + step;
    if (place >= 0 && place < order.length) this.focus(order[place]);
  }
}
