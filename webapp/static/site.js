// Shared by every page: announcements for screen readers, and words for requests that fail.
"use strict";

window.announce = function (text) {
  const place = document.getElementById("announcer");
  place.textContent = "";
  requestAnimationFrame(() => { place.textContent = text; });
};

/** Whether a person has set `field` otherwise than the page came. */
function isSet(field) {
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field instanceof HTMLSelectElement) {
    return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
  }
  return field.value !== field.defaultValue;
}

// What was set before htmx listened, or put back by the browser, counts as set now.
document.addEventListener("DOMContentLoaded", () => {
  for (const form of document.querySelectorAll("form[hx-trigger]")) {
    const field = [...form.querySelectorAll("input, select, textarea")].find(isSet);
    if (field) field.dispatchEvent(new Event(form.getAttribute("hx-trigger").split(/[ ,]/)[0], { bubbles: true }));
  }
});
