// The demonstration task: write the answer, from nothing or from a completion; see how it looks and how long it is.
"use strict";

(function () {
  const COUNT_AFTER = 600; // ms without a change
  const ASK_AGAIN = [700, 1500, 3000, 6000]; // ms, while the sampler has not counted yet
  const NEAR = 0.9; // of a limit: from here on it is shown as a warning
  const text = document.getElementById("text");
  const preview = document.getElementById("preview");
  const limit = Number(text.dataset.limit);
  let startedFrom = null;
  let pasted = 0; // characters from the clipboard
  let counting = null;

  function showLength() {
    // Count characters as the server does, not UTF-16 units.
    const length = [...text.value].length;
    const counts = { length: length.toLocaleString(), limit: limit.toLocaleString() };
    const place = document.getElementById("length");
    place.textContent = interpolate(gettext("%(length)s of %(limit)s characters"), counts, true);
    place.classList.toggle("is-near", length > NEAR * limit && length <= limit);
    place.classList.toggle("is-over", length > limit);
    return length;
  }

  /** Ask for the number of tokens once the person rests; an estimate is marked as one, and asked about again. */
  function countTokens(tries = 0) {
    clearTimeout(counting);
    counting = setTimeout(async () => {
      const asked = text.value;
      if (!asked.trim()) {
        document.getElementById("tokens").textContent = "";
        return;
      }
      const { status, data } = await postJson(task.data.tokensUrl, { text: asked });
      if (status !== 200 || asked !== text.value) return;
      const words = data.is_exact
        ? ngettext("%s token", "%s tokens", data.count)
        : ngettext("about %s token (estimated)", "about %s tokens (estimated)", data.count);
      document.getElementById("tokens").textContent = interpolate(words, [data.count.toLocaleString()]);
      if (!data.is_exact && tries < ASK_AGAIN.length) countTokens(tries + 1);
    }, tries ? ASK_AGAIN[tries - 1] : COUNT_AFTER);
  }

  async function show(view) {
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-current", button.dataset.view === view ? "step" : "false");
    }
    if (view === "preview") {
      const { status, data } = await postJson(task.data.previewUrl, { text: text.value });
      if (status === 200) preview.innerHTML = data.html; // made harmless by the server: no script, style or image
      else preview.textContent = data.error || gettext("There is no preview: the server does not answer.");
    }
    preview.hidden = view !== "preview";
    text.hidden = view === "preview";
    if (view === "write") text.focus();
  }

  const task = new Task({
    read: () => ({ text: text.value, started_from: startedFrom, pasted }),
    apply: (work) => {
      text.value = work.text || "";
      startedFrom = work.started_from || null;
      pasted = work.pasted || 0;
      showLength();
    },
    missing: () => {
      if (!text.value.trim()) {
        show("write");
        return gettext("Write an answer before you submit.");
      }
      const over = showLength() - limit;
      return over > 0 ? interpolate(gettext("The answer is %s characters too long. Shorten it."), [over]) : "";
    },
  });
  function changed() {
    task.changed();
    showLength();
    countTokens();
  }
  text.addEventListener("input", changed);
  text.addEventListener("paste", (event) => (pasted += [...event.clipboardData.getData("text")].length));
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
  for (const base of document.querySelectorAll(".base")) {
    base.querySelector("button").addEventListener("click", () => {
      text.value = base.querySelector(".said").textContent;
      startedFrom = Number(base.dataset.completion);
      changed();
      document.getElementById("bases").open = false;
      show("write");
      window.announce(gettext("The text is in the field. Correct it; Ctrl or ⌘ + Z outside the field brings back what was there."));
    });
  }
  if (task.isUntouched && text.value) task.changed(); // written before this script ran
  showLength();
  countTokens();
  if (matchMedia("(min-width: 900px)").matches) text.focus();
})();
