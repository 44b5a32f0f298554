// What every task page does: drafts, submit and skip, words for refusals, the time at work, and when keys count.
"use strict";

const IDLE_AFTER = 60 * 1000; // ms without a sign of the person
const UNDO_STEPS = 100;

/** Seconds at work: stands still while the tab is hidden, or after a minute without a sign of the person. */
class ActiveClock {
  constructor(seconds) {
    this.seconds = seconds;
    this.lastTick = this.lastSign = Date.now();
    for (const sign of ["pointerdown", "pointermove", "keydown", "wheel", "scroll", "input"]) {
      document.addEventListener(sign, () => { this.lastSign = Date.now(); }, { passive: true, capture: true });
    }
    setInterval(() => this.tick(), 1000);
  }

  tick() {
    const now = Date.now();
    if (!document.hidden && now - this.lastSign < IDLE_AFTER) this.seconds += Math.min(now - this.lastTick, 2000) / 1000;
    this.lastTick = now;
  }
}

/** A random UUID, also where the page is not in a secure context. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

class Task {
  /**
   * `read` and `apply` give and take the work as an object; `missing` says in words what is missing, or nothing; `act`
   * does what a key of the page means and tells whether it did.
   */
  constructor({ read, apply, missing, act = () => false }) {
    this.data = JSON.parse(document.getElementById("task-data").textContent);
    Object.assign(this, { readWork: read, applyWork: apply, missing, act });
    this.keymap = new Keymap(this.data.keys, this.data.singleKeys);
    this.past = []; // the work as it was before each change, to be undone
    this.key = newKey();
    this.ahead = new Ahead(this.data.aheadUrl);
    const unsent = Draft.unsent(this.data.storageKey);
    const begun = (unsent && unsent.payload) || this.data.draft;
    this.clock = new ActiveClock((begun && begun.active_seconds) || 0);
    this.draft = new Draft({
      url: this.data.draftUrl,
      storageKey: this.data.storageKey,
      version: unsent ? unsent.version : this.data.version,
      read: () => this.read(),
      show: (state) => this.showDraftState(state),
      refused: (refusal) => this.refused(refusal),
      lastSign: () => this.clock.lastSign,
    });
    this.isUntouched = !begun;
    if (begun) this.applyWork(begun);
    this.now = JSON.stringify(this.readWork());
    if (unsent) this.draft.send(false, unsent.payload);
    else if (begun) this.showDraftState("saved");
    this.listen();
    // Where a long dialogue does not fit, its end is what has to be answered.
    const prompt = document.querySelector(".task-prompt");
    prompt.scrollTop = prompt.scrollHeight;
  }

  read() {
    const work = this.readWork();
    return { ...work, active_seconds: Math.round(this.clock.seconds * 10) / 10, instruction_version: this.data.instructionVersion };
  }

  changed() {
    this.past.push(this.now);
    this.now = JSON.stringify(this.readWork());
    if (this.past.at(-1) === this.now) this.past.pop();
    this.past = this.past.slice(-UNDO_STEPS);
    this.draft.changed();
  }

  /** The work as it was before the last change; before the first one, the task handed in last. */
  undo() {
    if (!this.past.length) {
      takeBack(window.beforeTakingBack);
      return;
    }
    this.now = this.past.pop();
    this.applyWork(JSON.parse(this.now));
    window.announce(gettext("Undone"));
    this.draft.changed();
  }

  listen() {
    document.getElementById("submit").addEventListener("click", () => this.submit());
    const skip = document.getElementById("skip");
    if (skip) skip.addEventListener("click", () => this.skip());
    window.beforeTakingBack = async () => {
      if (this.draft.isDirty) await this.draft.send();
      await this.draft.pause();
    };
    for (const opener of document.querySelectorAll("[data-open]")) {
      opener.addEventListener("click", () => document.getElementById(opener.dataset.open).showModal());
    }
    document.addEventListener("keydown", (event) => {
      if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
      if (this.keymap.of(event).some((action) => this.does(action, event))) event.preventDefault();
    });
    // Coming back through the browser's history must not show a task that was handed in.
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  }

  /** Do what a key means on every task page, or leave it to this one. Returns whether it meant anything. */
  does(action, event) {
    const skip = document.querySelector("[data-open=skip-dialog]");
    if (action === "submit") { if (!event.repeat) this.submit(); }
    else if (action === "save") this.draft.send();
    else if (action === "help") document.getElementById("keys-dialog").showModal();
    else if (action === "skip" && skip && !skip.disabled) document.getElementById("skip-dialog").showModal();
    else if (action === "undo" && !isTyping(event)) this.undo();
    else return this.act(action, event);
    return true;
  }

  async submit() {
    const missing = this.missing();
    if (missing) {
      this.trouble(missing);
      return;
    }
    await this.handIn({});
  }

  /** Hand in the work, or the work with `more` said of it. */
  async handIn(more) {
    await this.leave(this.data.submitUrl, { key: this.key, payload: { ...this.read(), ...more }, version: this.data.version });
  }

  async skip() {
    document.getElementById("skip-dialog").close();
    await this.leave(this.data.skipUrl, { reason: document.getElementById("skip-reason").value });
  }

  /** Send, and go where the server says. Refused or unanswered, the page stays as it is. */
  async leave(url, body) {
    if (this.isLeaving) return;
    this.setLeaving(true);
    await this.draft.pause();
    const { status, data } = await postJson(url, { ...body, ahead: this.ahead.name });
    if (status === 200) {
      this.draft.stop();
      this.draft.forgetHere();
      this.ahead.go(data);
      return;
    }
    this.setLeaving(false);
    this.draft.resume();
    this.draft.keepHere(this.draft.read());
    this.refused(data.code ? data : {
      code: "unknown",
      error: status === 0
        ? gettext("Not sent: the server does not answer. Your work is kept here; try again in a moment.")
        : interpolate(gettext("Not sent: the server had a fault (%s). Your work is kept here; try again in a moment."), [status]),
    });
  }

  setLeaving(isLeaving) {
    this.isLeaving = isLeaving;
    for (const button of document.querySelectorAll("#submit, #skip, #cannot-judge")) {
      button.disabled = isLeaving;
      button.setAttribute("aria-busy", isLeaving);
    }
  }

  /** Say what the server refused, and what can be done about it. null: nothing is refused any more. */
  refused(refusal) {
    if (!refusal) {
      if (this.lastRefusal) this.trouble("");
      this.lastRefusal = null;
      return;
    }
    this.lastRefusal = refusal.code;
    const ways = {
      signed_out: () => [this.link(refusal.url, gettext("Log in in a new tab"), true)],
      answered: () => [this.link(this.data.taskUrl, gettext("See what you handed in")), this.link(this.data.deskUrl, gettext("Go to your tasks"))],
      stale: () => [this.link(this.data.deskUrl, gettext("Go to your tasks"))],
      conflict: () => this.conflictWays(refusal),
    };
    this.trouble(refusal.error, ways[refusal.code] ? ways[refusal.code]() : []);
    if (refusal.code === "answered" || refusal.code === "stale") this.lost(refusal.code);
  }

  /** The task is no longer this page's: the text stays, nothing more is sent. */
  lost(code) {
    this.draft.stop();
    this.showDraftState(code === "stale" ? "kept" : "");
    document.getElementById("submit").disabled = true;
    const skip = document.querySelector("[data-open=skip-dialog]");
    if (skip) skip.disabled = true;
  }

  conflictWays(refusal) {
    const keep = this.button(gettext("Keep what is here"), () => this.draft.standOn(refusal.version));
    const load = this.button(gettext("Load the other"), () => {
      this.applyWork(refusal.payload);
      this.draft.standOn(refusal.version);
    });
    return [keep, load];
  }

  trouble(words, ways = []) {
    const place = document.getElementById("trouble");
    place.replaceChildren(words, ...ways.flatMap((way) => [" ", way]));
    place.hidden = !words;
  }

  link(address, words, isNewTab = false) {
    const link = Object.assign(document.createElement("a"), { href: address, textContent: words });
    if (isNewTab) Object.assign(link, { target: "_blank", rel: "noopener" });
    return link;
  }

  button(words, act) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: words, className: "quiet small" });
    button.addEventListener("click", act);
    return button;
  }

  showDraftState(state) {
    const place = document.getElementById("draft-state");
    const time = new Date().toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
    const words = {
      unsaved: gettext("Not saved yet"),
      saved: interpolate(gettext("Saved %s"), [time]),
      here: interpolate(gettext("Kept in this browser %s. Submit to store it."), [time]),
      retrying: gettext("Not saved, retrying. Your work is kept in this browser."),
      stopped: gettext("Not saved. Your work stays on this page."),
      kept: gettext("Your text stays on this page. Copy what you need."),
    };
    place.textContent = words[state] || "";
    place.dataset.state = state;
  }
}
