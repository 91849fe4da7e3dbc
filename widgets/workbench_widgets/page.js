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

// Looks at the page soon after anything in it has changed, also as `more` says, and once at first.
function watched(look, more = {}) {
  let asked = 0;
  const ask = () => { asked ||= setTimeout(() => { asked = 0; look(); }, 50); };
  const changes = new MutationObserver(ask);
  changes.observe(document.body, { childList: true, subtree: true, ...more });
  ask();
  return { ask, end: () => { clearTimeout(asked); changes.disconnect(); } };
}

// Plots get the width of their place whenever that changes: one that is drawn before it has a place, as in a tab that
// is opened later, is 700 pixels wide, and plotly itself looks again only when the window is resized.
function fitPlots() {
  const fit = () => {
    for (const plot of document.querySelectorAll(".wb-explorer .js-plotly-plot")) {
      sizes.observe(plot);
      const drawn = plot._fullLayout;
      const off = plot.clientWidth && drawn?.autosize && Math.abs(drawn.width - plot.clientWidth) > 1;
      if (off && plot.data?.length) plot._responsiveChartHandler?.(); // what plotly does when the window is resized
    }
  };
  const places = watched(fit);
  const sizes = new ResizeObserver(places.ask);
  return () => { places.end(); sizes.disconnect(); };
}

// The heads of folded panels are reached and opened by keys, and say whether they are open: ipywidgets hears clicks only.
function keyFolds() {
  const HEAD = ".wb-explorer .jupyter-widget-Collapse-header";
  const tell = () => {
    for (const head of document.querySelectorAll(HEAD)) {
      const open = String(head.parentElement.classList.contains("jupyter-widget-Collapse-open"));
      if (head.getAttribute("aria-expanded") === open) continue;
      head.tabIndex = 0;
      head.setAttribute("role", "button");
      head.setAttribute("aria-expanded", open);
    }
  };
  const press = event => {
    const head = event.target.closest?.(HEAD);
    if (!head || !["Enter", " "].includes(event.key) || event.defaultPrevented) return; // another explorer's has done it
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return; // JupyterLab's
    event.preventDefault();
    if (!event.repeat) head.click();
  };
  const places = watched(tell, { attributeFilter: ["class"] });
  document.body.addEventListener("keydown", press, true);
  return () => {
    places.end();
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
