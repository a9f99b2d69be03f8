"use strict";
// Sorting is DataTables'; the filters are its fixed searches. Without this file the page is a plain table.
const element = document.getElementById("table");
if (element) {
  const byId = (id) => document.getElementById(id);
  const none = { top: null, topStart: null, topEnd: null, bottom: null, bottomStart: null, bottomEnd: null };
  const table = new rulezooTables.default(element, { paging: false, autoWidth: false, order: [], layout: none });

  const kept = (text, data, index) => {
    const row = table.row(index).node().dataset;
    const without = [...document.querySelectorAll("input[name=without]:checked")].map((box) => box.value);
    return (
      (!byId("family")?.value || row.family === byId("family").value) &&
      (!byId("ruleset")?.value || row.rulesets.split(" ").includes(byId("ruleset").value)) &&
      without.every((name) => row.without.split(" ").includes(name))
    );
  };
  const show = () => {
    const task = byId("task").value;
    table.columns().every(function () {
      const mine = this.header().dataset.task;
      if (mine !== undefined) this.visible(!task || mine === task, false);
    });
    table.search(byId("search").value).search.fixed("filters", kept).draw();
    byId("count").value = `${table.rows({ search: "applied" }).count()} of ${table.rows().count()} rows`;
  };
  byId("filters").addEventListener("input", show);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").hidden = false;
  show();
}
