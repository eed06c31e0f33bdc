// The page: controls on the left say what the panes on the right show. The address holds the view.

import { Corrections } from "./correct.js";
import { Pane } from "./panes.js";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const state = {
  result: 0,
  layout: "one",
  by: "",
  fill: 0,
  score: 0,
  smallest: 0,
  largest: 100,
  cells: true,
  plane: "",
  x: null,
  y: null,
  zoom: null,
};
const corrections = new Corrections();
let scenes = [];
let panes = [];
let selected = null; // {scene, cell}
let rank = -1;
let tool = null; // "merge" or "draw"
let leader = null; // the pane that a person moves; the others follow it

async function ask(address, options) {
  const answer = await fetch(address, options);
  if (answer.ok) return answer;
  let text = `${answer.status} ${answer.statusText}`;
  try {
    text = (await answer.json()).error;
  } catch { /* the status says it */ }
  throw new Error(text);
}

const json = async (address) => (await ask(address)).json();

function fail(error) {
  $("failure").textContent = error.message || String(error);
  $("failure").hidden = false;
  clearTimeout(fail.timer);
  fail.timer = setTimeout(() => ($("failure").hidden = true), 8000);
}

const guarded = (action) => (...given) => Promise.resolve(action(...given)).catch(fail);

function later(action, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

/* What is shown ---------------------------------------------------------------------------------- */

/** The area at a place of a slider: from nothing over what is usual to anything, evenly in ratio. */
function area(place, end) {
  if (place <= 0) return 0;
  if (place >= 100) return Infinity;
  const [low, high] = end.areas;
  const [first, last] = [Math.max(low / 4, 1), Math.max(high * 4, 2)];
  return first * (last / first) ** (place / 100);
}

function style(scene, colour = 0) {
  const given = { by: state.by, fill: state.fill, min_score: state.score };
  const [smallest, largest] = [area(state.smallest, scene), area(state.largest, scene)];
  if (smallest > 0) given.min_area = smallest.toFixed(1);
  if (largest < Infinity) given.max_area = largest.toFixed(1);
  if (colour) given.colour = colour;
  return new URLSearchParams(Object.entries(given).filter(([, value]) => value !== "" && value !== 0)).toString();
}

function address(scene, layer, ending, query = "") {
  const tile = (zoom, column, row) => `scene/${scene.index}/${layer}/${zoom}/${column}_${row}.${ending}${query && "?"}${query}`;
  tile.key = `${scene.index}/${layer}?${query}`;
  return tile;
}

function refresh() {
  for (const pane of panes) {
    const [first] = pane.scenes;
    if (!first.missing) pane.show("picture", 0, first, address(first, "picture", "jpg"));
    if (state.plane && first.planes.includes(state.plane)) {
      pane.show("plane", 1, first, address(first, `plane/${state.plane}`, "png"), Number($("plane-opacity").value));
    } else pane.hide("plane");
    pane.scenes.forEach((scene, place) => {
      const colour = pane.scenes.length > 1 && !state.by ? place + 1 : 0;
      pane.show(`cells ${scene.index}`, 2 + place, scene, address(scene, "cells", "png", style(scene, colour)), state.cells ? 1 : 0);
    });
  }
  summarise();
  remember();
}

const summarise = later(guarded(async () => {
  const scene = scenes[state.result];
  const found = await json(`scene/${scene.index}/summary.json?${style(scene)}`);
  $("shown").textContent = found.shown === found.count
    ? `${number.format(found.count)} cells`
    : `${number.format(found.shown)} of ${number.format(found.count)} cells`;
  drawHistogram(found.scores);
  $("scale").hidden = !found.scale;
  if (found.scale) [$("low").textContent, $("high").textContent] = found.scale.map(short);
}), 60);

function drawHistogram(counts) {
  const canvas = $("histogram");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const top = Math.max(1, ...counts);
  const wide = canvas.width / counts.length;
  counts.forEach((count, place) => {
    context.fillStyle = (place + 1) / counts.length > state.score ? "#4cc9f0" : "#59626f";
    const tall = (count / top) * canvas.height;
    context.fillRect(place * wide, canvas.height - tall, wide - 1, tall);
  });
}

function short(value) {
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? number.format(value) : value.toPrecision(4);
}

/* Panes ------------------------------------------------------------------------------------------ */

function arrange() {
  panes.forEach((pane) => pane.close());
  const shown = { one: [[scenes[state.result]]], side: scenes.map((scene) => [scene]), over: [scenes] }[state.layout];
  const hooks = {
    onStart(pane) {
      if (state.x !== null) pane.goTo(state.x, state.y, state.zoom, true);
    },
    onLead(pane) {
      leader = pane;
    },
    onClick: guarded(click),
    onMove: follow,
    onPaint: paint,
  };
  panes = shown.map((list) => new Pane($("panes"), list, hooks));
  [leader] = panes;
  refresh();
}

/** Move all panes with the one that is moved; pictures of another size show the same part of theirs. */
function follow(pane) {
  if (pane !== leader) return;
  for (const other of panes) if (other !== pane && other.started) other.follow(pane);
  measureRuler();
  remember();
}

function measureRuler() {
  const pane = leader;
  const size = pane.scenes[0].pixel_size;
  const perUnit = pane.magnification / (size ?? 1);
  if (!(perUnit > 0)) return;
  const wanted = 120 / perUnit;
  const base = 10 ** Math.floor(Math.log10(wanted));
  const length = [5, 2, 1].map((step) => step * base).find((step) => step <= wanted) ?? base;
  $("ruler").firstElementChild.style.width = `${length * perUnit}px`;
  const unit = size ? (length >= 1000 ? "mm" : "µm") : "pixels";
  $("ruler").lastElementChild.textContent = `${short(unit === "mm" ? length / 1000 : length)} ${unit}`;
}

function paint(pane, context) {
  corrections.paint(pane, context);
  if (!selected || !pane.scenes.includes(selected.scene)) return;
  const { x0, y0, x1, y1 } = selected.cell;
  const [a, b] = [pane.toScreen(x0 - 1, y0 - 1), pane.toScreen(x1 + 1, y1 + 1)];
  for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
}

const repaint = () => panes.forEach((pane) => pane.paint());

/* Cells ------------------------------------------------------------------------------------------ */

function select(scene, cell) {
  selected = cell && { scene, cell };
  const table = document.createElement("table");
  for (const [name, value] of Object.entries(cell ?? {})) {
    const row = table.insertRow();
    row.insertCell().textContent = name.replaceAll("_", " ");
    row.insertCell().textContent = short(value);
  }
  $("cell").replaceChildren(...(cell ? [table] : []));
  repaint();
  enable();
}

async function click(pane, { x, y }) {
  if (tool === "draw") {
    if (corrections.inside(x, y)) corrections.ring.push([Math.round(x * 10) / 10, Math.round(y * 10) / 10]);
    repaint();
    enable();
    return;
  }
  for (const scene of pane.scenes.toReversed()) {
    const cell = await json(`scene/${scene.index}/cell.json?x=${Math.floor(x)}&y=${Math.floor(y)}`);
    if (!cell && scene !== pane.scenes[0]) continue;
    select(scene, cell);
    if (cell && tool === "merge" && scene === corrections.scene) {
      corrections.pick(cell);
      repaint();
      enable();
    }
    return;
  }
}

async function uncertain(step) {
  const scene = scenes[state.result];
  rank += step;
  const found = await json(`scene/${scene.index}/uncertain.json?rank=${rank}&${style(scene)}`);
  if (!found) {
    $("rank").textContent = "no cell is shown";
    return;
  }
  rank = found.rank;
  $("rank").textContent = `${number.format(found.rank + 1)} of ${number.format(found.of)}`;
  select(scene, found.cell);
  const { x0, y0, x1, y1 } = found.cell;
  const pane = panes.find((item) => item.scenes.includes(scene));
  leader = pane;
  pane.goTo((x0 + x1) / 2, (y0 + y1) / 2, Math.max(pane.magnification, 2));
}

/* Corrections ------------------------------------------------------------------------------------ */

function enable() {
  const on = corrections.active;
  const mine = selected && selected.scene === corrections.scene;
  const { cell } = selected ?? {};
  $("leave").disabled = $("merge").disabled = $("draw").disabled = $("save").disabled = !on;
  $("delete").disabled = !(on && mine && corrections.inside((cell.x0 + cell.x1) / 2, (cell.y0 + cell.y1) / 2));
  $("undo").disabled = !(on && (corrections.done.length || corrections.ring.length || corrections.group.length));
  for (const name of ["merge", "draw"]) $(name).setAttribute("aria-pressed", String(tool === name));
  const hints = { draw: ". Click the corners of the missing cell; Draw again ends it", merge: ". Click the parts of one cell; Merge again ends it" };
  $("corrected").textContent = on ? corrections.text + (hints[tool] ?? "") : "";
}

function use(name) {
  if (!corrections.active) return;
  corrections.finishDrawing();
  corrections.finishMerge();
  tool = tool === name ? null : name;
  repaint();
  enable();
}

const actions = {
  mark() {
    const pane = leader;
    const scene = pane.scenes.includes(scenes[state.result]) ? scenes[state.result] : pane.scenes[0];
    if (!corrections.mark(scene, pane.view)) corrections.clear();
    tool = null;
    repaint();
    enable();
  },
  leave() {
    corrections.clear();
    tool = null;
    repaint();
    enable();
  },
  delete() {
    if ($("delete").disabled) return;
    corrections.delete(selected.cell);
    repaint();
    enable();
  },
  merge: () => use("merge"),
  draw: () => use("draw"),
  undo() {
    corrections.undo();
    repaint();
    enable();
  },
  async save() {
    corrections.finishDrawing();
    corrections.finishMerge();
    const answer = await ask(`scene/${corrections.scene.index}/corrections.geojson`, {
      method: "POST",
      body: JSON.stringify(corrections),
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "field.geojson";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    $("corrected").textContent = `${corrections.text}; saved as ${link.download}`;
  },
  next: () => uncertain(+1),
  previous: () => uncertain(-1),
  whole: () => leader.home(),
  async link() {
    remember.now();
    await navigator.clipboard.writeText(location.href);
    $("link").textContent = "Copied";
    setTimeout(() => ($("link").textContent = "Copy link"), 1500);
  },
};

/* Controls and the address ----------------------------------------------------------------------- */

const KEYS = { h: "cells", n: "next", p: "previous", d: "delete", m: "merge", c: "draw", u: "undo", 0: "whole" };

function keep() {
  if (!leader.started) return;
  const [x0, y0, x1, y1] = leader.view;
  const zoom = Number(leader.magnification.toPrecision(4));
  Object.assign(state, { x: Math.round((x0 + x1) / 2), y: Math.round((y0 + y1) / 2), zoom });
  const shown = Object.fromEntries(Object.entries(state).filter(([, value]) => value !== "" && value !== null));
  history.replaceState(null, "", `#${new URLSearchParams(shown)}`);
}
const remember = later(keep, 200);
remember.now = keep;

function restore() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state)) {
    const text = given.get(name);
    if (text === null) continue;
    const value = { string: text, boolean: text === "true" }[typeof state[name]] ?? Number(text);
    if (typeof value !== "number" || Number.isFinite(value)) state[name] = value;
  }
  if (!scenes[state.result]) state.result = 0;
  if (!["one", "side", "over"].includes(state.layout)) state.layout = "one";
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === String(chosen))));
}

/** Set the controls to the state, and what is said of the current result. */
function tell() {
  const scene = scenes[state.result];
  $("title").textContent = document.title = scene.title;
  const doubts = [scene.missing, ...scene.notes].filter(Boolean);
  $("doubts").hidden = !doubts.length;
  $("doubts").textContent = doubts.join(" · ");
  options($("by"), [["", "neighbours apart"], ...scene.columns.map((name) => [name, name.replaceAll("_", " ")])], state.by);
  $("planes-section").hidden = !scene.planes.length;
  options($("plane"), [["", "none"], ...scene.planes.map((name) => [name, name])], state.plane);
  $("about").textContent = `${number.format(scene.width)}×${number.format(scene.height)} pixels, model ${scene.model}`;
  $("dropped").textContent = scene.min_score > 0
    ? `Cells below ${scene.min_score} were dropped when this was made; cellseg-infer --min-score keeps them.` : "";
  for (const name of ["by", "fill", "score", "smallest", "largest", "plane", "layout"]) $(name).value = state[name];
  $("cells").checked = state.cells;
  values();
}

function values() {
  const scene = scenes[state.result];
  const unit = scene.pixel_size ? (pixels) => `${short(Math.round(pixels * scene.pixel_size ** 2))} µm²` : (pixels) => `${short(Math.round(pixels))} px`;
  $("score-value").textContent = state.score.toFixed(2);
  const [smallest, largest] = [area(state.smallest, scene), area(state.largest, scene)];
  $("smallest-value").textContent = smallest ? unit(smallest) : "any";
  $("largest-value").textContent = largest < Infinity ? unit(largest) : "any";
}

function listen() {
  const restyle = later(refresh, 90);
  for (const name of ["fill", "score", "smallest", "largest"]) {
    $(name).addEventListener("input", () => {
      state[name] = Number($(name).value);
      rank = -1;
      values();
      restyle();
    });
  }
  for (const name of ["by", "plane"]) {
    $(name).addEventListener("change", () => {
      state[name] = $(name).value;
      refresh();
    });
  }
  $("plane-opacity").addEventListener("input", refresh);
  $("cells").addEventListener("change", () => {
    state.cells = $("cells").checked;
    refresh();
  });
  $("layout").addEventListener("change", () => {
    keep();
    state.layout = $("layout").value;
    arrange();
  });
  $("result").addEventListener("change", () => {
    state.result = Number($("result").value);
    if (state.layout === "one") state.x = state.y = state.zoom = null; // another picture, from its whole
    rank = -1;
    select(null, null);
    tell();
    arrange();
  });
  for (const [name, action] of Object.entries(actions)) $(name).addEventListener("click", guarded(action));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "Enter" && tool && event.target.tagName !== "BUTTON") use(tool);
    const name = KEYS[event.key.toLowerCase()];
    if (name && !$(name).disabled) $(name).click();
  });
  window.addEventListener("hashchange", () => {
    restore();
    tell();
    arrange();
  });
}

guarded(async () => {
  scenes = await json("scenes.json");
  scenes.forEach((scene, index) => Object.assign(scene, { index, title: scene.name }));
  // Results of one image are told apart by their folders.
  for (const scene of scenes) {
    if (scenes.filter((other) => other.name === scene.name).length > 1) scene.title = `${scene.name} (${scene.folder})`;
  }
  restore();
  $("results-section").hidden = scenes.length < 2;
  options($("result"), scenes.map((scene) => [String(scene.index), scene.title]), state.result);
  tell();
  listen();
  arrange();
  enable();
})();
