// Says so where a draft could not be saved; the text stays in the page.
"use strict";

(function () {
  const form = document.getElementById("translation");
  const complain = (words) => {
    const status = document.getElementById("draft-status");
    status.querySelector("p")?.remove();
    const line = document.createElement("p");
    line.className = "notice error";
    line.textContent = words;
    status.append(line);
  };
  let unsaved = false;
  form.addEventListener("input", () => { unsaved = true; });
  form.addEventListener("submit", () => { unsaved = false; });
  form.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) unsaved = false; });
  form.addEventListener("htmx:sendError", () => complain(gettext("The site does not answer. Your text stays here; it is saved with your next change once the site is back.")));
  form.addEventListener("htmx:responseError", (event) => complain(event.detail.xhr.status === 401
    ? gettext("You are logged out. Log in again in another tab, then go on here.")
    : gettext("The draft was not saved. Copy your text, then reload the page.")));
  window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
})();
