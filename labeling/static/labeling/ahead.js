// The next task: its page is fetched while this one is being done, and leased when it is shown, not before.
"use strict";

const AHEAD_AFTER = 1000; // ms; this page comes first
const LEASED = "leased"; // in the session's storage: what a page fetched ahead does not know

class Ahead {
  constructor(url) {
    this.url = url;
    this.name = null; // of the task whose page this browser has
    if (url) setTimeout(() => this.fetch(), AHEAD_AFTER);
  }

  async fetch() {
    try {
      const response = await fetch(this.url, { cache: "reload", priority: "low" });
      await response.text(); // to its end, so that the browser keeps it
      if (response.status === 200) this.name = response.headers.get("X-Task");
    } catch {
      // No task ahead: the next one is fetched when it is its turn.
    }
  }

  /** Go on as the server says: to the page that is here already, where its task is ours now, or to another. */
  go({ next, leased }) {
    if (!leased || !this.name) {
      location.assign(next);
      return;
    }
    try {
      sessionStorage.setItem(LEASED, JSON.stringify(leased));
      location.assign(this.url);
    } catch {
      location.assign(next); // storage is forbidden
    }
  }
}

// On a page that was fetched ahead: put in what came with the lease, before the other scripts look.
(function () {
  const place = document.getElementById("task-data");
  const data = JSON.parse(place.textContent);
  if (!data.isAhead) return;
  let leased = null;
  try {
    leased = JSON.parse(sessionStorage.getItem(LEASED));
    sessionStorage.removeItem(LEASED);
  } catch {
    // Storage is forbidden.
  }
  if (!leased || leased.page.taskUrl !== data.taskUrl) {
    location.replace(data.taskUrl);
    return;
  }
  history.replaceState(null, "", leased.address); // reloaded, it is the task's own page
  place.textContent = JSON.stringify(leased.page);
  const undo = document.getElementById("undo");
  if (leased.undo) Object.assign(undo.dataset, leased.undo);
  else undo.remove();
})();
