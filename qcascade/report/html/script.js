"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (kind, text, attributes) => {
    const element = document.createElement(kind);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    return element;
  };

  const breakable = (element, text) => { // may break after dots and underscores
    String(text).split(/(?<=[._])/).forEach((part, n) => { if (n) element.append(document.createElement("wbr")); element.append(part); });
    return element;
  };

  // Colours: the system's, light or dark; remembered where the browser lets us.
  const themes = ["system", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("qcascade-theme"); } catch { return null; } };
  const setTheme = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").replaceChildren(make("span", "Colours: ", { class: "wideonly" }), theme);
    $("theme").setAttribute("aria-label", "Colours: " + theme);
    try { localStorage.setItem("qcascade-theme", theme); } catch { /* private windows keep nothing */ }
  };
  let theme = themes.includes(stored()) ? stored() : "system";
  setTheme(theme);
  $("theme").hidden = false;
  $("theme").addEventListener("click", () => { theme = themes[(themes.indexOf(theme) + 1) % 3]; setTheme(theme); });

  // The menu says which section is on the screen.
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));

  // Print shows what is folded.
  const folded = [];
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((d) => { folded.push(d); d.open = true; }));
  addEventListener("afterprint", () => { while (folded.length) folded.pop().open = false; });

  // Tables sort by their headings: by figures where there are any, what is not known last.
  const key = (cell) => {
    if (cell?.classList.contains("none")) return null;
    const data = cell?.querySelector("data");
    return data ? Number(data.value) : cell?.classList.contains("number") ? null : (cell?.textContent ?? "");
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  };
  for (const table of document.querySelectorAll("table")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = make("button", heading.textContent, { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
        rows.sort((a, b) => compare(a[0], b[0], sign));
        body.replaceChildren(...rows.map((row) => row[1]));
        table.dispatchEvent(new Event("sorted"));
      });
    });
  }

  // Regions are filtered by words, verdict and pattern; of very many, the first are shown until all are asked for.
  const regions = $("regions-table");
  if (regions) {
    const most = 200, count = regions.tBodies[0].rows.length, texts = new Map();
    let all = !regions.classList.contains("large");
    const contains = (row, words) => {
      if (!words.length) return true;
      if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
      return words.every((word) => texts.get(row).includes(word));
    };
    const tell = (fits, shown) => {
      $("filter-count").textContent = fits + " of " + count + " rows" + (shown < fits ? ", the first " + shown + " shown" : "");
      $("filter-all").hidden = shown >= fits;
    };
    const filter = () => {
      const words = $("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
      const verdict = $("filter-verdict").value, pattern = $("filter-pattern").value;
      let fits = 0, shown = 0;
      for (const row of regions.tBodies[0].rows) {
        const fit = (!verdict || row.dataset.verdict === verdict) && (!pattern || row.dataset.pattern === pattern) && contains(row, words);
        const show = fit && (all || shown < most);
        fits += fit;
        shown += show;
        row.hidden = !show;
      }
      regions.classList.remove("large");
      tell(fits, shown);
    };
    const showAll = () => { all = true; filter(); };
    $("filters").hidden = false;
    let waiting = 0;
    $("filter-text").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
    $("filter-verdict").addEventListener("change", filter);
    $("filter-pattern").addEventListener("change", filter);
    $("filter-all").addEventListener("click", showAll);
    regions.addEventListener("sorted", filter);
    const reveal = (hash) => { // a link may lead to a row that is not shown
      const row = /^#region-/.test(hash) ? $(hash.slice(1)) : null;
      if (!row || row.checkVisibility()) return;
      for (const field of ["filter-text", "filter-verdict", "filter-pattern"]) $(field).value = "";
      showAll();
      row.scrollIntoView();
    };
    addEventListener("hashchange", () => reveal(location.hash));
    document.addEventListener("click", (event) => reveal(event.target.closest?.('a[href^="#region-"]')?.getAttribute("href") ?? ""));
    addEventListener("beforeprint", () => { if (!all) showAll(); });
    tell(count, all ? count : most);
    reveal(location.hash);
  }

  // The graph: a window on the drawing that moves and zooms, one unit selected.
  const svg = $("model-graph");
  if (svg && $("graph-data")) {
    const data = JSON.parse($("graph-data").textContent);
    const [width, height] = data.size, [unitWidth, unitHeight] = data.unit;
    const space = "http://www.w3.org/2000/svg";
    const users = data.units.map(() => []);
    data.units.forEach((unit, n) => unit[4].forEach((source) => users[source].push(n)));
    const highlight = document.createElementNS(space, "path");
    highlight.setAttribute("class", "highlight");
    svg.append(highlight);
    svg.classList.remove("large");
    svg.classList.add("live");
    $("graph-tools").hidden = false;
    let view = { x: 0, y: 0, w: width, h: height }, whole = true, selected = -1, current = 0;

    const paper = matchMedia("print"), narrow = matchMedia("(max-width: 46rem)");
    const show = () => {
      if (paper.matches) { // all of the drawing
        svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
        svg.classList.remove("far");
        return;
      }
      svg.setAttribute("viewBox", [view.x, view.y, view.w, view.h].map((v) => v.toFixed(1)).join(" "));
      svg.classList.toggle("far", svg.clientWidth / view.w < 0.33);
    };
    const shape = () => svg.clientHeight / Math.max(1, svg.clientWidth);
    const fit = () => {
      const w = Math.max(width, height / shape());
      view = { x: (width - w) / 2, y: (height - w * shape()) / 2, w, h: w * shape() };
      whole = true;
      show();
    };
    const resized = () => { if (whole && !paper.matches) fit(); else { if (!paper.matches) view.h = view.w * shape(); show(); } };
    const start = () => { // all of it where it can be read, else its beginning
      fit();
      if (svg.clientWidth / view.w >= 0.5 || svg.clientWidth > 700) return;
      const w = svg.clientWidth / 0.62;
      view = { x: 0, y: 0, w, h: w * shape() };
      whole = false;
      show();
    };
    const zoom = (factor, cx = 0.5, cy = 0.5) => {
      const w = Math.min(Math.max(view.w * factor, 160), Math.max(width, height / shape()) * 1.6);
      const h = w * shape();
      view = { x: view.x + (view.w - w) * cx, y: view.y + (view.h - h) * cy, w, h };
      whole = false;
      show();
    };
    $("zoom-in").addEventListener("click", () => zoom(1 / 1.4));
    $("zoom-out").addEventListener("click", () => zoom(1.4));
    $("zoom-fit").addEventListener("click", fit);
    addEventListener("resize", resized);
    paper.addEventListener("change", resized);
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 160), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });

    // Dragging with one pointer moves, with two zooms; a drag is no click.
    const pointers = new Map();
    let moved = 0, spread = 0;
    const distance = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    svg.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      moved = 0;
      if (pointers.size === 2) spread = distance();
    });
    svg.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last.x, dy = event.clientY - last.y, scale = view.w / svg.clientWidth;
      moved += Math.abs(dx) + Math.abs(dy);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (moved > 5 && !svg.hasPointerCapture(event.pointerId)) { svg.setPointerCapture(event.pointerId); svg.classList.add("dragging"); }
      if (pointers.size === 2) { const now = distance(); if (spread && now) zoom(spread / now); spread = now; }
      whole = false;
      view.x -= dx * scale / pointers.size;
      view.y -= dy * scale / pointers.size;
      show();
    });
    for (const kind of ["pointerup", "pointercancel", "pointerleave"]) {
      svg.addEventListener(kind, (event) => { pointers.delete(event.pointerId); svg.classList.remove("dragging"); });
    }

    const place = (n) => [data.units[n][5], data.units[n][6]];
    const element = (n) => $("u" + n);
    const connection = (from, to) => {
      const [sx, sy] = place(from), [tx, ty] = place(to);
      if (Math.abs(tx - sx) < unitWidth && ty > sy) {
        const x = sx + unitWidth / 2, y = sy + unitHeight, u = tx + unitWidth / 2;
        if (ty - y < 80) return `M${x} ${y}C${x} ${y + 14} ${u} ${ty - 14} ${u} ${ty}`;
        const side = Math.max(sx, tx) + unitWidth;
        return `M${sx + unitWidth} ${sy + unitHeight / 2}C${side + 40} ${sy + unitHeight / 2} ${side + 40} ${ty + 12} ${tx + unitWidth} ${ty + 12}`;
      }
      const right = tx > sx, x = right ? sx + unitWidth : sx, u = right ? tx : tx + unitWidth, bend = (right ? 1 : -1) * Math.max(40, Math.abs(u - x) / 2.5);
      return `M${x} ${sy + unitHeight / 2}C${x + bend} ${sy + unitHeight / 2} ${u - bend} ${ty + unitHeight / 2} ${u} ${ty + unitHeight / 2}`;
    };
    const reveal = (n) => {
      const [x, y] = place(n), scale = svg.clientWidth / view.w;
      if (scale < 0.4) { view.w = svg.clientWidth / 0.75; view.h = view.w * shape(); }
      const inside = x > view.x + 20 && x + unitWidth < view.x + view.w - 20 && y > view.y + 20 && y + unitHeight < view.y + view.h - 20;
      if (!inside || scale < 0.4) { whole = false; view.x = x + unitWidth / 2 - view.w / 2; view.y = y + unitHeight / 2 - view.h / 2; }
      show();
    };
    const list = (title, numbers) => {
      const line = make("p", numbers.length ? title + ": " : title + ": nothing");
      numbers.slice(0, 8).forEach((n, k) => {
        if (k) line.append(", ");
        const link = breakable(make("a", null, { href: "#u" + n }), data.units[n][0]);
        line.append(link);
      });
      if (numbers.length > 8) line.append(" and " + (numbers.length - 8) + " more");
      return line;
    };
    const close = () => {
      if (selected >= 0) element(selected).classList.remove("selected");
      selected = -1;
      highlight.removeAttribute("d");
      $("unit").hidden = true;
      $("graph-holder").classList.remove("open");
      resized();
    };
    const select = (n) => {
      if (selected >= 0) element(selected).classList.remove("selected");
      const [name, kind, facts, row, inputs] = data.units[n];
      selected = n;
      element(n).classList.add("selected");
      highlight.setAttribute("d", inputs.map((i) => connection(i, n)).join("") + users[n].map((u) => connection(n, u)).join(""));
      const panel = $("unit"), terms = make("dl"), title = breakable(make("h3"), name);
      const region = kind === "offloaded" || kind === "kept";
      const chip = region ? make("span", kind, { class: "chip " + kind }) : make("span", kind === "classical" ? "not a region" : kind, { class: "note" });
      for (const [label, text] of facts) terms.append(make("dt", label), breakable(make("dd"), text));
      const shut = make("button", "Close", { type: "button" });
      shut.addEventListener("click", () => { const last = selected; close(); element(last).focus({ preventScroll: true }); });
      panel.replaceChildren(title, chip, terms);
      if (row) {
        const line = make("p");
        line.append(make("a", "Its row in the table", { href: "#" + row }));
        const costs = $(row)?.querySelector('a[href^="#candidate-"]');
        if (costs) line.append(" · ", make("a", "What its kernel costs", { href: costs.getAttribute("href") }));
        panel.append(line);
      }
      panel.append(list("reads", inputs), list("read by", users[n]), shut);
      panel.hidden = false;
      $("graph-holder").classList.add("open");
      resized();
      if (narrow.matches) panel.scrollIntoView({ block: "nearest" }); // it opens below the drawing
    };
    const focus = (n) => {
      element(current).setAttribute("tabindex", "-1");
      current = n;
      element(n).setAttribute("tabindex", "0");
      element(n).focus({ preventScroll: true });
      reveal(n);
    };
    const numbered = (target) => { const unit = target.closest?.(".unit"); return unit ? Number(unit.id.slice(1)) : -1; };
    svg.addEventListener("click", (event) => {
      const n = numbered(event.target);
      if (n < 0) return;
      event.preventDefault();
      if (moved > 5) return;
      focus(n);
      select(n);
    });
    svg.addEventListener("keydown", (event) => {
      const n = numbered(event.target);
      const beside = (step) => { // the unit of the same row of a block
        const [x, y] = place(n);
        const row = data.units.map((unit, k) => [unit[5], k]).filter(([, k]) => Math.abs(place(k)[1] - y) < 4).sort((a, b) => a[0] - b[0]);
        return row[row.findIndex(([, k]) => k === n) + step]?.[1] ?? n;
      };
      const moves = {
        ArrowDown: () => users[n][0] ?? Math.min(n + 1, users.length - 1), ArrowUp: () => data.units[n][4][0] ?? Math.max(n - 1, 0),
        ArrowRight: () => beside(1), ArrowLeft: () => beside(-1), Home: () => 0, End: () => users.length - 1,
      };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (n >= 0 && moves[event.key]) { event.preventDefault(); const to = moves[event.key](); focus(to); if (selected >= 0) select(to); }
      else if (n >= 0 && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); select(n); }
      else if (event.key === "+" || event.key === "=") zoom(1 / 1.4);
      else if (event.key === "-") zoom(1.4);
      else if (event.key === "0") fit();
      else if (event.key === "Escape" && selected >= 0) close();
    });
    document.addEventListener("click", (event) => { // links to units from the table and the panel
      const link = event.target.closest?.('a[href^="#u"]');
      const n = link && /^#u\d+$/.test(link.getAttribute("href")) ? Number(link.getAttribute("href").slice(2)) : -1;
      if (n < 0 || !element(n)) return;
      event.preventDefault();
      $("graph-holder").scrollIntoView({ block: "nearest" });
      select(n);
      focus(n);
    });
    document.querySelectorAll("#model-graph .unit").forEach((unit) => {
      unit.setAttribute("role", "button");
      unit.setAttribute("tabindex", "-1");
    });
    if (users.length) element(0).setAttribute("tabindex", "0");
    start();
  }
  document.documentElement.dataset.ready = "true";
})();
