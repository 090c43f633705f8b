// The strip: x → A → y, and the shots.

/** An image in a small fixed frame: whole, centred, pixels kept square when enlarged. */
function paintThumb(canvas, slot) {
  const { context, width, height, ratio } = fitCanvas(canvas);
  context.clearRect(0, 0, width, height);
  if (hasPicture(slot)) drawPlaced(context, slot.canvas, placement({ k: 1, cx: 0.5, cy: 0.5 }, slot.canvas.width, slot.canvas.height, width, height), ratio);
}

function makeStrip(view) {
  const repaint = () => mark(view, "strip", "tiles"); // the tiles need the truth too
  view.truth = makeSlot(repaint);
  view.measurement = makeSlot(repaint);
  view.shotSlots = [];
}

/** New pictures and words of the strip. */
function updateStrip(view) {
  const { refs, state } = view;
  const { truth, operator, measurement, shots } = state.strip;
  wantPicture(view.truth, truth?.src ?? null);
  wantPicture(view.measurement, measurement?.src ?? null);
  const absent = measurement ? "no ground truth: nothing is scored against it" : truth === null ? "" : "choose a target";
  setText(refs.truthHint, truth ? "" : absent);
  setText(refs.truthCaption, truth?.caption ?? "");
  setText(refs.measurementHint, measurement?.src ? "" : "what the operator lets through");
  setText(refs.measurementCaption, measurement?.caption ?? "");
  setText(refs.equation, operator?.equation ?? "");
  setText(refs.operatorTitle, operator?.title ?? "operator");
  setText(refs.operatorCaption, operator?.caption ?? "");
  for (const caption of [refs.truthCaption, refs.measurementCaption, refs.operatorCaption]) caption.title = caption.textContent;
  updateShots(view, shots);
  refs.root.toggleAttribute("data-notruth", !hasTruth(state));
}

function updateShots(view, shots) {
  const srcs = (shots?.srcs ?? []).slice(0, 12);
  const grid = view.refs.shots;
  view.refs.shotsCell.hidden = srcs.length === 0;
  while (grid.children.length > srcs.length) { boxes.delete(grid.lastChild); grid.lastChild.remove(); view.shotSlots.pop(); }
  while (grid.children.length < srcs.length) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Shot ${grid.children.length + 1}`);
    grid.append(canvas);
    view.shotSlots.push(makeSlot(() => mark(view, "strip")));
  }
  srcs.forEach((src, i) => wantPicture(view.shotSlots[i], src));
  const total = shots?.total ?? srcs.length;
  setText(view.refs.shotsCaption, srcs.length ? (total > srcs.length ? `${srcs.length} of ${total} shown` : `${total} example${total === 1 ? "" : "s"}`) : "");
}

function paintStrip(view) {
  paintThumb(view.refs.truthCanvas, view.truth);
  paintThumb(view.refs.measurementCanvas, view.measurement);
  view.shotSlots.forEach((slot, i) => paintThumb(view.refs.shots.children[i], slot));
}
