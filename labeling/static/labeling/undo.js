// What was handed in a moment ago can be taken back: a line that goes away by itself.
"use strict";

/** Take back what was handed in last, where there still is a line that offers it. `before` may have work to save. */
async function takeBack(before) {
  const line = document.getElementById("undo");
  if (!line || line.hidden) return false;
  line.querySelector("button").disabled = true;
  if (before) await before();
  const { status, data } = await postJson(line.dataset.url, {});
  if (status === 200) {
    location.assign(data.next);
    return true;
  }
  line.textContent = data.error || gettext("Not taken back: the server does not answer. Open it under “Done last” and change it.");
  return true;
}

(function () {
  const line = document.getElementById("undo");
  if (!line) return;
  line.hidden = false; // hidden as long as nothing would answer its button
  line.querySelector("button").addEventListener("click", () => takeBack(window.beforeTakingBack));
  const gone = () => {
    if (line.contains(document.activeElement)) document.activeElement.blur();
    line.hidden = true;
  };
  setTimeout(gone, Number(line.dataset.seconds) * 1000);
})();
