// itables tells the kernel of a click twice, first that no row is selected and then which one is, and selects the rows
// anew that it has selected itself: a figure would be drawn for both.
function toldOnce(model) {
  let own = false, later;
  return {
    get: name => structuredClone(model.get(name)), // itables writes functions into what it is given
    off: (...args) => model.off(...args),
    on: (event, heard) => model.on(event, event === "change:selected_rows" ? (...args) => own || heard(...args) : heard),
    set: (...args) => {
      own = true;
      model.set(...args);
      own = false;
    },
    save_changes: () => {
      later ??= Promise.resolve().then(() => { // both are told while one click is answered
        later = undefined;
        model.save_changes();
      });
    },
  };
}

// Hundreds of rows take longer than the controls above them, which are seen first.
const idle = () => new Promise(done => {
  if (globalThis.requestIdleCallback) requestIdleCallback(done, { timeout: 1000 });
  else setTimeout(done); // as in Safari
});

// DataTables remembers every table that it made, with its rows, until it is told to forget it.
function forget(tables) {
  const known = globalThis.$?.fn?.dataTable; // itables puts it there
  for (const table of tables) {
    if (known?.isDataTable(table)) new known.Api(table).destroy(true);
  }
}

export default drawnWith((itables, { model, el }) => {
  itables.render({ model: toldOnce(model), el });
  return () => {
    const tables = [...el.querySelectorAll("table")];
    return idle().then(() => forget(tables));
  };
}, idle);
