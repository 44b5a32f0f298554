// Tells people who do not see the page when work has come, and goes to the login form when the session has ended.
"use strict";

document.addEventListener("keydown", (event) => {
  if (keyName(event) !== "Ctrl+z" || isTyping(event)) return;
  if (document.querySelector("#undo:not([hidden])")) event.preventDefault();
  takeBack();
});

document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) location.reload();
});

document.addEventListener("htmx:afterSwap", (event) => {
  const before = event.detail.target, now = event.detail.elt;
  const fresh = document.getElementById(before.id) || now;
  const [had, has] = [Number(before.dataset.waiting), Number(fresh.dataset.waiting)];
  if (has > had) window.announce(interpolate(ngettext("%s task waits for you", "%s tasks wait for you", has), [has]));
});
