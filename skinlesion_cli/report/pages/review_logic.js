"use strict";
// What the page decides without touching the document: order, filters, words, numbers, the exported table.
globalThis.ReviewLogic = (() => {
  const RANK = { refer: 0, review: 1, error: 2, routine: 3, predicted: 3 };

  const byWorst = (a, b) => RANK[a.level] - RANK[b.level] || (b.malignant ?? 0) - (a.malignant ?? 0) || a.index - b.index;
  const SORTS = {
    worst: byWorst,
    lesion: (a, b) => a.lesionRank - b.lesionRank || byWorst(a, b),
    malignant: (a, b) => (b.malignant ?? -1) - (a.malignant ?? -1) || a.index - b.index,
    unsure: (a, b) => a.top - b.top || a.index - b.index,
    id: (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
  };

  // A row of the page's data with what sorting and searching need of it.
  function prepared(row, index, lesions) {
    const known = (row.p || []).filter((p) => p !== null);
    return {
      error: "", reason: "", quality: "", set: [], similar: [], lesion: "", ...row, index,
      p: row.p || [],
      top: known.length ? Math.max(...known) : -1,
      lesionRank: row.lesion in lesions ? lesions[row.lesion].rank : Infinity,
    };
  }

  function fits(row, review, filters) {
    if (filters.level && row.level !== filters.level) return false;
    if (filters.class && row.decision !== filters.class) return false;
    if (filters.state === "open" && review.verdict) return false;
    if (filters.state === "note" && !review.note) return false;
    if ((filters.state === "accept" || filters.state === "disagree") && review.verdict !== filters.state) return false;
    if (!filters.text) return true;
    const said = [row.id, row.lesion, row.error, row.reason, row.quality, review.note || ""].join(" ").toLowerCase();
    return said.includes(filters.text);
  }

  // The next row without a verdict after this place, else the first one before it, else -1.
  function nextOpen(view, from, isOpen) {
    for (let step = 1; step < view.length; step++) {
      const place = (from + step) % view.length;
      if (isOpen(view[place])) return place;
    }
    return -1;
  }

  // A probability for people: two digits, and never a rounded 0 or 1.
  function probability(value) {
    if (value === null || value === undefined) return "";
    if (value < 0.005) return "<0.01";
    if (value >= 0.995) return ">0.99";
    return value.toFixed(2);
  }

  const count = (number) => number.toLocaleString("en");

  // A cell that a spreadsheet would take for a formula is made text.
  function cell(value) {
    const text = String(value ?? "");
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function exported(rows, reviews, model) {
    const grouped = rows.some((row) => row.lesion);
    const head = ["image", ...(grouped ? ["lesion_id"] : []), "label", "review", "decision", "malignant_probability", "note", "model_sha256"];
    const lines = [head.join(",")];
    for (const row of rows) {
      const review = reviews[row.id];
      if (!review) continue;
      const values = [row.id, ...(grouped ? [row.lesion] : []), review.label, review.verdict, row.decision, row.malignant, review.note, model];
      lines.push(values.map(cell).join(","));
    }
    return `${lines.join("\n")}\n`;
  }

  // How large a picture is and where it lies: scale 1 fits the pane; the point under the pointer stays in place.
  function zoomed(view, factor, x, y) {
    const scale = Math.min(Math.max(view.scale * factor, 1), 16);
    const ratio = scale / view.scale;
    return contained({ scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio });
  }

  // Keeps a picture within its pane; places are shares of the pane.
  function contained(view) {
    const least = 1 - view.scale;
    return { scale: view.scale, x: Math.min(Math.max(view.x, least), 0), y: Math.min(Math.max(view.y, least), 0) };
  }

  // Where pictures lie in a pane, so that image and map are equally large: `ratio` is that of the image; a map has
  // a strip below it, and may have the image itself on its left.
  function placed(paneWidth, paneHeight, ratio, mapWidth, mapHeight) {
    const halves = mapWidth / mapHeight > 1.4 * ratio ? 2 : 1;
    const strip = mapWidth ? Math.max(mapHeight / (mapWidth / halves) - 1 / ratio, 0) : 0;
    const width = Math.min(paneWidth, paneHeight / (1 / ratio + strip));
    const left = (paneWidth - width) / 2;
    const top = (paneHeight - width * (1 / ratio + strip)) / 2;
    return { halves, width, left, top, imageHeight: width / ratio, mapHeight: width * (1 / ratio + strip) };
  }

  return { placed, RANK, SORTS, prepared, fits, nextOpen, probability, count, cell, exported, zoomed, contained };
})();
