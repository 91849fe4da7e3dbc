// Plain keys pressed in an explorer stay there: JupyterLab moves between cells and folds sections on them.
// Its attribute `data-lm-suppress-shortcuts` would not help: those shortcuts match whatever has the focus, and lumino
// looks at that before it looks for the attribute above it. It listens on the document, so the body hears keys first.
function keepKeys() {
  const keep = event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // saving and the palette work everywhere,
    if (event.key === "Escape" || (event.key === "Enter" && event.shiftKey)) return; // leaving and running too
    if (event.target.closest?.(".wb-explorer")) event.stopPropagation();
  };
  document.body.addEventListener("keydown", keep);
  return () => document.body.removeEventListener("keydown", keep);
}

// Plots get the width of their place whenever that changes: one that is drawn before it has a place, as in a tab that
// is opened later, is 700 pixels wide, and plotly itself looks again only when the window is resized.
function fitPlots() {
  let asked = 0;
  const fit = () => {
    asked = 0;
    for (const plot of document.querySelectorAll(".wb-explorer .js-plotly-plot")) {
      sizes.observe(plot);
      const drawn = plot._fullLayout;
      const off = plot.clientWidth && drawn?.autosize && Math.abs(drawn.width - plot.clientWidth) > 1;
      if (off && plot.data?.length) plot._responsiveChartHandler?.(); // what plotly does when the window is resized
    }
  };
  const ask = () => { asked ||= setTimeout(fit, 50); };
  const sizes = new ResizeObserver(ask);
  const places = new MutationObserver(ask);
  places.observe(document.body, { childList: true, subtree: true });
  return () => { clearTimeout(asked); sizes.disconnect(); places.disconnect(); };
}

// The heads of folded panels are reached and opened by keys, and say whether they are open: ipywidgets hears clicks only.
function keyFolds() {
  const HEAD = ".wb-explorer .jupyter-widget-Collapse-header";
  const tell = () => {
    for (const head of document.querySelectorAll(HEAD)) {
      const open = head.parentElement.classList.contains("jupyter-widget-Collapse-open");
      Object.assign(head, { tabIndex: 0, role: "button", ariaExpanded: String(open) });
    }
  };
  const clicked = () => setTimeout(tell);
  const press = event => { // an explorer inside a workbench hears it too: one of them is enough
    const head = event.target.closest?.(HEAD);
    if (!head || event.defaultPrevented || event.shiftKey || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    head.click();
  };
  const places = new MutationObserver(tell);
  places.observe(document.body, { childList: true, subtree: true });
  document.body.addEventListener("click", clicked);
  document.body.addEventListener("keydown", press, true);
  return () => {
    places.disconnect();
    document.body.removeEventListener("click", clicked);
    document.body.removeEventListener("keydown", press, true);
  };
}

// The kernel hears when the page has painted what it has and rests: what is not seen yet is sent then.
function tellPainted(model) {
  const tell = () => model.send("painted");
  if (!globalThis.requestIdleCallback) { // as in Safari
    const waiting = setTimeout(tell, 500);
    return () => clearTimeout(waiting);
  }
  let rest = 0; // no callback has this number
  const frame = requestAnimationFrame(() => { rest = requestIdleCallback(tell, { timeout: 2000 }); });
  return () => { cancelAnimationFrame(frame); cancelIdleCallback(rest); };
}

function render({ model }) {
  const ends = [keepKeys(), keyFolds(), fitPlots(), tellPainted(model)];
  return () => ends.forEach(end => end());
}

export default { render };
