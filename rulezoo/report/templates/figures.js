"use strict";
// Figures within a page: what is pointed at or touched tells its name and numbers, and the same rule stands out in every figure.
(() => {
  const note = document.createElement("div");
  note.className = "tip-note";
  note.hidden = true;
  document.body.append(note);

  const leave = () => {
    note.hidden = true;
    for (const one of document.querySelectorAll("svg.figure.pointed")) one.classList.remove("pointed");
    for (const one of document.querySelectorAll("svg.figure .on")) one.classList.remove("on");
  };
  const enter = (mark, event) => {
    leave();
    for (const one of document.querySelectorAll(`svg.figure .tip[data-name="${CSS.escape(mark.dataset.name)}"]`)) {
      one.classList.add("on");
      one.ownerSVGElement.classList.add("pointed");
    }
    note.textContent = mark.dataset.tip;
    note.hidden = false;
    const x = Math.min(event.clientX + 12, document.documentElement.clientWidth - note.offsetWidth - 8);
    const y = event.clientY - note.offsetHeight - 12;
    note.style.left = `${Math.max(8, x)}px`;
    note.style.top = `${y < 4 ? event.clientY + 18 : y}px`;
  };
  for (const type of ["pointermove", "pointerdown"]) {
    document.addEventListener(type, (event) => {
      const mark = event.target.closest?.("svg.figure .tip");
      if (mark) enter(mark, event);
      else if (!note.hidden) leave();
    });
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && leave());
  document.addEventListener("scroll", leave, { passive: true });
})();
