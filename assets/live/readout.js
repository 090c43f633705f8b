// The words around the curves: values at the crosshair, what the symbols mean, where stopping rules would stop.

const LEARNED_WORDS = {
  learning: "What learning from the examples makes smaller, before iteration 0; it differs between methods",
  left_out: "How well the prior could draw an example that it did not learn: once this falls, press “Learned enough”",
};

/** One line over the plot: all methods at the crosshair, or else the convention behind the numbers. */
function updateReadout(view) {
  const { state, metric, refs } = view;
  const position = view.hover ?? view.position;
  if (!position || !view.geometry) {
    const seeds = [...state.curves.values()].some((curve) => curve.low.length) ? "; line: median over the seeds, band: their range" : "";
    const words = metric === "psnr" ? state.convention + seeds : metric === "residual" ? "Residual: root mean square of A x̂ − y, in units of the measurement" : metric === "objective" ? (state.metric === "objective" ? "The same objective in every lane: heights can be compared" : "Objectives differ between methods: compare shapes, not heights") : LEARNED_WORDS[metric] ?? "";
    if (refs.readout.dataset.text !== words) { refs.readout.dataset.text = words; refs.readout.replaceChildren(words); refs.readout.title = words; }
    return;
  }
  const parts = [position.axis === "iteration" ? `it ${count(position.value)}` : duration(position.value)];
  state.lanes.slice(0, 4).forEach((lane, index) => {
    const point = pointAt(state, lane.id, metric, iterationAt(state, lane.id, position));
    const name = make("b", "", lane.name ?? "");
    name.style.color = `var(--np-lane-${index})`;
    parts.push(" ", name, ` ${!point ? NONE : metric === "psnr" ? `${fixed(point[2], 2)} dB` : metric === "ssim" ? fixed(point[2], 3) : compact(point[2])}`);
  });
  delete refs.readout.dataset.text;
  refs.readout.title = "";
  refs.readout.replaceChildren(...parts);
}

/** What the symbols mean: only those that are drawn. */
function updateKey(view) {
  const kinds = view.geometry ? Object.keys(KEY_SHAPES).filter((kind) => allMarks(view).some((mark) => mark.kind === kind)) : [];
  if (view.refs.key.dataset.kinds === kinds.join()) return;
  view.refs.key.dataset.kinds = kinds.join();
  view.refs.key.innerHTML = kinds.map((kind) => { const [shape, filled, words] = KEY_SHAPES[kind]; return `<span><svg viewBox="0 0 9 9" aria-hidden="true"><path d="${shape}" fill="${filled ? "currentColor" : "none"}" stroke="currentColor"/></svg>${words}</span>`; }).join("");
}

/** Rules by methods: which iterate each rule stands for, and what it loses against the best one. Rows are there before the race starts. */
function updateStops(view) {
  const { refs, state } = view;
  const rules = state.rules;
  const key = JSON.stringify([rules, state.marks.filter((mark) => mark.kind === "stop"), state.lanes.map((lane) => [lane.name, lane.state, lane.total]), state.type]);
  if (view.stopsKey === key) return;
  view.stopsKey = key;
  refs.stops.hidden = !rules.length;
  setText(refs.stopsCaption, `Where each stopping rule would stop${hasTruth(state) ? ", and what it loses against the best iterate" : ""}`);
  const head = state.lanes.slice(0, 4).map((lane, index) => { const cell = make("th", "", lane.name ?? ""); cell.scope = "col"; cell.style.setProperty("--lane", `var(--np-lane-${index})`); return cell; });
  refs.stopsHead.replaceChildren(make("tr", "", make("th", "", "Rule"), ...head));
  refs.stopsBody.replaceChildren(...rules.map((rule) => {
    const name = make("th", "", rule.title, ...(rule.stops ? [make("small", "", " really stops")] : []));
    name.scope = "row";
    if (!rule.note) return make("tr", "", name, ...state.lanes.slice(0, 4).map((lane) => make("td", "", stopWords(state, lane, rule))));
    const why = make("td", "", rule.note);
    why.colSpan = Math.max(1, head.length);
    return make("tr", "", name, why);
  }));
}
