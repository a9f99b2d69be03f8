"use strict";
// Every page: the theme, before anything is painted, and buttons that copy commands and BibTeX.
(() => {
  const root = document.documentElement;
  const stored = {
    get: () => { try { return localStorage.getItem("rulezoo-theme") ?? ""; } catch { return ""; } },
    set: (theme) => { try { localStorage.setItem("rulezoo-theme", theme); } catch { /* private windows */ } },
  };
  const apply = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  root.classList.add("js");
  apply(stored.get());

  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  const addCopyButton = (code) => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    button.addEventListener("click", async () => {
      await copy(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    code.after(button);
  };

  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.parentElement.hidden = false;
    select.value = stored.get();
    select.addEventListener("change", () => { stored.set(select.value); apply(select.value); });
    document.querySelectorAll(".command code, pre.bibtex code").forEach(addCopyButton);
  });
})();
