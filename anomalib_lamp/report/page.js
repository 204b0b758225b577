// Sorting and filtering of the tables. Without this script the page shows the same, unsorted.
"use strict";

const collator = new Intl.Collator("en", { numeric: true });

/** Return what a cell is sorted by: its number, or its text. */
function key(cell) {
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

/** Compare two keys; what is not a number comes last among numbers, whichever way they go. */
function order(a, b, direction, numeric) {
  if (!numeric) return direction * collator.compare(a, b);
  if (typeof a !== "number" || typeof b !== "number") return (typeof a !== "number") - (typeof b !== "number");
  return direction * (a - b);
}

/** Sort a table by a column: upwards first, downwards when it is sorted upwards already. */
function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const numeric = head.classList.contains("number");
  const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, key: key(row.cells[column]) }));
  rows.sort((a, b) => order(a.key, b.key, direction, numeric));
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

/** Make the heads of a table buttons that sort it. */
function makeSortable(table) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.setAttribute("aria-sort", "none");
    head.append(button);
  });
}

/** Put a field above a table that hides the rows without the words typed into it. */
function makeFilterable(table) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "Filter rows";
  field.setAttribute("aria-label", `Filter rows of ${table.caption.textContent}`);
  const count = document.createElement("output");
  const rows = Array.from(table.tBodies[0].rows);
  count.textContent = `${rows.length} rows`;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  });
  const bar = document.createElement("div");
  bar.className = "filter";
  bar.append(field, count);
  table.parentElement.before(bar);
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length > 1) makeSortable(table);
  if (table.tBodies[0].rows.length > 15) makeFilterable(table);
}
