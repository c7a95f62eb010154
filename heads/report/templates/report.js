// Draws the charts of the page in the metric, theme and width of the moment. `vegaEmbed` comes from the bundle above.
const page = JSON.parse(document.getElementById("charts").textContent);
const places = [...document.querySelectorAll("[data-chart]")];
const wide = matchMedia("(min-width: 700px)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
let chosen = null; // the reader's own choice of a theme; null: the system's
let drawing = 0;

const isDark = () => (chosen === null ? dark.matches : chosen === "dark");
const metric = () => document.querySelector("input[name=metric]:checked").value;

async function draw() {
  const turn = ++drawing;
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  button.setAttribute("aria-pressed", String(isDark()));
  for (const place of places) {
    const specs = page.specs[place.dataset.chart];
    const spec = (specs[metric()] ?? specs[""])[wide.matches ? "wide" : "narrow"];
    const config = { ...page.configs[isDark() ? "dark" : "light"], background: "transparent" };
    await vegaEmbed(place, spec, { renderer: "svg", config, actions: { export: true, source: false, compiled: false, editor: false }, tooltip: { theme: isDark() ? "dark" : "light" } });
    if (turn !== drawing) return; // another choice was made meanwhile
  }
  document.documentElement.dataset.drawn = String(turn);
}

for (const input of document.querySelectorAll("input[name=metric]")) input.addEventListener("change", draw);
button.addEventListener("click", () => { chosen = isDark() ? "light" : "dark"; draw(); });
dark.addEventListener("change", draw);
wide.addEventListener("change", draw);

for (const copy of document.querySelectorAll(".copy")) {
  copy.addEventListener("click", async () => {
    const text = copy.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch { // not allowed here: select it, so that a key copies it
      const range = document.createRange();
      range.selectNodeContents(text);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
}

draw();
