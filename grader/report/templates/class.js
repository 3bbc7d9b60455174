"use strict";
// Sorting, searching and opening. Without this the page shows everything, in the order of the names.
(() => {
  const table = document.getElementById("table"), bodies = [...table.tBodies];
  const [search, question, status, flag] = ["search", "question", "status", "flag"].map(id => document.getElementById(id));
  const columns = [...table.tHead.rows[0].cells];

  const opener = body => body.querySelector("button.name");
  const isOpen = body => body.rows[1].classList.contains("open");
  const open = (body, wanted) => {
    body.rows[1].classList.toggle("open", wanted);
    opener(body).setAttribute("aria-expanded", wanted);
  };
  for (const body of bodies) {
    const name = body.querySelector(".name"), button = document.createElement("button");
    button.type = "button";
    button.className = "name";
    button.append(...name.childNodes);
    button.addEventListener("click", () => open(body, !isOpen(body)));
    body.rows[1].id = "m-" + body.id.slice(2);
    button.setAttribute("aria-controls", body.rows[1].id);
    button.setAttribute("aria-expanded", false);
    name.replaceWith(button);
  }

  // ---- sort
  const value = (body, by, at) => {
    if (by === "name") return opener(body).textContent;
    if (by === "score" || by === "hand") return Number(body.dataset[by]);
    const points = body.rows[0].cells[at]?.dataset.points;
    return points === undefined ? -1 : Number(points);
  };
  const sort = (header, at) => {
    const by = header.dataset.by, upwards = header.getAttribute("aria-sort");
    const order = upwards === null ? (by === "name" ? 1 : -1) : upwards === "ascending" ? -1 : 1;
    const compare = by === "name"
      ? new Intl.Collator(undefined, { numeric: true }).compare
      : (a, b) => a - b;
    const keyed = bodies.map(body => [value(body, by, at), body]);
    keyed.sort((a, b) => order * compare(a[0], b[0]));
    columns.forEach(column => column.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
    table.append(...keyed.map(pair => pair[1]));
  };
  columns.forEach((header, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header, at));
  });

  // ---- search and filter
  const texts = new Map();
  const text = body => {
    if (!texts.has(body)) texts.set(body, body.textContent.toLowerCase());
    return texts.get(body);
  };
  const fits = (cell, wanted) =>
    wanted === "not passed" ? !cell.classList.contains("passed") : wanted === "" || cell.classList.contains(wanted);
  const wantedStatus = body => {
    if (!question.value && !status.value) return true;
    const cells = [...body.rows[0].cells].filter((cell, at) =>
      cell.dataset.points !== undefined && (!question.value || columns[at].dataset.by === question.value));
    return cells.some(cell => fits(cell, status.value));
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const body of bodies) {
      const wanted = (!flag.value || body.dataset.flags.split(" ").includes(flag.value))
        && wantedStatus(body) && words.every(word => text(body).includes(word));
      body.hidden = !wanted;
      shown += wanted;
    }
    document.getElementById("shown").value = `${shown} of ${bodies.length} student${bodies.length === 1 ? "" : "s"}`;
  };
  const clear = () => {
    for (const control of [search, question, status, flag]) control.value = "";
    filter();
  };
  search.addEventListener("input", filter);
  for (const control of [question, status, flag]) control.addEventListener("change", filter);
  document.getElementById("clear").addEventListener("click", clear);

  // ---- links to students
  const show = hash => {
    const body = /^#s-\d+$/.test(hash) && document.getElementById(hash.slice(1));
    if (!body) return;
    if (body.hidden) clear();
    open(body, true);
    opener(body).focus({ preventScroll: true });
    body.scrollIntoView({ block: "center" });
  };
  document.addEventListener("click", event => {
    const link = event.target.closest('a[href^="#s-"]');
    if (!link) return;
    event.preventDefault();
    history.replaceState(null, "", link.hash);
    show(link.hash);
  });
  addEventListener("hashchange", () => show(location.hash));
  filter();
  show(location.hash);
})();
