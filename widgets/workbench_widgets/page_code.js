// Libraries that widgets draw with, each 0.6 to 5 MB: a page has one once, from the one widget of the kernel that holds
// its code, and not with every widget that uses it.
const loaded = (globalThis.workbenchCode ??= new Map());

function imported(name, code) {
  if (!loaded.has(name)) {
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    const module = import(address).finally(() => URL.revokeObjectURL(address));
    loaded.set(name, module);
    module.catch(() => loaded.delete(name)); // the next widget tries again
  }
  return loaded.get(name);
}

async function library(model) {
  const source = await model.widget_manager.get_model(model.get("_library").slice("IPY_MODEL_".length));
  return (await imported(source.get("name"), source.get("code"))).default;
}

// A widget that is drawn by `render(library, props)` when its turn has come, as `turn()` promises; without its library it
// says so where it would stand.
function drawnWith(render, turn = async () => {}) {
  return {
    render(props) {
      let gone = false, end;
      const missing = error => { // a page that was opened again may not know the widgets of its kernel
        const why = `what this widget is drawn with is not on this page (${error.message})`;
        props.el.textContent = `${why}: restart the kernel and run the cells again`;
      };
      const draw = async () => {
        await turn();
        const found = gone || (await library(props.model).catch(missing));
        if (found && !gone) end = render(found, props);
      };
      const drawn = draw();
      return async () => {
        gone = true;
        await drawn;
        await end?.();
      };
    },
  };
}
