// A task that is no longer the labeler's: text that only this browser has is shown, to be copied.
"use strict";

(function () {
  const unsent = Draft.unsent(JSON.parse(document.getElementById("task-data").textContent).storageKey);
  const text = unsent && unsent.payload && unsent.payload.text;
  if (!text) return;
  document.getElementById("left-text").textContent = text;
  document.getElementById("left").hidden = false;
})();
