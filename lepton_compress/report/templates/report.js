"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("script");

  // Light and dark: the system's choice, until the reader makes one.
  const theme = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remember = (value) => { try { localStorage.setItem("lepton-theme", value); } catch { /* a file may have no storage */ } };
  const remembered = () => { try { return localStorage.getItem("lepton-theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const tell = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  const before = location.hash === "#dark" ? "dark" : remembered();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    tell();
  });
  dark.addEventListener("change", tell);
  tell();

  // One chart at a time: the chosen target's over the chosen cost.
  for (const section of document.querySelectorAll("[data-switch]")) {
    const parts = section.querySelectorAll("[data-target]");
    const chosen = (name, other) => {
      const input = section.querySelector(`input[name$="-${name}"]:checked`);
      return input ? input.value : other;
    };
    const show = () => {
      const target = chosen("target", "0");
      const axes = [...parts].filter((p) => p.dataset.target === target && p.dataset.axis).map((p) => p.dataset.axis);
      const asked = chosen("axis", axes[0]);
      const axis = axes.includes(asked) ? asked : axes[0];
      for (const part of parts) {
        part.hidden = part.dataset.target !== target || Boolean(part.dataset.axis && part.dataset.axis !== axis);
      }
    };
    section.addEventListener("change", show);
    show();
  }

  // Details of a point, for the mouse, a finger and the keyboard.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const explain = (mark) => {
    const name = document.createElement("b");
    name.textContent = mark.dataset.name;
    const said = mark.getAttribute("aria-label").slice(mark.dataset.name.length + 2);
    tip.replaceChildren(name, said.replaceAll("; ", "\n"));
    tip.hidden = false;
    const at = mark.querySelector(".reach").getBoundingClientRect();
    const left = Math.min(Math.max(8, at.right + 6), innerWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 6;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 6}px`;
  };
  for (const mark of document.querySelectorAll(".chart .mark")) {
    for (const event of ["pointerenter", "focus", "click"]) mark.addEventListener(event, () => explain(mark));
    for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, hide);
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });

  // Sorting by a heading: numbers by their value, the rest as text; what has no value stands last.
  const sorted = (rows, column, down) => {
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
    };
    const numbers = rows.some((row) => row.cells[column].dataset.sort !== undefined);
    const key = (row) => (numbers && typeof value(row) !== "number" ? null : value(row));
    return [...rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      const order = numbers ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return down ? -order : order;
    });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      if ([...table.tBodies[0].rows].some((row) => row.cells[column].classList.contains("number"))) heading.classList.add("right");
      heading.firstElementChild.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        table.tBodies[0].replaceChildren(...sorted([...table.tBodies[0].rows], column, down));
      });
    });
  }

  for (const section of document.querySelectorAll("[data-filter]")) {
    section.querySelector(".only-bad").addEventListener("change", (event) => {
      for (const row of section.querySelectorAll("tbody tr")) {
        row.classList.toggle("hidden", event.target.checked && !row.querySelector(".bad"));
      }
    });
  }
})();
