// The box in the head of the list ticks every prompt of the page.
"use strict";

function tickAll(head) {
  for (const box of head.closest("table").querySelectorAll("tbody input[type=checkbox]")) box.checked = head.checked;
}

document.addEventListener("change", (event) => {
  const head = event.target.closest("[data-select-all]");
  if (head) tickAll(head);
});

// It may have been ticked before this script ran.
for (const head of document.querySelectorAll("[data-select-all]:checked")) tickAll(head);
