// Serves the theme, the sorting of tables and the filters of disagreements.
"use strict";
(() => {
  // --- theme ---------------------------------------------------------------------------------------
  const themes = ["auto", "light", "dark"];
  const store = {
    get: () => { try { return localStorage.getItem("tunebook-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("tunebook-theme", value); } catch { /* file: pages may have no storage */ } },
  };
  const button = document.getElementById("theme");
  let theme = themes.includes(store.get()) ? store.get() : "auto";
  function applyTheme() {
    document.documentElement.dataset.theme = theme;
    button.textContent = theme[0].toUpperCase() + theme.slice(1);
    button.setAttribute("aria-label", `Colour theme: ${theme === "auto" ? "automatic" : theme}`);
  }
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    store.set(theme);
    applyTheme();
  });
  applyTheme();

  // --- tables --------------------------------------------------------------------------------------
  const valueOf = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text.replaceAll(",", ""));
    return text === "" || Number.isNaN(number) ? text : number;
  };
  function compare(a, b) {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (typeof x === "number" && typeof y === "number") return x - y;
    return String(x).localeCompare(String(y));
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = table.querySelectorAll("thead th");
    heads.forEach((head, column) => {
      const sort = document.createElement("button");
      sort.type = "button";
      sort.textContent = head.textContent;
      head.replaceChildren(sort);
      sort.addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((a, b) => order * compare(a.cells[column], b.cells[column])));
      });
    });
  });

  // --- filters -------------------------------------------------------------------------------------
  document.querySelectorAll(".filters").forEach((filters) => {
    const rows = [...document.getElementById(filters.dataset.table).tBodies[0].rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const [text, kind, reference] = ["text", "kind", "reference"].map((name) => filters.querySelector(`[name=${name}]`));
    const shown = filters.querySelector("output");
    function update() {
      const words = text.value.toLowerCase().split(/\s+/);
      let count = 0;
      for (const row of rows) {
        row.hidden = !(
          (!kind.value || row.dataset.kind === kind.value)
          && (!reference || !reference.value || row.dataset.reference === reference.value)
          && words.every((word) => texts.get(row).includes(word))
        );
        count += !row.hidden;
      }
      shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
    }
    filters.addEventListener("input", update);
    update();
  });
  document.documentElement.dataset.ready = "true";
})();
