// The demonstration task: write the answer.
"use strict";

(function () {
  const text = document.getElementById("text");
  const limit = Number(text.dataset.limit);

  function showLength() {
    // Count characters as the server does, not UTF-16 units.
    const length = [...text.value].length;
    const counts = { length: length.toLocaleString(), limit: limit.toLocaleString() };
    const place = document.getElementById("length");
    place.textContent = interpolate(gettext("%(length)s of %(limit)s characters"), counts, true);
    place.classList.toggle("is-over", length > limit);
    return length;
  }

  const task = new Task({
    read: () => ({ text: text.value }),
    apply: (work) => {
      text.value = work.text || "";
      showLength();
    },
    missing: () => {
      if (!text.value.trim()) {
        text.focus();
        return gettext("Write an answer before you submit.");
      }
      const over = showLength() - limit;
      return over > 0 ? interpolate(gettext("The answer is %s characters too long. Shorten it."), [over]) : "";
    },
  });
  text.addEventListener("input", () => {
    task.changed();
    showLength();
  });
  showLength();
  if (matchMedia("(min-width: 900px)").matches) text.focus();
})();
