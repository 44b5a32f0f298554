// Keeps unfinished work: in this browser at once, on the server a moment later, and again until the server has it.
"use strict";

const SAVE_AFTER = 1500; // ms without a change
const RETRY_AFTER = [2000, 4000, 8000, 15000, 30000]; // ms, the last one for ever
const PATIENCE = 3000; // ms that handing in waits for a save under way
const RENEW_EVERY = 4 * 60 * 1000; // ms; a lease lasts 15 minutes
const RENEW_WHILE_ACTIVE = 10 * 60 * 1000; // ms since the last sign of the person

/** POST `body` as JSON. Returns {status, data}; status 0 where the server could not be reached. */
async function postJson(url, body, keepalive = false) {
  const token = /(?:^|;\s*)csrftoken=([^;]+)/.exec(document.cookie);
  // Read from the cookie each time: a new login in another tab changes it.
  const headers = { "Content-Type": "application/json", "X-CSRFToken": token ? token[1] : "" };
  try {
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), keepalive });
    const isJson = (response.headers.get("Content-Type") || "").startsWith("application/json");
    return { status: response.status, data: isJson ? await response.json() : {} };
  } catch {
    return { status: 0, data: {} };
  }
}

/** A name of this tab that outlives a reload. */
function tabName() {
  try {
    if (!sessionStorage.getItem("tab")) sessionStorage.setItem("tab", String(Math.random()).slice(2));
    return sessionStorage.getItem("tab");
  } catch {
    return String(Math.random()).slice(2); // storage is forbidden
  }
}

class Draft {
  /** `read` gives the work as an object; `show` tells "unsaved", "saved", "retrying" or "stopped"; `refused` gets refusals; `lastSign` is when the person last stirred. */
  constructor({ url, storageKey, version, read, show, refused, lastSign }) {
    const tab = tabName();
    Object.assign(this, { url, storageKey, version, show, refused, lastSign, read: () => ({ ...read(), tab }) });
    this.isDirty = this.isSending = this.isPaused = this.isStopped = false;
    this.failures = 0;
    setInterval(() => this.renew(), RENEW_EVERY);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.isDirty) this.send(true);
    });
    window.addEventListener("online", () => { if (this.isDirty) this.send(); });
  }

  /** Work that this browser has and the server may not. */
  static unsent(storageKey) {
    try {
      return JSON.parse(localStorage.getItem(storageKey));
    } catch {
      return null; // storage is forbidden, or holds something else
    }
  }

  changed() {
    if (this.isStopped) return;
    this.isDirty = true;
    this.keepHere(this.read());
    if (!this.url) {
      this.show("here"); // a change of what stands on the server already
      return;
    }
    this.show("unsaved");
    this.sendAfter(SAVE_AFTER);
  }

  keepHere(payload) {
    try {
      localStorage.setItem(this.storageKey, JSON.stringify({ payload, version: this.version }));
    } catch {
      // Full or forbidden: the server's copy has to do.
    }
  }

  forgetHere() {
    try {
      localStorage.removeItem(this.storageKey);
    } catch {
      // It was never kept.
    }
  }

  sendAfter(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), milliseconds);
  }

  /** Send the work as it is, or `payload` as it was left. */
  async send(isLeaving = false, payload = this.read()) {
    if (!this.url || this.isStopped || this.isPaused || this.isSending) return;
    clearTimeout(this.timer);
    this.isSending = true;
    this.isDirty = false;
    this.request = postJson(this.url, { payload, version: this.version }, isLeaving);
    const { status, data } = await this.request;
    this.isSending = false;
    if (this.isStopped) return;
    if (status === 200) this.saved(data.version);
    else this.failed(status, data);
  }

  saved(version) {
    this.version = version;
    this.failures = 0;
    this.refused(null);
    if (this.isDirty) {
      this.keepHere(this.read());
      this.sendAfter(SAVE_AFTER);
    } else {
      this.forgetHere();
      this.show("saved");
    }
  }

  failed(status, data) {
    this.isDirty = true;
    const mayPass = status === 0 || status === 401 || status === 429 || status >= 500;
    if (data.code) this.refused(data);
    else if (!mayPass) this.refused({ code: "unknown", error: gettext("The server refused to save this. Copy your text, then reload the page.") });
    if (this.isStopped) return;
    if (!mayPass) {
      this.show("stopped");
      return;
    }
    this.show("retrying");
    this.sendAfter(RETRY_AFTER[Math.min(this.failures, RETRY_AFTER.length - 1)]);
    this.failures += 1;
  }

  /** Go on from what stands on the server as `version`. */
  standOn(version) {
    this.version = version;
    this.send();
  }

  /** Keep the lease of someone who reads for long without changing anything. */
  renew() {
    if (!document.hidden && Date.now() - this.lastSign() < RENEW_WHILE_ACTIVE) this.send();
  }

  /** Before the work is handed in: let a save under way arrive first (a slow one is not waited for), start no other. */
  async pause() {
    this.isPaused = true;
    clearTimeout(this.timer);
    await Promise.race([this.request, new Promise((done) => setTimeout(done, PATIENCE))]);
  }

  resume() {
    this.isPaused = false;
    if (this.isDirty && this.url) this.sendAfter(SAVE_AFTER);
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.timer);
  }
}
