// The box in the head of the list ticks every prompt of the page.
"use strict";

document.addEventListener("change", (event) => {
  const head = event.target.closest("[data-select-all]");
  if (!head) return;
  for (const box of head.closest("table").querySelectorAll("tbody input[type=checkbox]")) box.checked = head.checked;
});
