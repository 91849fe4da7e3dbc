// plotly's code is 5 MB. Its own widget brings it along with every figure; here a page has it once, for each version,
// from the one widget of the kernel that holds it.
const loaded = (globalThis.workbenchPlotly ??= new Map());

async function library(model) {
  const source = await model.widget_manager.get_model(model.get("_library").slice("IPY_MODEL_".length));
  const version = source.get("version");
  if (!loaded.has(version)) {
    loaded.set(version, import(URL.createObjectURL(new Blob([source.get("code")], { type: "text/javascript" }))));
  }
  return (await loaded.get(version)).default;
}

export default () => {
  let make;
  return {
    async initialize({ model }) {
      make = await library(model);
      make().initialize({ model }); // keeps what the model says of the figure
    },
    // plotly lets every view listen as long as the model lives: what a view that is gone does with its empty element
    // raises, and the views after it would not hear of the change. So a view listens as itself, which ends with it.
    render({ model, el, signal }) {
      if (signal?.aborted) return undefined;
      let viewing = false;
      const view = make();
      view.initialize({ model: { ...model, on: (...heard) => viewing && model.on(...heard) } });
      viewing = true;
      const end = view.render({ el });
      return () => setTimeout(end, 5000); // it empties the element, in which plotly may be drawing still
    },
  };
};
