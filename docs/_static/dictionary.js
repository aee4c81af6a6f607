// Filters the rows of the dictionary, and those of the table that lists them.
// Without this script, the page shows all of them and no search field.

document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.dictionary-search");
  if (!form) return;
  const field = form.querySelector("input");
  const count = form.querySelector("output");
  const sections = [...document.querySelectorAll("article section section")]
    .filter((section) => section.querySelector(":scope > section"))
    .map((section) => ({
      element: section,
      rows: [...section.querySelectorAll(":scope > section")].map((row) => ({
        element: row,
        text: row.textContent.toLowerCase(),
      })),
    }));

  // The line of the table that links to each row.
  const lines = new Map();
  for (const line of document.querySelectorAll(".dictionary-overview tbody tr")) {
    const { hash } = line.querySelector("a");
    lines.set(document.getElementById(hash.slice(1)).closest("section"), line);
  }

  function filter() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const section of sections) {
      let any = false;
      for (const row of section.rows) {
        const matches = words.every((word) => row.text.includes(word));
        row.element.hidden = !matches;
        const line = lines.get(row.element);
        if (line) line.hidden = !matches;
        any ||= matches;
        shown += matches;
      }
      section.element.hidden = !any;
    }
    count.textContent = words.length ? `${shown} found` : "";
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", filter);
  // A link to a row that is filtered out shows all rows.
  window.addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target?.closest("section[hidden]")) return;
    field.value = "";
    filter();
    target.scrollIntoView();
  });
  // dictionary.html?q=vmap shows the rows that contain vmap.
  field.value = new URLSearchParams(location.search).get("q") || "";
  form.hidden = false;
  filter();
});
