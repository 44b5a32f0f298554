// One's own keys: a press in a field writes its name there.
"use strict";

for (const field of document.querySelectorAll("input.key")) {
  field.addEventListener("keydown", (event) => {
    if (["Tab", "Escape"].includes(event.key) || isComposing(event)) return;
    const name = keyName(event);
    if (!name) return;
    event.preventDefault();
    field.value = name;
  });
  field.addEventListener("focus", () => field.select());
}
