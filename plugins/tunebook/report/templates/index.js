// Names the ticked runs above the charts, and the command that compares them.
"use strict";
(() => {
  const ticks = [...document.querySelectorAll(".tick")];
  const legend = document.getElementById("ticked");
  const command = document.getElementById("command");
  const on = () => ticks.filter((tick) => tick.getAttribute("aria-pressed") === "true");

  function show() {
    const ticked = on();
    ticks.forEach((tick) => { tick.closest("td").dataset.value = ticked.includes(tick) ? 1 : 0; });
    if (legend) {
      legend.replaceChildren(...ticked.map((tick) => {
        const entry = document.createElement("span");
        entry.className = "entry";
        entry.append(tick.querySelector(".swatch").cloneNode(), tick.dataset.key);
        return entry;
      }));
      if (!ticked.length) legend.textContent = "No run is ticked.";
    }
    if (!command) return;
    command.textContent = `tunebook report ${ticked.map((tick) => tick.dataset.path).join(" ")} -o reports/ticked`;
    command.parentElement.hidden = ticked.length < 2;
  }

  // After report.js, which has drawn or taken out the curves by then.
  ticks.forEach((tick) => tick.addEventListener("click", show));
  const untick = document.getElementById("untick");
  if (untick) untick.addEventListener("click", () => on().forEach((tick) => tick.click()));
  show();
})();
