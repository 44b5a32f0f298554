"use strict";
// Parts of a page that take a moment are fetched after it is there; a form that is on its way is not sent twice.

for (const box of document.querySelectorAll("[data-fragment]")) {
  fetch(box.dataset.fragment, { headers: { "X-Requested-With": "fetch" } })
    .then((answer) => (answer.ok && !answer.redirected ? answer.text() : Promise.reject(answer.status)))
    .then((html) => { box.innerHTML = html; })
    .catch(() => {}); // the link that stands there leads to the same words
}

for (const form of document.querySelectorAll("form[data-once]")) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
}
window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
