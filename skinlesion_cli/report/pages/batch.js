"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const gallery = $("gallery");
  const CARD_MIN = 344, CARD_HEIGHT = 334, GAP = 12, SPARE_ROWS = 2;
  const RANK = { refer: 0, review: 1, error: 2, routine: 3 };
  const CLASSES = data.classes;
  data.rows.forEach((row, index) => { row.index = index; row.top = Math.max(...row.p.map((p) => p ?? -1)); });

  // Reviews outlive a reload where the browser lets a file keep something.
  const KEY = "skinlesion-review:" + data.model + ":" + data.title;
  let reviews = {};
  try { reviews = JSON.parse(localStorage.getItem(KEY) || "{}"); } catch { reviews = {}; }
  reviews = Object.assign(Object.create(null), reviews);
  const keep = () => { try { localStorage.setItem(KEY, JSON.stringify(reviews)); } catch { /* private window */ } };

  const SORTS = {
    worst: (a, b) => RANK[a.level] - RANK[b.level] || (b.malignant ?? 0) - (a.malignant ?? 0) || a.index - b.index,
    malignant: (a, b) => (b.malignant ?? -1) - (a.malignant ?? -1) || a.index - b.index,
    unsure: (a, b) => a.top - b.top || a.index - b.index,
    id: (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
  };
  const filters = { level: "", sort: "worst", class: "", state: "", text: "" };
  let view = [], columns = 1, width = CARD_MIN, current = 0;
  const drawn = new Map();

  function fits(row) {
    const review = reviews[row.id] || {};
    if (filters.level && row.level !== filters.level) return false;
    if (filters.class && row.decision !== filters.class) return false;
    if (filters.state === "open" && review.verdict) return false;
    if (filters.state === "note" && !review.note) return false;
    if (["accept", "disagree"].includes(filters.state) && review.verdict !== filters.state) return false;
    if (!filters.text) return true;
    return (row.id + " " + row.error + " " + row.quality + " " + (review.note || "")).toLowerCase().includes(filters.text);
  }

  function refresh(keepId) {
    view = data.rows.filter(fits).sort(SORTS[filters.sort]);
    const at = keepId === undefined ? -1 : view.findIndex((row) => row.id === keepId);
    current = Math.max(0, at);
    for (const card of drawn.values()) card.remove();
    drawn.clear();
    layout();
    count();
  }

  function count() {
    const done = data.rows.filter((row) => (reviews[row.id] || {}).verdict).length;
    $("count").textContent = view.length.toLocaleString("en") + " of " + data.rows.length.toLocaleString("en")
      + " images, " + done.toLocaleString("en") + " reviewed";
    $("none").hidden = view.length > 0;
  }

  function layout() {
    const available = gallery.clientWidth;
    columns = Math.max(1, Math.floor((available + GAP) / (CARD_MIN + GAP)));
    width = (available - GAP * (columns - 1)) / columns;
    gallery.style.height = Math.ceil(view.length / columns) * (CARD_HEIGHT + GAP) + "px";
    for (const card of drawn.values()) card.remove();
    drawn.clear();
    draw();
  }

  // Only what can be seen is in the document: five thousand cards would take seconds, thirty take none.
  function draw() {
    const top = -gallery.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / (CARD_HEIGHT + GAP)) - SPARE_ROWS) * columns;
    const last = Math.min(view.length, (Math.ceil((top + innerHeight) / (CARD_HEIGHT + GAP)) + SPARE_ROWS) * columns);
    for (const [place, card] of drawn) if (place < first || place >= last) { card.remove(); drawn.delete(place); }
    for (let place = first; place < last; place++) {
      if (drawn.has(place)) continue;
      const card = build(view[place], place);
      card.style.left = (place % columns) * (width + GAP) + "px";
      card.style.top = Math.floor(place / columns) * (CARD_HEIGHT + GAP) + "px";
      card.style.width = width + "px";
      drawn.set(place, card);
      gallery.append(card);
    }
    mark();
  }

  function mark() {
    for (const [place, card] of drawn) {
      card.classList.toggle("current", place === current);
      if (place === current) card.setAttribute("aria-current", "true"); else card.removeAttribute("aria-current");
    }
  }

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const address = (path) => path.startsWith("data:") ? path : path.split("/").map(encodeURIComponent).join("/");

  function half(row, right) {
    const box = element("div");
    if (!row.thumb) { box.className = "empty"; box.textContent = row.level === "error" ? "not readable" : "no thumbnail"; return box; }
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", (right ? "overlay of " : "image ") + row.id);
    const image = new Image();
    image.onload = () => {
      const w = data.halves ? image.naturalWidth / 2 : image.naturalWidth, h = image.naturalHeight;
      canvas.width = w; canvas.height = h;
      canvas.getContext("2d").drawImage(image, right ? w : 0, 0, w, h, 0, 0, w, h);
      canvas.dataset.ready = "1";
    };
    image.onerror = () => { box.className = "empty"; box.textContent = "thumbnail missing (is the folder beside this page?)"; };
    image.src = address(row.thumb);
    box.append(canvas);
    return box;
  }

  function bars(row) {
    const grid = element("div", "bars");
    CLASSES.forEach((name, k) => {
      const label = element("div", row.set.includes(name) ? "in" : "", name);
      const track = element("div", "track"), fill = element("div", "fill");
      fill.style.width = 100 * (row.p[k] ?? 0) + "%";
      track.append(fill);
      const holder = element("div", name === row.decision ? "decided" : "");
      holder.append(track);
      if (name in data.thresholds) {
        const tick = element("div", "tick");
        tick.style.left = "calc(" + 100 * data.thresholds[name] + "% - 1px)";
        tick.title = "threshold " + data.thresholds[name].toFixed(3);
        track.append(tick);
      }
      grid.append(label, holder, element("div", "num", row.p[k] === null ? "" : row.p[k].toFixed(2)));
    });
    return grid;
  }

  function flags(row) {
    const found = [];
    if (row.quality) found.push("quality: " + row.quality);
    if (row.zero) found.push("map is all zero");
    if (row.set.length) found.push("plausible: " + row.set.join(", "));
    return found.join(" · ");
  }

  function build(row, place) {
    const card = element("article", "card " + row.level);
    card.setAttribute("role", "listitem");
    card.dataset.id = row.id;
    const pair = element("div", "pair");
    pair.append(half(row, false));
    if (data.halves) pair.append(half(row, true));
    pair.onclick = () => { go(place); enlarge(); };
    const name = element("div", "name"), inner = element("bdi", "", row.id);
    name.title = row.id;
    name.append(inner);
    card.append(pair, name);
    if (row.level === "error") {
      card.append(element("div", "chip error", "error"), element("div", "message", row.error));
    } else {
      const said = element("div", "said");
      said.append(element("b", "", row.decision), element("span", "chip " + row.level, row.level),
        element("small", "", "malignant " + (row.malignant ?? 0).toFixed(2)
          + (row.fired ? ", by threshold" : "") + (row.argmax !== row.decision ? ", argmax " + row.argmax : "")));
      const why = element("div", "reason", row.reason);
      why.title = row.reason;
      const line = element("div", "flags", flags(row));
      line.title = line.textContent;
      card.append(said, why, bars(row), line);
    }
    card.append(actions(row, place));
    card.addEventListener("mousedown", () => { current = place; mark(); });
    return card;
  }

  function actions(row, place) {
    const review = reviews[row.id] || {};
    const box = element("div", "actions");
    const accept = element("button", "accept", "Accept"), disagree = element("button", "disagree", "Disagree");
    accept.disabled = row.level === "error";
    accept.setAttribute("aria-pressed", review.verdict === "accept");
    disagree.setAttribute("aria-pressed", review.verdict === "disagree");
    accept.onclick = () => { current = place; judge("accept"); };
    disagree.onclick = () => { current = place; judge("disagree"); };
    const label = element("select");
    label.setAttribute("aria-label", "right class");
    label.append(new Option("class?", ""), ...CLASSES.map((name) => new Option(name, name)));
    label.value = review.label || "";
    label.onchange = () => { current = place; choose(label.value); };
    const note = element("input", "note");
    note.placeholder = "note";
    note.setAttribute("aria-label", "note");
    note.value = review.note || "";
    note.oninput = () => { change(row, { note: note.value }); };
    note.onkeydown = (event) => { event.stopPropagation(); if (event.key === "Enter" || event.key === "Escape") gallery.focus(); };
    box.append(accept, disagree, label, note);
    return box;
  }

  function change(row, values) {
    const review = Object.assign({}, reviews[row.id], values);
    if (!review.verdict && !review.note) delete reviews[row.id]; else reviews[row.id] = review;
    keep();
    count();
  }

  function redraw(place) {
    const card = drawn.get(place);
    if (card) { card.remove(); drawn.delete(place); }
    draw();
  }

  function judge(verdict) {
    const row = view[current];
    if (!row || (verdict === "accept" && row.level === "error")) return;
    change(row, { verdict, label: verdict === "accept" ? row.decision : "" });
    redraw(current);
  }

  function choose(name) {
    const row = view[current];
    if (!row) return;
    if (!name) change(row, { verdict: undefined, label: "" });
    else change(row, { verdict: name === row.decision ? "accept" : "disagree", label: name });
    redraw(current);
  }

  function go(place) {
    if (!view.length) return;
    current = Math.min(Math.max(place, 0), view.length - 1);
    const y = Math.floor(current / columns) * (CARD_HEIGHT + GAP), box = gallery.getBoundingClientRect();
    const barHeight = document.querySelector(".bar").offsetHeight;
    if (box.top + y < barHeight + GAP) scrollBy(0, box.top + y - barHeight - GAP);
    else if (box.top + y + CARD_HEIGHT > innerHeight - GAP) scrollBy(0, box.top + y + CARD_HEIGHT - innerHeight + GAP);
    draw();
  }

  function enlarge() {
    const row = view[current];
    if (!row || (!row.overlay && !row.thumb)) return;
    $("largeName").textContent = row.id;
    $("largeImage").src = address(row.overlay || row.thumb);
    $("largeFacts").replaceChildren(element("p", "", (row.decision || "") + "  " + flags(row)
      + (row.magnitude === null ? "" : "  map's maximum before scaling: " + row.magnitude)), bars(row));
    $("large").showModal();
  }

  // A cell that a spreadsheet would take for a formula is made text.
  const cell = (value) => {
    const text = String(value ?? ""), safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };

  function exported() {
    const head = ["image", "label", "review", "decision", "malignant_probability", "note", "model_sha256"];
    const lines = [head.join(",")];
    for (const row of data.rows) {
      const review = reviews[row.id];
      if (!review) continue;
      lines.push([row.id, review.label, review.verdict, row.decision, row.malignant, review.note, data.model].map(cell).join(","));
    }
    return lines.join("\n") + "\n";
  }

  function save() {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([exported()], { type: "text/csv;charset=utf-8" }));
    link.download = "reviewed.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if ($("large").open) { if (event.key === "Enter") { event.preventDefault(); $("large").close(); } return; }
    if (inField) { if (event.key === "Escape") gallery.focus(); return; }
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step) { event.preventDefault(); go(current + step); return; }
    const key = event.key.toLowerCase();
    if (key >= "1" && key <= String(CLASSES.length)) choose(CLASSES[key - 1]);
    else if (key === "a") judge("accept");
    else if (key === "d") judge("disagree");
    else if (key === "u") { const row = view[current]; if (row) { change(row, { verdict: undefined, label: "", note: "" }); redraw(current); } }
    else if (key === "n") { event.preventDefault(); const card = drawn.get(current); if (card) card.querySelector(".note").focus(); }
    else if (key === "e") save();
    else if (key === "?") $("help").click();
    else if (key === "enter" && event.target.tagName !== "BUTTON") { event.preventDefault(); enlarge(); }
    else if (key === "home") go(0);
    else if (key === "end") go(view.length - 1);
  });

  for (const tile of document.querySelectorAll(".tile")) tile.onclick = () => {
    filters.level = tile.dataset.level;
    for (const other of document.querySelectorAll(".tile")) other.setAttribute("aria-pressed", other === tile);
    refresh();
  };
  for (const id of ["sort", "class", "state"]) $(id).onchange = () => { filters[id] = $(id).value; refresh(); };
  $("text").oninput = () => { filters.text = $("text").value.toLowerCase(); refresh(); };
  $("export").onclick = save;
  $("help").onclick = () => { $("keys").hidden = !$("keys").hidden; $("help").setAttribute("aria-expanded", !$("keys").hidden); layout(); };
  $("close").onclick = () => $("large").close();
  addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", layout);
  refresh();
  gallery.focus({ preventScroll: true });
  document.body.dataset.ready = "1";
})();
