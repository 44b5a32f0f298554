// Which action a key press means. Keys are written as in labeling/keys.py: "Ctrl+", "Alt+", "Shift+", then the key.
"use strict";

const ALIASES = { ArrowLeft: "ArrowUp", ArrowRight: "ArrowDown" }; // where they mean nothing else

/** Whether a key press is meant for a field, or is a part of composing a syllable. */
function isTyping(event) {
  const target = event.target;
  const isField = target.matches && target.matches("textarea, select, [contenteditable], input:not([type=radio], [type=checkbox])");
  return isField || isComposing(event);
}

function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** The name of a key press, or "" for a modifier alone. */
function keyName(event) {
  let key = event.key;
  if (["Control", "Shift", "Alt", "Meta", "Dead", "Process", "Unidentified"].includes(key)) return "";
  // With the keyboard set to Hangul, or Alt making another character, the place of the key says which letter is meant.
  const place = /^Key([A-Z])$/.exec(event.code || "");
  const digit = /^Digit([0-9])$/.exec(event.code || "");
  if (place && !/^[a-z]$/i.test(key)) key = place[1];
  else if (digit && event.altKey) key = digit[1];
  const isLetter = /^[a-z]$/i.test(key);
  if (key === " ") key = "Space";
  if (isLetter) key = key.toLowerCase();
  const needsShift = event.shiftKey && (isLetter || key.length > 1);
  return (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "") + (needsShift ? "Shift+" : "") + key;
}

class Keymap {
  /** `keys` is {action: key}; without `singleKeys` only keys with Ctrl or Alt count. */
  constructor(keys, singleKeys = true) {
    this.singleKeys = singleKeys;
    this.actions = new Map();
    for (const [action, key] of Object.entries(keys)) this.actions.set(key, [...(this.actions.get(key) || []), action]);
  }

  /** The actions that a press may mean; on which page it counts, the page decides. */
  of(event) {
    const name = keyName(event);
    const found = [...(this.actions.get(name) || []), ...(this.actions.get(ALIASES[name]) || [])];
    const isSingle = !/^(Ctrl|Alt)\+/.test(name);
    if (isSingle && (!this.singleKeys || isTyping(event))) return [];
    return isComposing(event) ? [] : found;
  }
}
