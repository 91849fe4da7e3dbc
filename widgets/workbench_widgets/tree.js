// A tree of tensors after the ARIA pattern: only unfolded rows are in the page.
const MOST = 400; // children of one node drawn at a time
const [PATH, LABEL, PARENT, ABOUT, SIZE, LEAF] = [0, 1, 2, 3, 4, 5];

function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "wb-tree";
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Filter tensors by name";
  search.setAttribute("aria-label", "Filter tensors by name");
  const list = document.createElement("div");
  list.className = "wb-tree-rows";
  list.setAttribute("role", "tree");
  list.setAttribute("aria-label", "Tensors of the checkpoint");
  list.setAttribute("aria-multiselectable", "true");
  box.append(search, list);
  el.append(box);

  let rows = [], children = [], place = new Map(), unfolded = new Set(), shown = new Map(), focus = 0;

  function rebuild() {
    rows = model.get("rows");
    children = rows.map(() => []);
    place = new Map(rows.map((row, index) => [row[PATH], index]));
    rows.forEach((row, index) => { if (row[PARENT] >= 0) children[row[PARENT]].push(index); });
    unfolded = new Set();
    shown = new Map();
    focus = 0;
    search.value = "";
    let node = 0; // a chain of only children hides nothing: unfold it
    while (rows.length && children[node].length) {
      unfolded.add(node);
      if (children[node].length > 1) break;
      node = children[node][0];
    }
    draw();
  }

  function reveal(path) {
    let node = place.get(path);
    if (node === undefined) return;
    focus = node;
    for (let parent = rows[node][PARENT]; parent >= 0; node = parent, parent = rows[node][PARENT]) {
      unfolded.add(parent);
      const needed = children[parent].indexOf(node) + 1;
      if (needed > (shown.get(parent) ?? MOST)) shown.set(parent, needed);
    }
  }

  function drawn() { // what is in the page: the rows that keys can reach
    return visible().slice(0, 4 * MOST);
  }

  function visible() {
    const words = search.value.trim().toLowerCase();
    const found = [];
    if (words) {
      rows.forEach((row, index) => {
        if (row[LEAF] && row[PATH].toLowerCase().includes(words)) found.push([index, 0, row[PATH]]);
      });
      return found;
    }
    const walk = (node, level) => {
      found.push([node, level, rows[node][LABEL]]);
      if (!unfolded.has(node)) return;
      const most = shown.get(node) ?? MOST;
      children[node].slice(0, most).forEach(child => walk(child, level + 1));
      if (children[node].length > most) found.push([node, level + 1, null]); // a row that shows more
    };
    if (rows.length) walk(0, 0);
    return found;
  }

  function span(kind, text) {
    const part = document.createElement("span");
    part.className = `wb-tree-${kind}`;
    part.textContent = text;
    return part;
  }

  function more(text, level, node = null) {
    const line = document.createElement("div");
    line.className = "wb-tree-more";
    line.textContent = text;
    line.setAttribute("role", "treeitem");
    line.setAttribute("aria-level", level + 1);
    line.tabIndex = -1;
    if (node !== null) {
      line.dataset.more = rows[node][PATH];
      line.tabIndex = focus === ~node ? 0 : -1;
      line.onfocus = () => { focus = ~node; };
      line.onclick = () => extend(node);
    }
    return line;
  }

  function extend(node) {
    const before = shown.get(node) ?? MOST;
    shown.set(node, before + MOST);
    focus = children[node][before];
    draw(true);
  }

  function draw(refocus = list.contains(document.activeElement)) {
    const chosen = new Set(model.get("value")), marks = model.get("marks");
    const found = visible(), inside = drawn();
    const key = ([node, , name]) => (name === null ? ~node : node); // ~node is the row that shows more of node
    if (!inside.some(one => key(one) === focus)) focus = inside.length ? key(inside[0]) : 0;
    const lines = inside.map(([node, level, name]) => {
      if (name === null) {
        const rest = children[node].length - (shown.get(node) ?? MOST);
        return more(`show ${Math.min(MOST, rest)} of ${rest} more`, level, node);
      }
      const [path, , , about, size] = rows[node];
      const line = document.createElement("div");
      line.className = "wb-tree-row";
      line.dataset.path = path;
      line.title = `${path || rows[0][LABEL]}: ${about}, ${size}`;
      line.setAttribute("role", "treeitem");
      line.setAttribute("aria-level", level + 1);
      const siblings = rows[node][PARENT] < 0 || search.value.trim() ? null : children[rows[node][PARENT]];
      line.setAttribute("aria-setsize", siblings ? siblings.length : 1);
      line.setAttribute("aria-posinset", siblings ? siblings.indexOf(node) + 1 : 1);
      line.setAttribute("aria-selected", chosen.has(path));
      line.tabIndex = node === focus ? 0 : -1;
      line.style.paddingLeft = `${2 + 14 * level}px`;
      const folds = children[node].length && !search.value.trim();
      if (folds) line.setAttribute("aria-expanded", unfolded.has(node));
      const fold = span("fold", folds ? (unfolded.has(node) ? "▾" : "▸") : "");
      fold.onclick = event => { event.stopPropagation(); toggle(node); };
      line.append(fold, span("name", name));
      if (marks[path]) line.append(span("mark", marks[path]));
      line.append(span("about", about), span("size", size));
      line.onfocus = () => { focus = node; }; // a screen reader puts it where it likes
      line.onclick = event => choose(node, event.ctrlKey || event.metaKey);
      line.ondblclick = () => toggle(node);
      return line;
    });
    if (found.length > inside.length) lines.push(more(`… ${found.length - inside.length} more: narrow the filter`, 0));
    if (!found.length && rows.length) lines.push(more("no tensor has this in its name", 0));
    list.replaceChildren(...lines);
    if (refocus) list.querySelector("[tabindex='0']")?.focus();
  }

  function toggle(node) {
    if (!children[node].length) return;
    unfolded.has(node) ? unfolded.delete(node) : unfolded.add(node);
    draw(true);
  }

  function choose(node, many) {
    focus = node;
    const path = rows[node][PATH], value = model.get("value");
    const others = value.filter(other => other !== path);
    model.set("value", many ? (others.length < value.length ? others : [...value, path]) : [path]);
    model.save_changes();
    draw(true);
  }

  list.onkeydown = event => {
    const items = drawn().map(([node, , name]) => (name === null ? ~node : node));
    const at = items.indexOf(focus), folds = children[focus]?.length;
    const enter = () => (focus < 0 ? extend(~focus) : choose(focus, event.ctrlKey || event.metaKey));
    const to = node => { if (node !== undefined) { focus = node; draw(true); } };
    const keys = {
      ArrowDown: () => to(items[at + 1]),
      ArrowUp: () => to(items[at - 1]),
      Home: () => to(items[0]),
      End: () => to(items[items.length - 1]),
      ArrowRight: () => { if (folds) unfolded.has(focus) ? to(children[focus][0]) : toggle(focus); },
      ArrowLeft: () => {
        if (folds && unfolded.has(focus)) return toggle(focus);
        const parent = focus < 0 ? ~focus : rows[focus][PARENT];
        if (parent >= 0) to(parent);
      },
      Enter: enter,
      " ": enter,
    };
    if (!keys[event.key]) return;
    event.preventDefault(); // and JupyterLab leaves the key alone
    keys[event.key]();
  };
  search.oninput = () => draw(false);

  model.on("change:rows", rebuild);
  model.on("change:marks", () => draw());
  model.on("change:value", () => {
    const value = model.get("value");
    if (value.length === 1 && value[0] !== rows[focus]?.[PATH]) {
      reveal(value[0]);
      draw();
      list.querySelector("[aria-selected='true']")?.scrollIntoView({ block: "nearest" });
    } else draw();
  });
  rebuild();
}

export default { render };
