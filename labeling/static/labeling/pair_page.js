// The task of a pair: which of two completions is better, and by how much.
"use strict";

(function () {
  const cards = [...document.querySelectorAll(".completion")];
  const texts = cards.map((card) => card.querySelector(".said").textContent);
  const places = cards.flatMap(indicesOf); // of A and B; two that say the same are one card
  const scale = [...document.querySelectorAll("#scale input")];
  const unacceptable = document.getElementById("none-acceptable");
  const note = document.getElementById("note");
  const diff = document.getElementById("diff");
  const markdown = document.getElementById("markdown");
  let task = null; // until the draft is read, nothing is a change

  const changed = () => {
    if (task) task.changed();
    showProgress();
  };
  const ratings = new Ratings({ cards, changed });

  /** The answer as a radio button, from "A is much better" to "B is much better". */
  function chosen() {
    return scale.find((radio) => radio.checked);
  }

  function wordsOf(radio) {
    return radio.parentElement.textContent.trim();
  }

  function showProgress() {
    const counts = { rated: cards.length - ratings.unrated().length, k: cards.length };
    const answer = chosen() ? wordsOf(chosen()) : gettext("no answer yet");
    document.getElementById("progress").textContent = `${interpolate(gettext("Rated %(rated)s/%(k)s"), counts, true)} · ${answer}`;
  }

  /** Answer with one of the seven, and say so. */
  function choose(radio) {
    if (radio.disabled) return;
    radio.checked = true;
    window.announce(wordsOf(radio));
    changed();
  }

  /** One step along the scale; the first one starts from the middle. */
  function step(by) {
    const place = (chosen() ? scale.indexOf(chosen()) : 3) + by;
    if (scale[place]) choose(scale[place]);
  }

  /** To the marks of a card: where it has one, to that; else to the first. */
  function toMarks(card) {
    (card.querySelector(".marks input:checked") || card.querySelector(".marks input")).focus();
  }

  /** Rate the card under the focus and go on: to the other one, or to the scale. */
  function rate(card, mark) {
    ratings.setMark(card, mark);
    const waiting = cards.find((each) => !ratings.mark(each));
    if (waiting) toMarks(waiting);
    else (chosen() || scale.find((radio) => !radio.disabled)).focus();
  }

  function showDifference(isShown) {
    diff.setAttribute("aria-pressed", isShown);
    const pieces = isShown ? markedDifference(texts) : texts.map((text) => [text]);
    cards.forEach((card, side) => card.querySelector(".said").replaceChildren(...pieces[side]));
  }

  function toggleDifference() {
    if (diff.hidden) return;
    showMarkdown(cards, false); // what differs is marked in the text as it is written
    showDifference(diff.getAttribute("aria-pressed") !== "true");
  }

  function toggleMarkdown() {
    showDifference(false);
    showMarkdown(cards, markdown.getAttribute("aria-pressed") !== "true");
  }

  /** What still has to be done before the comparison can be handed in, in words; the focus goes there. */
  function missing() {
    if (unacceptable.checked) return "";
    const unrated = task.data.requireRatings ? ratings.unrated() : [];
    if (unrated.length) {
      toMarks(cards.find((card) => unrated.includes(card.dataset.letter)));
      return interpolate(gettext("Not rated yet (1 to 7): %s"), [unrated.join(", ")]);
    }
    if (chosen()) return "";
    scale.find((radio) => !radio.disabled).focus();
    return gettext("Say which is better, or that they are about the same.");
  }

  /** What a key means on this page. */
  function act(action, event) {
    const card = document.activeElement.closest(".completion");
    const isMark = card && event.target.matches(".marks input");
    const isRadio = event.target.matches("input[type=radio]");
    const number = Number((/^prefer_([1-7])$/.exec(action) || [])[1]);
    const acts = {
      rate: () => toMarks(cards[(cards.indexOf(card) + 1) % cards.length]),
      flags: () => ratings.toFlagsOf(card || cards[0]),
      none_acceptable: () => unacceptable.click(),
      diff: toggleDifference,
      markdown: toggleMarkdown,
    };
    if (event.key === " " && event.target.closest("button, input, summary, a")) return false;
    if (number) isMark ? rate(card, number) : choose(scale[number - 1]);
    else if (action === "toward_a" && !isRadio) step(-1);
    else if (action === "toward_b" && !isRadio) step(1);
    else if (acts[action]) acts[action]();
    else return false;
    return true;
  }

  task = new Task({
    read: () => {
      const value = chosen() ? Number(chosen().value) : null;
      const tiers = new Array(places.length).fill(null);
      if (value !== null) [tiers[places[0]], tiers[places[1]]] = [value > 0 ? 2 : 1, value < 0 ? 2 : 1];
      return {
        tiers,
        strength: value === null ? null : Math.abs(value),
        ratings: ratings.read(),
        note: note.value,
        verdict: unacceptable.checked ? "none_acceptable" : "ranked",
      };
    },
    apply: (work) => {
      const before = task;
      task = null;
      ratings.apply(work.ratings);
      const [a, b] = places.map((place) => (Array.isArray(work.tiers) ? work.tiers[place] : null));
      const value = Number.isInteger(work.strength) ? (a < b ? -work.strength : work.strength) : null;
      for (const radio of scale) radio.checked = value !== null && Number(radio.value) === value;
      for (const card of cards) {
        const fold = card.querySelector("details");
        if (fold && card.querySelector(".flags input:checked")) fold.open = true;
      }
      note.value = work.note || "";
      unacceptable.checked = work.verdict === "none_acceptable";
      task = before;
      showProgress();
    },
    missing,
    act,
  });
  note.addEventListener("input", changed);
  unacceptable.addEventListener("change", changed);
  for (const radio of scale) radio.addEventListener("change", changed);
  diff.addEventListener("click", toggleDifference);
  markdown.addEventListener("click", toggleMarkdown);
  diff.hidden = cards.length < 2;
  markdown.disabled = false;
  const cannotJudge = document.getElementById("cannot-judge");
  if (cannotJudge) cannotJudge.addEventListener("click", () => {
    document.getElementById("skip-dialog").close();
    task.handIn({ verdict: "cannot_judge", note: note.value || document.getElementById("skip-reason").value });
  });
  showProgress();
})();
