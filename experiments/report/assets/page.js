"use strict";
(() => {
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = JSON.parse(document.getElementById("dark").textContent);
  const specOf = (id) => JSON.parse(document.getElementById(id).textContent);

  async function draw() {
    for (const place of document.querySelectorAll(".plot")) {
      const spec = specOf(place.dataset.spec);
      if (scheme.matches) spec.config = dark;
      const binds = place.closest("figure").querySelector(".binds");
      binds.replaceChildren();
      try {
        await vegaEmbed(place, spec, {
          actions: false, renderer: "svg", bind: binds, tooltip: { theme: scheme.matches ? "dark" : "light" },
        });
      } catch (error) {
        place.textContent = "This figure could not be drawn: " + error.message;
      }
    }
    document.documentElement.dataset.drawn = "yes";
  }
  draw();
  scheme.addEventListener("change", draw);

  for (const button of document.querySelectorAll("[data-svg]")) {
    button.addEventListener("click", async () => {
      // Drawn once more, out of sight: on paper the figure is light, whatever the screen shows.
      const spec = specOf("spec-" + button.dataset.svg);
      const { view } = await vegaEmbed(document.createElement("div"), spec, { actions: false });
      const svg = await view.toSVG();
      view.finalize();
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
      link.download = button.dataset.svg + ".svg";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  for (const table of document.querySelectorAll(".table")) {
    const select = table.querySelector("select");
    const bodies = [...table.querySelectorAll("tbody")];
    if (select) {
      const show = () => bodies.forEach((b) => { b.hidden = b.dataset.choice !== select.value; });
      select.addEventListener("change", show);
      show();
    }
    table.querySelectorAll("th").forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.children[column].dataset.order;
        const numeric = (text) => text !== "" && !Number.isNaN(Number(text));
        bodies.forEach((body) => {
          const rows = [...body.rows].sort((a, b) => {
            const [x, y] = [key(a), key(b)];
            if (x === "" || y === "") return (x === "") - (y === "");  // what is missing stays last
            const order = numeric(x) && numeric(y) ? Number(x) - Number(y) : x.localeCompare(y);
            return up ? order : -order;
          });
          body.append(...rows);
        });
      });
    });
  }
})();
