"use strict";
// Heads of columns become buttons that sort their table. Without this script the tables are as they were made.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const made = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const status = document.getElementById("status");
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim() : Number(cell.dataset.key);
  };
  const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = made.some((row) => row.cells[column].dataset.key !== undefined);
    const absent = (value) => numeric ? typeof value !== "number" : value === "";
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const wanted = order[order.indexOf(before) + 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      let rows = made;
      if (wanted) {
        head.setAttribute("aria-sort", wanted);
        const sign = wanted === "ascending" ? 1 : -1;
        rows = [...made].sort((one, other) => {
          const [a, b] = [key(one, column), key(other, column)];
          if (absent(a) || absent(b)) return absent(a) - absent(b);
          return sign * compare(a, b);
        });
      }
      body.append(...rows);
      status.textContent = wanted ? `Sorted by ${button.textContent}, ${wanted}.` : "In the order in which it was made.";
    });
  });
}
