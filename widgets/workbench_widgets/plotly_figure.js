// Figures of a page are drawn one after the other, and each is seen before the next is drawn.
function inTurn(draw) {
  const before = globalThis.workbenchTurn ?? Promise.resolve();
  const drawn = before.then(draw);
  const seen = drawn.catch(() => {}).then(() => new Promise(done => requestAnimationFrame(() => setTimeout(done))));
  // a page in the background has no frames, and a figure that never says that it is drawn is waited for no longer
  globalThis.workbenchTurn = before.then(() => Promise.race([seen, new Promise(done => setTimeout(done, 100))]));
  return drawn;
}

export default drawnWith((plotly, { model, el }) => {
  let drawing, asked = false, gone = false;
  const plot = el.appendChild(document.createElement("div")); // ipywidgets' layout comes late and takes the height off `el`
  const pick = ({ points: [{ customdata: id, x, y }] }) => model.send({ id, x, y });
  const drawn = () => {
    if (gone) return undefined;
    const names = ["_widget_data", "_widget_layout", "_config"];
    // plotly writes into what it is given, and the model is of all views
    const [data, layout, config] = names.map(name => structuredClone(model.get(name)));
    plot.style.height = `${layout.height}px`; // all of which plotly takes when the page is made narrower
    return plotly.react(plot, data, layout, config);
  };
  const draw = async () => {
    await null; // both parts change in one message: they are drawn when it has been read
    try {
      while (asked && !gone) {
        asked = false;
        await inTurn(drawn);
        if (gone) return;
        plot.removeAllListeners("plotly_click");
        plot.on("plotly_click", pick);
      }
    } finally {
      drawing = undefined;
    }
  };
  const ask = () => {
    asked = true;
    drawing ??= draw();
  };
  const changes = ["change:_widget_data", "change:_widget_layout"];
  changes.forEach(change => model.on(change, ask));
  ask();
  return async () => {
    gone = true;
    changes.forEach(change => model.off(change, ask));
    await drawing?.catch(() => {});
    setTimeout(() => plotly.purge(plot), 1000); // it may be about to answer the mouse
  };
});
