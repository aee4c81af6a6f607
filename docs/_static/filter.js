// Filters the rows of the dictionary and of the known differences as one types.
//
// A row is a section of the third level, or a part that opens. Without this
// script, a page shows all of them and no search field.

document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.filter");
  if (!form) return;
  const rowsOf = ":scope > section, :scope > details";
  const field = form.querySelector("input");
  const count = form.querySelector("output");
  const sections = [...document.querySelectorAll("article section section")]
    .filter((section) => section.querySelector(rowsOf))
    .map((section) => ({
      element: section,
      rows: [...section.querySelectorAll(rowsOf)].map((row) => ({
        element: row,
        text: row.textContent.toLowerCase(),
      })),
    }));

  // The line of the dictionary's table that links to each row.
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

  // Shows and opens the row that the address names.
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("section[hidden], details[hidden]")) {
      field.value = "";
      filter();
    }
    const part = target.closest("details");
    if (part) part.open = true;
    target.scrollIntoView();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", filter);
  window.addEventListener("hashchange", follow);
  // dictionary.html?q=vmap shows the rows that contain vmap.
  field.value = new URLSearchParams(location.search).get("q") || "";
  form.hidden = false;
  filter();
  if (location.hash) follow();
});
