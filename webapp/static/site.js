// Shared by every page: announcements for screen readers, and words for requests that fail.
"use strict";

window.announce = function (text) {
  const place = document.getElementById("announcer");
  place.textContent = "";
  requestAnimationFrame(() => { place.textContent = text; });
};
