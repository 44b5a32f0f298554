"use strict";
// A training run, live: every two seconds the page asks what is new, until the run has ended.

const run = document.getElementById("run");
const EVERY = 2000;
const parts = new Map();
const charts = [];
let drawnStep = "";
let panels = [];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const tiny = (value) => value !== 0 && Math.abs(value) < 1e-3;
const number = (value) => (value == null ? "–" : tiny(value) ? value.toExponential(1) : Number(value.toPrecision(4)).toString());

// Ticks tell their neighbours apart: as many digits as the distance between them needs.
function ticks(values, step) {
  const size = Math.max(...values.map(Math.abs));
  const digits = Math.ceil(-Math.log10(step) - 1e-9);
  if (size >= 1e-3 || size === 0) return values.map((value) => value.toLocaleString(undefined, { maximumFractionDigits: Math.max(0, Math.min(digits + 1, 12)) }));
  return values.map((value) => (value ? value.toExponential(Math.max(0, Math.floor(Math.log10(Math.abs(value)) + 1e-9) + digits)) : "0"));
}

// A curve that does not move still needs a scale.
const range = (_plot, low, high) => (low === high ? [low - (Math.abs(low) / 10 || 0.1), high + (Math.abs(high) / 10 || 1)] : uPlot.rangeNum(low, high, 0.1, true));
const whole = [1, 2, 5].flatMap((first) => Array.from({ length: 10 }, (_none, power) => first * 10 ** power)).sort((a, b) => a - b);

function show(live) {
  for (const [name, html] of Object.entries(live.fragments)) {
    if (parts.get(name) === html) continue; // what is unchanged keeps its focus
    parts.set(name, html);
    run.querySelector(`[data-part="${name}"]`).innerHTML = html;
  }
  const state = run.querySelector("[data-state]").dataset.state;
  const announcer = document.getElementById("run-announcer");
  if (announcer.dataset.said && announcer.dataset.said !== state) announcer.textContent = state;
  announcer.dataset.said = state;
  if (live.curves) {
    drawnStep = String(live.step);
    panels = live.curves;
    document.getElementById("run-no-curves").hidden = panels.length > 0;
    document.getElementById("run-table").innerHTML = live.table || "";
    draw();
  }
  const log = document.getElementById("run-log");
  const atEnd = !log.dataset.read || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  log.dataset.read = "yes";
  if (live.log && log.textContent !== live.log) {
    log.textContent = live.log;
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function draw() {
  const box = document.getElementById("run-charts");
  const shape = JSON.stringify(panels.map((panel) => [panel.title, panel.series.map((series) => series.label)]));
  if (box.dataset.shape !== shape) {
    box.dataset.shape = shape;
    charts.splice(0).forEach(({ plot }) => plot.destroy());
    box.replaceChildren(...panels.map(figure));
    panels.forEach((panel, i) => charts.push({ plot: plot(panel, box.children[i]), figure: box.children[i] }));
  }
  panels.forEach((panel, i) => {
    charts[i].plot.setData(data(panel));
    const last = panel.series.map((series) => number(series.values.findLast((value) => value != null)));
    const names = panel.series.length > 1 ? panel.series.map((series, j) => `${series.label} ${last[j]}`) : last;
    charts[i].figure.querySelector("figcaption span").textContent = names.join(" · ");
    charts[i].figure.querySelector(".u-wrap").setAttribute("aria-label", `${panel.title}: ${names.join(", ")}`);
  });
}

function figure(panel) {
  const element = document.createElement("figure");
  const caption = document.createElement("figcaption");
  element.className = "ops-chart";
  caption.append(panel.title, " ", document.createElement("span"));
  element.append(caption);
  return element;
}

function plot(panel, element) {
  const axis = {
    stroke: css("--body-quiet-color"), grid: { stroke: css("--hairline-color"), width: 1 },
    ticks: { show: false }, font: "11px system-ui, sans-serif",
  };
  const lines = [css("--link-fg"), css("--error-fg"), css("--body-loud-color")];
  const made = new uPlot({
    width: element.clientWidth || 320, height: 180, scales: { x: { time: false }, y: { range } }, legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    axes: [{ ...axis, size: 28, incrs: whole }, { ...axis, size: 56, values: (_plot, values, _axis, _space, step) => ticks(values, step) }],
    series: [{ label: run.dataset.stepLabel }, ...panel.series.map((series, i) => ({
      label: series.label, stroke: lines[i % 3], width: panel.steps.length > 150 ? 1.25 : 1.75, dash: i ? [6, 4] : undefined, spanGaps: true,
      points: { show: panel.steps.length < 3 || series.values.filter((value) => value != null).length < 8, size: 6 },
    }))],
    hooks: { setCursor: [(self) => readout(self, panel.title)] },
  }, data(panel), element);
  element.querySelector(".u-wrap").setAttribute("role", "img");
  return made;
}

// What the pointer is on stands in the caption: a legend would jump about.
function readout(self, title) {
  const panel = panels.find((one) => one.title === title);
  const i = self.cursor.idx;
  const span = self.root.parentElement.querySelector("figcaption span");
  if (!panel || i == null || panel.steps[i] == null) return;
  const values = panel.series.map((series) => number(series.values[i])).join(" · ");
  span.textContent = `${values} (${run.dataset.stepLabel} ${panel.steps[i]})`;
}

const data = (panel) => [panel.steps, ...panel.series.map((series) => series.values)];

function redraw() {
  document.getElementById("run-charts").dataset.shape = "";
  if (panels.length) draw();
}

async function ask() {
  const lost = document.getElementById("run-lost");
  let again = true;
  try {
    const answer = await fetch(`${run.dataset.live}?step=${drawnStep}`);
    if (!answer.ok || answer.redirected) throw new Error(answer.status);
    const live = await answer.json();
    show(live);
    again = !live.finished;
    lost.hidden = true;
  } catch {
    lost.textContent = run.dataset.lost;
    lost.hidden = false;
  }
  if (again) setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", ask, { once: true }) : ask()), EVERY);
}

new ResizeObserver(() => {
  for (const { plot: one, figure: element } of charts) {
    if (element.clientWidth && one.width !== element.clientWidth) one.setSize({ width: element.clientWidth, height: 180 });
  }
}).observe(document.getElementById("run-charts"));
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
ask();
