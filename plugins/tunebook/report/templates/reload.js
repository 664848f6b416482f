// Loads the page of a live run again, and puts a reader back where he was: scroll, zoom, legend, tables, details.
"use strict";
(() => {
  const root = document.documentElement;
  const banner = document.querySelector(".live");
  const all = (selector) => [...document.querySelectorAll(selector)];
  // What stays the same when rows and charts come in between, and whether a chart is drawn yet or not: the section
  // or figure it is in, and its kind.
  const name = (element) => element.id || `${(element.closest("[id]") || root).id}|${element.classList[0] || ""}|${element.tagName}`;
  let paused = false;

  function place() {
    const focus = document.activeElement === document.body ? null : document.activeElement;
    return {
      y: scrollY,
      off: all('.key[aria-pressed="false"]').map((button) => button.dataset.key),
      zoom: root.dataset.zoom || "",
      open: all("details").map((one) => [name(one), one.open]),
      filters: all("input[data-table]").map((input) => [input.dataset.table, input.value]),
      sorts: all("table.sortable").flatMap((table, place) => {
        const column = [...table.tHead.rows[0].cells].findIndex((head) => head.hasAttribute("aria-sort"));
        return column < 0 ? [] : [[place, column, table.tHead.rows[0].cells[column].getAttribute("aria-sort")]];
      }),
      scrolls: all(".scroll").map((one) => [one.scrollLeft, one.scrollTop]),
      focus: focus ? [name(focus), focus.textContent] : null,
      paused,
    };
  }

  function scroll(to) {
    scrollTo({ top: to.y, behavior: "instant" });
  }

  function restore(to) {
    all(".key").filter((button) => to.off.includes(button.dataset.key) === (button.getAttribute("aria-pressed") === "true"))
      .forEach((button) => button.click());
    if (to.zoom) document.dispatchEvent(new CustomEvent("report-zoom", { detail: to.zoom.split(",").map(Number) }));
    const open = new Map(to.open);
    all("details").forEach((one) => { if (open.has(name(one))) one.open = open.get(name(one)); });
    for (const [table, value] of to.filters) {
      const input = document.querySelector(`input[data-table="${CSS.escape(table)}"]`);
      if (input && value) { input.value = value; input.dispatchEvent(new Event("input")); }
    }
    for (const [place, column, order] of to.sorts) {
      const head = all("table.sortable")[place]?.tHead.rows[0].cells[column];
      for (let click = 0; click < 2 && head && head.getAttribute("aria-sort") !== order; click++) head.querySelector("button").click();
    }
    all(".scroll").forEach((one, place) => { [one.scrollLeft, one.scrollTop] = to.scrolls[place] || [0, 0]; });
    const focus = to.focus && all("a, button, input, summary, [tabindex]").filter((one) => name(one) === to.focus[0]);
    const found = focus && (focus.find((one) => one.textContent === to.focus[1]) || (focus.length === 1 ? focus[0] : null));
    if (found) found.focus({ preventScroll: true });
    if (to.paused && banner) pause();
    // Charts in opened details are drawn only now, which moves what lies below them.
    requestAnimationFrame(() => scroll(to));
  }

  const kept = history.state && history.state.reader;
  if (kept) {
    root.dataset.restoring = "true";
    history.scrollRestoration = "manual";
    // Once: who loads the page again himself later is left to the browser.
    history.replaceState({ ...history.state, reader: null }, "");
    scroll(kept);
    if (root.dataset.ready) restore(kept); else document.addEventListener("report-ready", () => restore(kept), { once: true });
  }
  if (!banner) return;

  // --- a live page ---------------------------------------------------------------------------------
  const every = Number(banner.dataset.every) * 1000;
  const checked = Date.parse(banner.dataset.checked);
  const loaded = performance.now();
  let drawn = loaded;
  const age = banner.querySelector(".age");
  const button = document.getElementById("pause");
  let pressed = false;
  addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressed = false; });

  function pause() {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    banner.classList.toggle("paused", paused);
  }
  button.addEventListener("click", pause);

  // Not for ever: a selection that was forgotten must not stop the page.
  let typed = -Infinity, selected = -Infinity;
  addEventListener("keydown", () => { typed = performance.now(); });
  document.addEventListener("selectionchange", () => { selected = performance.now(); });
  const within = (time, seconds) => performance.now() - time < seconds * 1000;
  const reads = () => pressed || document.hidden || within(typed, 5) || (!getSelection().isCollapsed && within(selected, 60));
  function tick() {
    const seconds = Math.max(0, Math.round((Date.now() - checked) / 1000));
    const stale = seconds * 1000 > 3 * every + 20000;
    age.textContent = stale ? `, ${seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} ago: nobody seems to make this page any more` : ` (${seconds} s ago)`;
    banner.classList.toggle("stale", stale);
    // From when all is drawn: on a busy machine a page that loads again before would never get there.
    if (!root.dataset.drawn && within(loaded, 60)) drawn = performance.now();
    if (paused || reads() || performance.now() - drawn < every) return;
    history.replaceState({ ...history.state, reader: place() }, "");
    location.reload();
  }
  tick();
  setInterval(tick, Math.min(1000, every / 2));
  document.addEventListener("visibilitychange", tick);
})();
