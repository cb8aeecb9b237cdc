(() => {
  const L = globalThis.ReviewLogic;
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const CLASSES = data.classes;
  const LESIONS = data.lesions;
  const GROUPED = Object.keys(LESIONS).length > 0;
  const rows = data.rows.map((row, index) => L.prepared(row, index, LESIONS));
  const byId = new Map(rows.map((row) => [row.id, row]));
  const gallery = $("gallery");
  const CARD_MIN = 336;
  // A line for each class, and what not every page has: why it has its level, its lesion, similar cases.
  const CARD_HEIGHT = 275 + 14 * CLASSES.length + (data.triaged ? 37 : 0) + (GROUPED ? 22 : 0) + (data.similar ? 20 : 0);
  const GAP = 12;
  const SPARE_ROWS = 2;
  const MOST_PRINTED = 500;

  // Reviews

  const KEY = `skinlesion-review:${data.model}:${data.title}`;
  let reviews = Object.create(null);
  let reviewed = 0;
  const undoable = [];

  function restore(text) {
    let stored = {};
    try { stored = JSON.parse(text || "{}"); } catch { /* not ours: start anew */ }
    reviews = Object.assign(Object.create(null), stored);
    reviewed = Object.keys(reviews).filter((id) => reviews[id].verdict && byId.has(id)).length;
  }

  // Reviews outlive a reload where the browser lets a file keep something.
  function keep() {
    try { localStorage.setItem(KEY, JSON.stringify(reviews)); } catch { /* private window */ }
  }

  const reviewOf = (row) => reviews[row.id] || {};

  function change(row, values) {
    const before = reviewOf(row);
    const review = { ...before, ...values };
    reviewed += Boolean(review.verdict) - Boolean(before.verdict);
    if (!review.verdict && !review.note) delete reviews[row.id]; else reviews[row.id] = review;
    keep();
    showCount();
  }

  function decide(verdict, label) {
    const row = view[current];
    if (!row || (verdict === "accept" && row.level === "error")) return;
    undoable.push([row.id, reviewOf(row)]);
    change(row, { verdict, label });
    redraw(current);
    const next = L.nextOpen(view, current, (other) => !reviewOf(other).verdict);
    if (next >= 0) go(next);
    else say("all images of this list are reviewed");
  }

  const accept = () => { const row = view[current]; if (row) decide("accept", row.decision || ""); };
  const disagree = () => decide("disagree", "");

  function choose(name) {
    const row = view[current];
    if (row) decide(name === row.decision ? "accept" : "disagree", name);
  }

  function undo() {
    const last = undoable.pop();
    if (!last) { say("nothing to undo"); return; }
    const [id, before] = last;
    change(byId.get(id), { verdict: before.verdict, label: before.label });
    const place = view.findIndex((row) => row.id === id);
    if (place >= 0) { redraw(place); go(place); }
    say(`taken back: ${id}`);
  }

  // The list

  const filters = { level: "", sort: GROUPED ? "lesion" : data.triaged ? "worst" : "unsure", class: "", state: "", text: "" };
  let view = [];
  let columns = 1;
  let width = CARD_MIN;
  let current = 0;
  const drawn = new Map();

  function refresh() {
    const id = view[current]?.id;
    view = rows.filter((row) => L.fits(row, reviewOf(row), filters)).sort(L.SORTS[filters.sort]);
    current = Math.max(0, view.findIndex((row) => row.id === id));
    layout();
    showCount();
  }

  function showCount() {
    const of = view.length === rows.length ? "" : ` of ${L.count(rows.length)}`;
    $("count").textContent = `${L.count(view.length)}${of} images, ${L.count(reviewed)} reviewed`;
    $("progress").max = rows.length || 1;
    $("progress").value = reviewed;
    $("none").hidden = view.length > 0;
  }

  function say(text) { $("said").textContent = text; }

  function clear() {
    for (const card of drawn.values()) card.remove();
    drawn.clear();
  }

  function layout() {
    // Printing resizes the window; what is printed needs no layout of ours.
    if (document.body.classList.contains("printing")) return;
    const hadFocus = gallery.contains(document.activeElement);
    clear();
    const available = gallery.clientWidth;
    columns = Math.max(1, Math.floor((available + GAP) / (CARD_MIN + GAP)));
    width = (available - GAP * (columns - 1)) / columns;
    gallery.style.height = `${Math.ceil(view.length / columns) * (CARD_HEIGHT + GAP)}px`;
    draw();
    if (hadFocus) drawn.get(current)?.focus({ preventScroll: true });
  }

  // Only what can be seen is in the document, and the current card, which has the focus.
  function draw() {
    if (document.body.classList.contains("printing")) return;
    const top = -gallery.getBoundingClientRect().top;
    const pitch = CARD_HEIGHT + GAP;
    const first = Math.max(0, Math.floor(top / pitch) - SPARE_ROWS) * columns;
    const last = Math.min(view.length, (Math.ceil((top + innerHeight) / pitch) + SPARE_ROWS) * columns);
    for (const [place, card] of drawn) {
      if ((place < first || place >= last) && place !== current) { card.remove(); drawn.delete(place); }
    }
    if (view.length) add(current);
    for (let place = first; place < last; place++) add(place);
    mark();
  }

  function add(place) {
    if (drawn.has(place)) return;
    const card = build(view[place], place);
    card.style.left = `${(place % columns) * (width + GAP)}px`;
    card.style.top = `${Math.floor(place / columns) * (CARD_HEIGHT + GAP)}px`;
    card.style.width = `${width}px`;
    card.style.height = `${CARD_HEIGHT}px`;
    // In the order of the list, so that the tabulator and a screen reader go through it in that order.
    let after = null;
    for (const [other, element] of drawn) if (other > place && (after === null || other < after[0])) after = [other, element];
    gallery.insertBefore(card, after ? after[1] : null);
    drawn.set(place, card);
  }

  function mark() {
    for (const [place, card] of drawn) {
      const is = place === current;
      card.classList.toggle("current", is);
      card.tabIndex = is ? 0 : -1;
      if (is) card.setAttribute("aria-current", "true"); else card.removeAttribute("aria-current");
    }
  }

  function redraw(place) {
    const card = drawn.get(place);
    if (!card) return;
    const hadFocus = card.contains(document.activeElement);
    card.remove();
    drawn.delete(place);
    draw();
    if (hadFocus) drawn.get(place)?.focus({ preventScroll: true });
  }

  // Height of what covers the top of the window.
  function covered() {
    const bar = document.querySelector(".bar");
    return getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  }

  function go(place) {
    if (!view.length) return;
    current = Math.min(Math.max(place, 0), view.length - 1);
    const y = Math.floor(current / columns) * (CARD_HEIGHT + GAP);
    const top = gallery.getBoundingClientRect().top + y;
    const room = covered() + GAP;
    if (top < room || CARD_HEIGHT > innerHeight - room - GAP) scrollBy(0, top - room);
    else if (top + CARD_HEIGHT > innerHeight - GAP) scrollBy(0, top + CARD_HEIGHT - innerHeight + GAP);
    draw();
    if ($("large").open) show(); else drawn.get(current)?.focus({ preventScroll: true });
  }

  function nextLesion() {
    const lesion = view[current]?.lesion;
    for (let place = current + 1; place < view.length; place++) {
      if (view[place].lesion !== lesion) { go(place); return; }
    }
  }

  // Cards

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const address = (path) => path.startsWith("data:") ? path : path.split("/").map(encodeURIComponent).join("/");

  // One half of a thumbnail: the image is left, the image with the map right.
  function half(row, right) {
    const box = element("div", "half");
    if (!row.thumb) {
      box.classList.add("empty");
      box.textContent = row.level === "error" ? "not readable" : "no thumbnail";
      return box;
    }
    const image = element("img", right ? "right" : data.halves ? "left" : "whole");
    image.alt = `${right ? "map over" : "image"} ${row.id}`;
    image.onload = () => {
      const ratio = image.naturalWidth / image.naturalHeight / (data.halves ? 2 : 1);
      const room = box.clientWidth / box.clientHeight;
      if (room && ratio > room) image.style.height = `${(100 * room) / ratio}%`;
      image.dataset.ready = "1";
    };
    image.onerror = () => {
      box.className = "half empty";
      box.textContent = "thumbnail missing (is the folder beside this page?)";
    };
    image.src = address(row.thumb);
    box.append(image);
    return box;
  }

  function bars(row) {
    const grid = element("div", "bars");
    CLASSES.forEach((name, k) => {
      const plausible = row.set.includes(name);
      const label = element("div", plausible ? "in" : "", name);
      const track = element("div", "track");
      const fill = element("div", "fill");
      fill.style.width = `${100 * (row.p[k] ?? 0)}%`;
      track.append(fill);
      if (name in data.thresholds) {
        const tick = element("div", "tick");
        tick.style.left = `calc(${100 * data.thresholds[name]}% - 1px)`;
        tick.title = `fires above ${L.probability(data.thresholds[name])}`;
        track.append(tick);
      }
      const holder = element("div", name === row.decision ? "decided" : "");
      holder.append(track);
      grid.append(label, holder, element("div", "num", L.probability(row.p[k])));
    });
    return grid;
  }

  function flags(row) {
    const said = [];
    if (row.inTraining) said.push(row.inTraining);
    if (row.quality) said.push(`quality: ${row.quality}`);
    for (const flag of row.mapFlags || []) said.push(flag);
    if (row.set.length) said.push(`plausible: ${row.set.join(", ")}`);
    return said.join(" · ");
  }

  function line(className, text) {
    const made = element("div", className, text);
    made.title = text;
    return made;
  }

  function lesionLine(row) {
    const lesion = LESIONS[row.lesion];
    const text = lesion ? `${lesion.words} · ${row.lesion}` : "no lesion known";
    return line(`lesion ${lesion ? lesion.level : ""}`, text);
  }

  function heading(row) {
    const said = element("div", "said");
    said.append(element("b", "", row.decision || ""));
    // Without triage an image that was read has no level.
    if (data.triaged || row.level === "error") said.append(element("span", `chip ${row.level}`, row.level));
    if (row.level !== "error") {
      const more = data.triaged ? [`malignant ${L.probability(row.malignant)}`] : [];
      if (row.fired) more.push("by threshold");
      if (row.argmax !== row.decision) more.push(`argmax ${row.argmax}`);
      said.append(element("small", "", more.join(", ")));
    }
    return said;
  }

  function build(row, place) {
    const card = element("li", `card ${row.level}`);
    card.dataset.id = row.id;
    card.setAttribute("aria-posinset", place + 1);
    card.setAttribute("aria-setsize", view.length);
    const pair = element("div", "pair");
    pair.append(half(row, false));
    if (data.halves && row.thumb) pair.append(half(row, true));
    pair.onclick = () => { go(place); enlarge(); };
    const name = element("h3", "name");
    name.append(element("bdi", "", row.id));
    name.title = row.id;
    card.append(pair, name);
    if (GROUPED) card.append(lesionLine(row));
    card.append(heading(row));
    if (row.level === "error") card.append(element("div", "message", row.error));
    else {
      if (data.triaged) card.append(line("reason", row.reason));
      card.append(bars(row), line("flags", flags(row)));
      if (data.similar) card.append(line("similar", row.similar[0] || ""));
    }
    card.append(actions(row, place));
    card.addEventListener("mousedown", () => { current = place; mark(); });
    card.addEventListener("focusin", () => { if (current !== place) { current = place; mark(); } });
    return card;
  }

  function button(className, text, pressed, act) {
    const made = element("button", className, text);
    made.type = "button";
    made.setAttribute("aria-pressed", pressed);
    made.onclick = act;
    return made;
  }

  function actions(row, place) {
    const review = reviewOf(row);
    const box = element("div", "actions");
    const at = (act) => () => { current = place; act(); };
    const yes = button("accept", "Accept", review.verdict === "accept", at(accept));
    yes.disabled = row.level === "error";
    const no = button("disagree", "Disagree", review.verdict === "disagree", at(disagree));
    const label = element("select");
    label.setAttribute("aria-label", `right class of ${row.id}`);
    label.append(new Option("class?", ""), ...CLASSES.map((each) => new Option(each, each)));
    label.value = review.label || "";
    label.onchange = () => {
      current = place;
      if (label.value) choose(label.value);
      else { change(row, { verdict: undefined, label: "" }); redraw(place); }
    };
    const note = element("input", "note");
    note.placeholder = "note";
    note.setAttribute("aria-label", `note on ${row.id}`);
    note.value = review.note || "";
    note.oninput = () => change(row, { note: note.value });
    note.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); drawn.get(place)?.focus({ preventScroll: true }); }
    };
    box.append(yes, no, label, note);
    return box;
  }

  // The large view: image and map side by side, moved and enlarged together

  let shown = { scale: 1, x: 0, y: 0 };
  const panes = () => [...document.querySelectorAll("#panes .pane")];

  function place() {
    for (const pane of panes()) {
      const moved = pane.querySelector(".moved");
      moved.style.transform = `translate(${shown.x * pane.clientWidth}px, ${shown.y * pane.clientHeight}px) scale(${shown.scale})`;
    }
    $("zoom").textContent = `${Math.round(100 * shown.scale)} %`;
  }

  function zoom(factor, x = 0.5, y = 0.5) { shown = L.zoomed(shown, factor, x, y); place(); }
  function pan(dx, dy) { shown = L.contained({ scale: shown.scale, x: shown.x + dx, y: shown.y + dy }); place(); }
  function fit() { shown = { scale: 1, x: 0, y: 0 }; place(); }

  // A picture of the large view; where its file is missing, the half of the thumbnail.
  function picture(source, alt, row, side) {
    const image = element("img");
    image.alt = alt;
    image.draggable = false;
    image.onload = () => { image.dataset.ready = "1"; arrange(); };
    image.onerror = () => {
      image.onerror = () => image.replaceWith(element("div", "empty", "the picture is missing (is its folder beside this page?)"));
      if (!row.thumb) { image.onerror(); return; }
      image.dataset.half = data.halves ? side : "";
      image.src = address(row.thumb);
    };
    image.src = source ? address(source) : "data:,";
    return image;
  }

  function pane(title, image) {
    const figure = element("figure");
    const box = element("div", "pane");
    const moved = element("div", "moved");
    moved.append(image);
    box.append(moved);
    figure.append(box, element("figcaption", "", title));
    return figure;
  }

  // Both pictures at the same size and place, whatever the map's file has around it.
  function arrange() {
    const [image, map] = panes().map((each) => each.querySelector("img"));
    const first = image?.dataset.ready ? image : null;
    if (!first) return;
    const natural = (one) => [one.naturalWidth / (one.dataset.half ? 2 : 1), one.naturalHeight];
    const [width, height] = natural(first);
    const [mapWidth, mapHeight] = map?.dataset.ready && !map.dataset.half ? [map.naturalWidth, map.naturalHeight] : [0, 1];
    const box = first.closest(".pane");
    // A longer caption leaves its picture less room; both take the lesser.
    const room = Math.min(...[...document.querySelectorAll("#panes .pane")].map((each) => each.clientHeight));
    const at = L.placed(box.clientWidth, room, width / height, mapWidth, mapHeight);
    for (const one of [first, map]) {
      if (!one?.dataset.ready) continue;
      const right = one === map && (one.dataset.half || at.halves === 2);
      const parts = one.dataset.half || right ? 2 : 1;
      one.style.width = `${parts * at.width}px`;
      one.style.height = `${one === map && !one.dataset.half ? at.mapHeight : at.imageHeight}px`;
      one.style.left = `${at.left - (right ? at.width : 0)}px`;
      one.style.top = `${at.top}px`;
      one.style.clipPath = parts === 1 ? "" : right ? "inset(0 0 0 50%)" : "inset(0 50% 0 0)";
    }
  }

  function show() {
    const row = view[current];
    $("largeName").textContent = row.id;
    $("largeWhere").textContent = `${L.count(current + 1)} of ${L.count(view.length)}${reviewOf(row).verdict ? `, ${reviewOf(row).verdict === "accept" ? "accepted" : "disagreed"}` : ""}`;
    const figures = [pane("image", picture(row.view, `image ${row.id}`, row, "left"))];
    if (row.overlay) {
      figures.push(pane(`map of ${row.decision}: colours show what speaks for it, not that it is right`,
        picture(row.overlay, `map of ${row.decision} over ${row.id}`, row, "right")));
    }
    $("panes").replaceChildren(...figures);
    const facts = $("largeFacts");
    facts.replaceChildren(heading(row));
    if (GROUPED) facts.append(lesionLine(row));
    if (row.error || row.reason) facts.append(element("p", row.level === "error" ? "message" : "reason", row.error || row.reason));
    if (row.level !== "error") facts.append(bars(row), element("p", "flags", flags(row)));
    if (row.magnitude !== undefined && row.magnitude !== null) {
      facts.append(element("p", "flags", `maximum of the map ${row.magnitude.toPrecision(2)} (logits)`));
    }
    if (row.similar.length) {
      facts.append(element("h3", "", "Similar cases"));
      const list = element("ul");
      list.append(...row.similar.map((text) => element("li", "", text)));
      facts.append(list);
    }
    fit();
  }

  function enlarge() {
    const row = view[current];
    if (!row) return;
    if (!$("large").open) $("large").showModal();
    $("largeName").focus({ preventScroll: true });
    show();
  }

  $("large").addEventListener("close", () => drawn.get(current)?.focus({ preventScroll: true }));
  $("panes").addEventListener("wheel", (event) => {
    const box = event.target.closest(".pane");
    if (!box) return;
    event.preventDefault();
    const area = box.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height);
  }, { passive: false });
  $("panes").addEventListener("pointerdown", (event) => {
    const box = event.target.closest(".pane");
    if (!box) return;
    box.setPointerCapture(event.pointerId);
    const moves = (next) => pan(next.movementX / box.clientWidth, next.movementY / box.clientHeight);
    box.addEventListener("pointermove", moves);
    box.addEventListener("pointerup", () => box.removeEventListener("pointermove", moves), { once: true });
  });
  $("panes").addEventListener("dblclick", () => { if (shown.scale > 1) fit(); else zoom(3); });
  $("zoomIn").onclick = () => zoom(1.5);
  $("zoomOut").onclick = () => zoom(1 / 1.5);
  $("zoomFit").onclick = fit;
  $("previous").onclick = () => go(current - 1);
  $("next").onclick = () => go(current + 1);
  $("close").onclick = () => $("large").close();

  // Keys

  function save() {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([L.exported(rows, reviews, data.model)], { type: "text/csv;charset=utf-8" }));
    link.download = "reviewed.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // What a key does; those of the first kind work in the large view too.
  const EVERYWHERE = {
    a: accept, d: disagree, u: undo, e: save, g: nextLesion,
    j: () => go(current + 1), k: () => go(current - 1), home: () => go(0), end: () => go(view.length - 1),
    arrowright: () => go(current + 1), arrowleft: () => go(current - 1),
  };
  CLASSES.slice(0, 9).forEach((name, k) => { EVERYWHERE[String(k + 1)] = () => choose(name); });
  const IN_LIST = {
    arrowdown: () => go(current + columns), arrowup: () => go(current - columns),
    n: () => drawn.get(current)?.querySelector(".note").focus(), enter: enlarge, "?": () => $("keys").showModal(),
  };
  const IN_LARGE = {
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit, enter: () => $("large").close(),
    arrowdown: () => pan(0, -0.1), arrowup: () => pan(0, 0.1),
    "shift+arrowright": () => pan(-0.1, 0), "shift+arrowleft": () => pan(0.1, 0),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const tag = event.target.tagName;
    if (["INPUT", "SELECT", "TEXTAREA"].includes(tag)) {
      if (event.key === "Escape") drawn.get(current)?.focus({ preventScroll: true });
      return;
    }
    const large = $("large").open;
    const key = event.key.toLowerCase();
    if (key === "enter" && (tag === "BUTTON" || tag === "SUMMARY")) return;
    const moved = event.shiftKey && key.startsWith("arrow") ? `shift+${key}` : key;
    const act = (large ? IN_LARGE[moved] : IN_LIST[moved]) || EVERYWHERE[moved];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // Print: every image of the list, in the flow of the document

  function startPrint() {
    document.body.classList.add("printing");
    // How triage decides belongs into the record.
    document.querySelector("details").open = true;
    clear();
    view.slice(0, MOST_PRINTED).forEach((row, at) => { const card = build(row, at); drawn.set(at, card); gallery.append(card); });
    $("printed").textContent = view.length > MOST_PRINTED
      ? `The first ${L.count(MOST_PRINTED)} of ${L.count(view.length)} images are printed.` : "";
  }

  addEventListener("beforeprint", startPrint);
  addEventListener("afterprint", () => { document.body.classList.remove("printing"); layout(); });

  // Controls

  for (const tile of document.querySelectorAll(".tile")) tile.onclick = () => {
    filters.level = tile.dataset.level;
    for (const other of document.querySelectorAll(".tile")) other.setAttribute("aria-pressed", other === tile);
    refresh();
  };
  for (const id of ["sort", "class", "state"]) $(id).onchange = () => { filters[id] = $(id).value; refresh(); };
  let typing = 0;
  $("text").oninput = () => {
    filters.text = $("text").value.toLowerCase();
    clearTimeout(typing);
    // With many rows, not for every letter.
    if (rows.length > 2000) typing = setTimeout(refresh, 120); else refresh();
  };
  $("export").onclick = save;
  $("help").onclick = () => $("keys").showModal();
  $("keysClose").onclick = () => $("keys").close();
  addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", () => { layout(); if ($("large").open) { arrange(); place(); } });
  // Written by another window of this page, or by the one before a reload, whose last words may come late.
  addEventListener("storage", (event) => {
    if (event.key !== KEY && event.key !== null) return;
    restore(event.newValue);
    layout();
    showCount();
  });

  let stored = null;
  try { stored = localStorage.getItem(KEY); } catch { /* private window */ }
  restore(stored);
  $("sort").value = filters.sort;
  refresh();
  if (location.hash === "#print") startPrint();
  else drawn.get(0)?.focus({ preventScroll: true });
  document.body.dataset.ready = "1";
})();
