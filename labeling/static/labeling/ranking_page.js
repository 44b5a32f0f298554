// The ranking task: rate each completion, then put all in tiers.
"use strict";

(function () {
  const cards = [...document.querySelectorAll(".completion")];
  const note = document.getElementById("note");
  const steps = { rate: document.getElementById("rate-step"), board: document.getElementById("board-step") };
  const onward = document.getElementById("to-board");
  let task = null; // until the draft is read, nothing is a change
  let step = "rate";

  const changed = () => {
    if (task) task.changed();
    showProgress();
  };
  const rating = new RatingStep({ cards, changed, finished: () => go("board") });
  const board = new TierBoard({ cards, changed });

  function showProgress() {
    const counts = { rated: cards.length - rating.unrated().length, ranked: cards.length - board.unranked().length, k: cards.length };
    document.getElementById("progress").textContent =
      interpolate(gettext("Rated %(rated)s/%(k)s · In tiers %(ranked)s/%(k)s"), counts, true);
  }

  /** Words for what step 1 still needs, and the first of them on the stage. */
  function unratedWords() {
    const letters = rating.unrated();
    if (!task.data.requireRatings || !letters.length) return "";
    return interpolate(gettext("Not rated yet (1 to 7): %s"), [letters.join(", ")]);
  }

  function go(to, withFocus = true) {
    const unrated = to === "board" ? unratedWords() : "";
    task.trouble(unrated);
    if (unrated) to = "rate";
    step = to;
    for (const name of Object.keys(steps)) steps[name].hidden = name !== to;
    for (const button of document.querySelectorAll(".steps button")) {
      button.setAttribute("aria-current", button.dataset.step === to ? "step" : "false");
    }
    onward.hidden = to === "board";
    document.getElementById("submit").hidden = to !== "board";
    if (to === "board") {
      board.render();
      if (withFocus) board.focusFirst();
    } else {
      const first = cards.findIndex((card) => !rating.mark(card));
      rating.show(first >= 0 ? first : rating.current, withFocus);
    }
    showProgress();
  }

  /** What still has to be done before the ranking can be handed in, in words; the page goes there. */
  function missing() {
    const unrated = unratedWords();
    if (unrated) {
      go("rate");
      return unrated;
    }
    const letters = board.unranked();
    if (!letters.length) return "";
    go("board");
    return interpolate(gettext("In no tier yet: %s"), [letters.join(", ")]);
  }

  task = new Task({
    read: () => ({ tiers: board.read(), ratings: rating.read(), note: note.value, step }),
    apply: (work) => {
      const before = task;
      task = null;
      rating.apply(work.ratings);
      board.apply(work.tiers);
      note.value = work.note || "";
      step = work.step === "board" ? "board" : "rate";
      task = before;
      if (task) go(step);
    },
    missing,
  });
  note.addEventListener("input", changed);
  for (const button of document.querySelectorAll(".steps button")) button.addEventListener("click", () => go(button.dataset.step));
  onward.addEventListener("click", () => go("board"));
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (step === "board") board.key(event);
    else if (!event.altKey) rating.key(event);
  });
  rating.update();
  go(step, false);
})();
