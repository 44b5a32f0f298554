// The ranking task: rate each completion, then put all in tiers.
"use strict";

(function () {
  const cards = [...document.querySelectorAll(".completion")];
  const note = document.getElementById("note");
  const steps = { rate: document.getElementById("rate-step"), board: document.getElementById("board-step") };
  const onward = document.getElementById("to-board");
  let task = null; // until the draft is read, nothing is a change
  let step = null; // where the draft left off, else what is asked for first

  const changed = () => {
    if (task) task.changed();
    showProgress();
  };
  const rating = new RatingStep({ cards, changed, finished: () => go("board") });
  const board = new TierBoard({ cards, changed });
  const compare = new Compare(cards);
  const unacceptable = document.getElementById("none-acceptable");

  function showProgress() {
    const counts = { rated: cards.length - rating.unrated().length, ranked: cards.length - board.unranked().length, k: cards.length };
    document.getElementById("progress").textContent =
      interpolate(gettext("Rated %(rated)s/%(k)s · In tiers %(ranked)s/%(k)s"), counts, true);
  }

  /** Words for what step 1 still needs, and the first of them on the stage. */
  function unratedWords() {
    const letters = rating.unrated();
    if (!task.data.requireRatings || !letters.length || unacceptable.checked) return "";
    return interpolate(gettext("Not rated yet (1 to 7): %s"), [letters.join(", ")]);
  }

  /** To a step; to rate, the first without a mark is shown, or `card`. */
  function go(to, withFocus = true, card = null) {
    const unrated = to === "board" ? unratedWords() : "";
    task.trouble(unrated);
    if (unrated) to = "rate";
    step = to;
    compare.render();
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
      const first = card ? cards.indexOf(card) : cards.findIndex((each) => !rating.mark(each));
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
    if (!letters.length || unacceptable.checked) return "";
    go("board");
    return interpolate(gettext("In no tier yet: %s"), [letters.join(", ")]);
  }

  /** What a key means on this page: first what both steps share, then what the step makes of it. */
  function act(action, event) {
    const card = document.activeElement.closest(".completion") || (step === "rate" ? cards[rating.current] : board.active);
    const acts = {
      pin: () => compare.pin(card || cards[0]),
      diff: () => compare.toggleDiff(),
      markdown: () => compare.toggleMarkdown(),
    };
    // Space and the like do what a button or box under the focus does with them.
    if (event.key === " " && event.target.closest("button, input, summary, a")) return false;
    if (acts[action]) acts[action]();
    else if (action === "none_acceptable") {
      unacceptable.click();
      go("board");
    } else if (action === "flags" && step === "board") {
      go("rate", false, card || cards[0]);
      rating.toFlags();
    } else return step === "board" ? board.act(action) : rating.act(action, event);
    return true;
  }

  task = new Task({
    read: () => ({
      tiers: board.read(),
      ratings: rating.read(),
      note: note.value,
      verdict: unacceptable.checked ? "none_acceptable" : "ranked",
      step,
    }),
    apply: (work) => {
      const before = task;
      task = null;
      rating.apply(work.ratings);
      board.apply(work.tiers);
      note.value = work.note || "";
      unacceptable.checked = work.verdict === "none_acceptable";
      if (work.step) step = work.step === "board" ? "board" : "rate";
      task = before;
      if (task) go(step);
    },
    missing,
    act,
  });
  note.addEventListener("input", changed);
  unacceptable.addEventListener("change", changed);
  const cannotJudge = document.getElementById("cannot-judge");
  if (cannotJudge) cannotJudge.addEventListener("click", () => {
    document.getElementById("skip-dialog").close();
    const why = document.getElementById("skip-reason").value;
    task.handIn({ verdict: "cannot_judge", note: note.value || why });
  });
  for (const button of document.querySelectorAll(".steps button")) button.addEventListener("click", () => go(button.dataset.step));
  onward.addEventListener("click", () => go("board"));
  rating.update();
  go(step || (task.data.requireRatings ? "rate" : "board"), false);
})();
