// Lets a reader sort every table of more than two rows by a column.
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

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("article table.docutils").forEach(makeSortable);
});
