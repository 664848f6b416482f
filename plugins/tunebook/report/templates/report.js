// Draws the charts of the page from its own data, and serves theme, legend, zoom, hover, sorting, filtering.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // The page of all runs begins with most of them taken out.
  const hidden = new Set([...document.querySelectorAll('.key[aria-pressed="false"]')].map((key) => key.dataset.key));
  const views = [];
  let window_ = null; // [first step, last step] when zoomed

  // --- theme ---------------------------------------------------------------------------------------
  const themes = ["auto", "light", "dark"];
  const media = matchMedia("(prefers-color-scheme: dark)");
  const store = {
    get: () => { try { return localStorage.getItem("tunebook-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("tunebook-theme", value); } catch { /* file: pages may have no storage */ } },
  };
  const themeButton = document.getElementById("theme");
  let theme = themes.includes(store.get()) ? store.get() : "auto";
  const isDark = () => theme === "dark" || (theme === "auto" && media.matches);
  function applyTheme() {
    document.documentElement.dataset.theme = theme;
    themeButton.textContent = theme[0].toUpperCase() + theme.slice(1);
    themeButton.setAttribute("aria-label", `Colour theme: ${theme === "auto" ? "automatic" : theme}`);
  }
  themeButton.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    store.set(theme);
    applyTheme();
    drawAll();
  });
  media.addEventListener("change", () => { if (theme === "auto") drawAll(); });
  applyTheme();

  // --- charts --------------------------------------------------------------------------------------
  // The rows of a chart: of the curves that are on, the steps in view and one neighbour on each side.
  function rows(chart, all = false) {
    const made = [];
    chart.lines.forEach((line, place) => {
      if (!all && hidden.has(line.key)) return;
      let first = 0, last = line.x.length - 1;
      if (window_ && !chart.clock) {
        first = Math.max(0, lowerBound(line.x, window_[0]) - 1);
        last = Math.min(last, lowerBound(line.x, window_[1]) + 1);
      }
      for (let at = first; at <= last; at++) {
        made.push({
          l: place, k: line.key, d: line.dataset, x: line.x[at], y: line.y[at],
          lo: line.lo ? line.lo[at] : null, hi: line.hi ? line.hi[at] : null,
        });
      }
    });
    return made;
  }

  function lowerBound(sorted, value) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low;
  }

  async function draw(chart, plot) {
    const points = rows(chart);
    // An axis cannot be drawn around nothing; update() covers a chart whose curves are all taken out.
    const spec = { ...chart.spec, datasets: { points: points.length ? points : rows(chart, true) } };
    // Panels do not stretch: as many as fit beside each other.
    if (chart.panels) spec.columns = Math.max(1, Math.floor(plot.clientWidth / 205));
    const config = data.configs[isDark() ? "dark" : "light"];
    const drawn = await vegaEmbed(plot, spec, { config, renderer: "svg", actions: false, tooltip: false, hover: false, defaultStyle: false });
    plot.querySelector("svg").setAttribute("aria-hidden", "true");
    return drawn.view;
  }

  // Twenty runs have dozens of charts, of which a window shows a few: those first, the others while the page
  // rests. One pass at a time: a later one ends the one before it at its next chart.
  let pass = 0;
  let passes = Promise.resolve();
  // A live page puts its reader back to where he was, which is known once everything above has its height.
  const atOnce = () => document.documentElement.dataset.restoring || (history.state && history.state.reader);
  // Who has just opened the page reads, filters and sorts before anything else is drawn, unless he scrolls to it.
  let settled = false;
  function rest(rested) {
    if (settled) return setTimeout(rested);
    const go = () => { settled = true; rested(); };
    setTimeout(go, 500);
    addEventListener("scroll", go, { once: true });
  }
  function drawAll() {
    const mine = ++pass;
    delete document.documentElement.dataset.drawn;
    return new Promise((shown) => { passes = passes.then(() => drawFrom(mine, shown)); });
  }

  async function drawFrom(mine, shown) {
    views.forEach((view) => view.finalize());
    views.length = 0;
    if (data.fit) data.charts.forEach((_, place) => refresh(null, place));
    // In a closed "More figures" a chart has no width to be drawn at.
    const figures = [...document.querySelectorAll(".chart")].filter((figure) => figure.offsetParent);
    const away = new Map(figures.map((figure) => {
      const box = figure.getBoundingClientRect();
      return [figure, Math.max(0, box.top - innerHeight, -box.bottom)];
    }));
    figures.sort((a, b) => away.get(a) - away.get(b));
    const whole = atOnce();
    for (const figure of figures) {
      if (away.get(figure) > 0 && !whole) {
        shown();
        await new Promise(rest);
      }
      if (mine !== pass) return shown();
      const place = Number(figure.dataset.chart);
      views[place] = await draw(data.charts[place], figure.querySelector(".plot"));
      refresh(views[place], place);
    }
    shown();
    document.documentElement.dataset.drawn = "true";
  }

  function refresh(view, place) {
    const chart = data.charts[place];
    const points = rows(chart);
    document.querySelector(`[data-chart="${place}"]`).classList.toggle("empty", !points.length);
    if (!points.length || !view) return;
    const whole = chart.spec.params.map((param) => param.value);
    // Ten steps of a ticked run must not vanish beside the thousands of one that is not.
    if (data.fit) whole[1] = points.reduce((last, point) => Math.max(last, point.x), 1) * 1.012;
    const shown = window_ && !chart.clock ? window_ : whole;
    view.signal("lo", shown[0]);
    view.signal("hi", shown[1]);
    view.data("points", points).run();
  }

  function update() {
    views.forEach(refresh);
    // Where charts without curves are not shown, one that gets its first has not been drawn.
    if (data.fit) {
      const missing = data.charts.map((_, place) => place).filter((place) => !views[place]);
      missing.forEach((place) => refresh(null, place));
      if (missing.some((place) => rows(data.charts[place]).length)) drawAll();
    }
    if (zoomOut) zoomOut.hidden = !window_;
  }

  // --- legend --------------------------------------------------------------------------------------
  document.querySelectorAll(".key").forEach((button) => button.addEventListener("click", () => {
    const key = button.dataset.key;
    if (hidden.has(key)) hidden.delete(key); else hidden.add(key);
    button.setAttribute("aria-pressed", String(!hidden.has(key)));
    update();
  }));

  // --- zoom and hover ------------------------------------------------------------------------------
  const zoomOut = document.getElementById("zoom-out");
  // Charts by the clock have an axis of their own, and are not zoomed with those over steps.
  const steps = data.charts.filter((chart) => !chart.clock).map((chart) => chart.spec.params.map((param) => param.value));
  const whole = steps.length ? [Math.min(...steps.map((s) => s[0])), Math.max(...steps.map((s) => s[1]))] : [0, 1];
  function zoomTo(range) {
    if (range) {
      let [low, high] = range.map(Math.round);
      low = Math.max(low, whole[0]);
      high = Math.min(high, whole[1]);
      window_ = high - low < 1 || (low <= whole[0] && high >= whole[1]) ? null : [low, high];
    } else {
      window_ = null;
    }
    document.documentElement.dataset.zoom = window_ ? window_.join() : "";
    update();
  }
  document.addEventListener("report-zoom", (event) => zoomTo(event.detail));
  if (zoomOut) zoomOut.addEventListener("click", () => zoomTo(null));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && window_) zoomTo(null); });

  const tip = document.getElementById("tip");
  const short = (value) => {
    if (value === null) return "not finite";
    const size = Math.abs(value);
    if (size !== 0 && (size < 0.001 || size >= 100000)) return value.toExponential(3);
    return String(Number(value.toPrecision(4)));
  };

  function listen(figure, place) {
    const plot = figure.querySelector(".plot");
    const chart = data.charts[place];
    const cursor = document.createElement("div");
    const selection = document.createElement("div");
    cursor.className = "cursor";
    selection.className = "selection";
    let from = null;

    const pixel = (event) => event.clientX - plot.getBoundingClientRect().left;
    const inside = (x) => {
      const left = views[place].origin()[0];
      return Math.min(Math.max(x, left), left + views[place].width());
    };
    const stepAt = (x) => views[place].scale("x").invert(inside(x) - views[place].origin()[0]);
    const pixelOf = (step) => views[place].scale("x")(step) + views[place].origin()[0];

    plot.addEventListener("pointermove", (event) => {
      if (!views[place]) return;
      const x = inside(pixel(event));
      if (from !== null) {
        selection.style.left = `${Math.min(from, x)}px`;
        selection.style.width = `${Math.abs(x - from)}px`;
        if (!selection.isConnected) plot.append(selection);
      }
      const entries = nearest(chart, stepAt(x));
      if (!entries.length) return hide();
      cursor.style.left = `${pixelOf(entries[0].step)}px`;
      if (!cursor.isConnected) plot.append(cursor);
      showTip(event, entries, chart);
    });
    const hide = () => { tip.hidden = true; cursor.remove(); };
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("pointerdown", (event) => {
      if (!views[place] || chart.clock || event.button !== 0 || event.pointerType === "touch") return;
      from = inside(pixel(event));
      plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = inside(pixel(event));
      if (Math.abs(to - from) > 6) zoomTo([stepAt(Math.min(from, to)), stepAt(Math.max(from, to))]);
      from = null;
      selection.remove();
    });
    plot.addEventListener("dblclick", () => zoomTo(null));
    plot.addEventListener("keydown", (event) => {
      const [low, high] = window_ || whole;
      const width = high - low;
      const moves = {
        "+": [low + width / 4, high - width / 4], "=": [low + width / 4, high - width / 4],
        "-": [low - width / 2, high + width / 2],
        ArrowLeft: [low - width / 4, high - width / 4], ArrowRight: [low + width / 4, high + width / 4],
      };
      if (chart.clock || !(event.key in moves)) return;
      event.preventDefault();
      let [a, b] = moves[event.key];
      if (event.key.startsWith("Arrow")) {
        if (!window_) return;
        const shift = Math.max(whole[0] - a, 0) - Math.max(b - whole[1], 0);
        a += shift; b += shift;
      }
      zoomTo([a, b]);
    });
  }

  // Of each curve that is on, the point nearest to a step; only those about as near as the nearest one.
  function nearest(chart, step) {
    const found = [];
    for (const line of chart.lines) {
      if (hidden.has(line.key) || !line.x.length) continue;
      let at = lowerBound(line.x, step);
      if (at === line.x.length || (at > 0 && step - line.x[at - 1] < line.x[at] - step)) at -= 1;
      found.push({ line, step: line.x[at], value: line.y[at], low: line.lo && line.lo[at], high: line.hi && line.hi[at], away: Math.abs(line.x[at] - step) });
    }
    found.sort((a, b) => a.away - b.away);
    return found.slice(0, 12);
  }

  function showTip(event, entries, chart) {
    tip.replaceChildren(...entries.map((entry) => {
      const row = document.createElement("div");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = document.querySelector(`.key[data-key="${CSS.escape(entry.line.key)}"] .swatch`).style.background;
      const value = document.createElement("b");
      value.textContent = short(entry.value) + (entry.low != null ? ` (${short(entry.low)} to ${short(entry.high)})` : "");
      row.append(swatch, `${entry.line.label}, ${chart.clock ? "second" : "step"} ${entry.step.toLocaleString("en")}`, value);
      return row;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - box.height - 4)}px`;
  }

  // --- tables --------------------------------------------------------------------------------------
  document.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        [...body.rows].sort((a, b) => order * compare(a.cells[column], b.cells[column])).forEach((row) => body.append(row));
      });
    });
  });
  function compare(a, b) {
    const value = (cell) => {
      const text = cell.dataset.value ?? cell.textContent.trim();
      const number = Number(text.replaceAll(",", ""));
      return text === "missing" ? -Infinity : Number.isNaN(number) ? text : number;
    };
    const [x, y] = [value(a), value(b)];
    if (typeof x === "number" && typeof y === "number") return x < y ? -1 : x > y ? 1 : 0;
    return String(x).localeCompare(String(y));
  }
  document.querySelectorAll("input[data-table]").forEach((input) => input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/);
    for (const row of document.getElementById(input.dataset.table).tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
    }
  }));
  const openTarget = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  drawAll().then(() => {
    document.querySelectorAll(".chart").forEach((figure) => {
      const place = Number(figure.dataset.chart);
      if (!data.charts[place].panels) listen(figure, place);
    });
    document.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", () => {
      if (details.open && details.querySelector(".chart")) drawAll();
    }));
    document.documentElement.dataset.ready = "true";
    document.dispatchEvent(new Event("report-ready"));
  });
})();
