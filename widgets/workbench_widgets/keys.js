// Plain keys pressed in an explorer stay there: JupyterLab moves between cells and folds sections on them.
// Its attribute `data-lm-suppress-shortcuts` would not help: those shortcuts match whatever has the focus, and lumino
// looks at that before it looks for the attribute above it. It listens on the document, so the body hears keys first.
function render() {
  const keep = event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // saving and the palette work everywhere,
    if (event.key === "Escape" || (event.key === "Enter" && event.shiftKey)) return; // leaving and running too
    if (event.target.closest?.(".wb-explorer")) event.stopPropagation();
  };
  document.body.addEventListener("keydown", keep);
  return () => document.body.removeEventListener("keydown", keep);
}

export default { render };
