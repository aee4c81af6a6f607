// Lets a reader sort every table of more than two rows by a column, and stacks
// the cells of a row where the window is too narrow for the table.
//
// A click on a heading sorts by that column, a second one in the other
// direction. Cells that start with a number are sorted as numbers.

const NUMBER = /^[<>≤~×]?\s*([-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)/i;

function value(row, column) {
  const text = row.cells[column]?.textContent.trim() ?? "";
  const match = text.replaceAll("−", "-").match(NUMBER);
  return match ? Number(match[1].replaceAll(",", "")) : text.toLowerCase();
}

function compare(left, right) {
  if (typeof left === typeof right) {
    return left < right ? -1 : left > right ? 1 : 0;
  }
  return typeof left === "number" ? -1 : 1; // numbers before text
}

function sort(table, heading, column) {
  const descending = heading.ariaSort === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.ariaSort = descending ? "descending" : "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows].sort(
    (a, b) => compare(value(a, column), value(b, column)) * (descending ? -1 : 1)
  );
  body.append(...rows);
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const rows = [...(body?.rows ?? [])];
  const spans = rows.some((row) => [...row.cells].some((cell) => cell.colSpan > 1 || cell.rowSpan > 1));
  if (!table.tHead || rows.length < 3 || spans) return;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.className = "sort";
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading, column));
    heading.append(button);
  });
}

// A stacked cell shows the heading of its column. Without this script, a table
// that is too wide scrolls sideways.
function labelCells(table) {
  const titles = [...(table.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.textContent.trim());
  for (const row of table.tBodies[0]?.rows ?? []) {
    [...row.cells].forEach((cell, column) => {
      cell.dataset.title = titles[column] ?? "";
      cell.classList.toggle("blank", !cell.textContent.trim());
    });
  }
}

function isTooWide(table) {
  const room = table.parentElement.clientWidth;
  return room > 0 && table.scrollWidth > room + 1;
}

function fit(table) {
  table.classList.remove("compact", "stacked");
  if (!isTooWide(table)) return;
  table.classList.add("compact");
  if (!isTooWide(table)) return;
  table.classList.replace("compact", "stacked");
}

document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll("article table.docutils")];
  tables.forEach(labelCells);
  tables.forEach(makeSortable);
  const narrow = window.matchMedia("(max-width: 46em)");
  const arrange = () => tables.forEach((table) => {
    if (narrow.matches) fit(table);
    else table.classList.remove("compact", "stacked");
  });
  window.addEventListener("resize", arrange);
  // A table in a closed part of the page has no width until it is opened.
  document.querySelectorAll("article details").forEach((details) => {
    details.addEventListener("toggle", arrange);
  });
  arrange();
});
