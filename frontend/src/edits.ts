/** Edits of the boxes that need no pointer. */

import { isThere } from "./checks";
import type { Candidate } from "./messages";
import { VISIBILITY_NAMES } from "./keypoints";
import type { AppStore } from "./store";
import { tightened } from "./tighten";
import { pluralize, errorMessage, undoHint, versionName } from "./format";

const SMALLEST_PX = 8;
const BESIDE_SCREEN_PX = 12;
/** The threshold of a task while no suggestion of any class is worth its time. */
const NOTHING_SHOWN = 1;
/** Minimum score of a box that is shown all the same when the person asks for the hidden ones. */
const LIKELY = 0.5;

/** Chooses a label for the box that the user selected, if there is one, else for the next box. */
export function chooseLabel(store: AppStore, name: string): void {
  store.labels?.use(name);
  const { canvas } = store;
  if (canvas?.chosen) canvas.relabel(canvas.chosen, name);
  else store.label = name;
  store.changed();
}

/** Whether label keys change the selected box, and the label to show as chosen: that box's or the next one's. */
export function labelTarget({ canvas, label }: AppStore): { relabels: boolean; label: string } {
  const box = canvas?.boxes.find(({ id }) => id === canvas.chosen);
  return { relabels: box !== undefined, label: box?.label ?? label };
}

export function addBox(store: AppStore): void {
  const { canvas, view, ready } = store;
  if (!ready || !canvas || !view) return;
  const seen = view.seen();
  const side = Math.round(Math.max(SMALLEST_PX, Math.min(seen.width, seen.height) / 4));
  const [x, y] = [Math.round(seen.x + (seen.width - side) / 2), Math.round(seen.y + (seen.height - side) / 2)];
  canvas.addBeside({ x, y, width: side, height: side }, store.label, BESIDE_SCREEN_PX / view.scale);
}

/** Copies the boxes of the image shown before to this one, as one undo step; meant for video frames. */
export async function copyBoxes(store: AppStore): Promise<void> {
  const { shown, notices } = store;
  if (!store.ready || !shown) return;
  try {
    const before = await store.boxesBefore();
    if (store.shown !== shown || !store.ready || !store.canvas) return;
    if (!before?.spans.length) return notices.show(before ? `${before.file} has no boxes` : "there is no previous image");
    const count = store.canvas.copyIn(before.spans);
    notices.show(
      count
        ? `${pluralize(count, "box", "boxes")} copied from ${before.file}`
        : `all boxes of ${before.file} are already here or outside this image`,
    );
  } catch (error) {
    notices.show(`no boxes copied: ${errorMessage(error)}`);
  }
}

/** The boxes that would be suggested if the model's suggestions were not hidden because they cost more time than they
 * save. */
export function hiddenSuggestions({ shown, canvas, ready }: AppStore): Candidate[] {
  const task = ready && canvas && !shown?.reopened ? shown?.task : null;
  if (!task || task.threshold === null || task.threshold < NOTHING_SHOWN) return [];
  const boxes = canvas!.boxes;
  return task.candidates.filter(({ score, label, rect: [x, y, width, height] }) => {
    return score >= LIKELY && !isThere({ x, y, width, height }, label, boxes);
  });
}

/** Adds them, as picked boxes and one undo step. */
export function showHiddenSuggestions(store: AppStore): void {
  const spans = hiddenSuggestions(store).map(({ label, rect: [x, y, width, height], keypoints }) => {
    return { id: "", label, type: "rect" as const, x, y, width, height, keypoints };
  });
  store.canvas?.copyIn(spans, true);
}

/** Replaces the untouched suggestions of the shown image by newer ones. */
export function showOffer(store: AppStore): void {
  const { shown, canvas, ready } = store;
  if (!shown?.offer || !canvas || !ready) return;
  const task = shown.takeOffer();
  const count = canvas.replaceSuggestions(task);
  store.judge(task);
  const name = task.version === null ? "" : ` by the model of ${versionName(store.live?.panel, task.version)}`;
  store.notices.show(`${pluralize(count, "suggestion")}${name}; ${undoHint("ctrl+z")} restores the previous ones`);
}

/** The canvas takes over the candidates of a newer version, if the image had no suggestions and gets none. */
export function showNewerCandidates(store: AppStore): void {
  const { shown, canvas, ready } = store;
  if (!shown || !canvas || !ready || canvas.task === shown.task) return;
  canvas.renewCandidates(shown.task);
  store.judge(shown.task);
}

export function removeSuggestions(store: AppStore): void {
  const count = store.canvas?.removeSuggestions() ?? 0;
  store.notices.show(
    count ? `${pluralize(count, "suggested box", "suggested boxes")} removed` : "there are no suggestions to remove",
  );
}

/** Moves the edges of the selected box to edges of the image. */
export function tighten({ canvas, shown, notices }: AppStore): void {
  const box = canvas?.selectedRect;
  if (!box || !shown?.image) return;
  if (!canvas.fit(tightened(shown.image, shown.task, box))) notices.show("there are no stronger edges near those of the box");
}

/** Moves the focus to the next (1) or previous (-1) keypoint of the selected box. */
export function focusKeypoint({ canvas, notices }: AppStore, step: 1 | -1): void {
  const point = canvas?.points.focusNext(step);
  if (!point) notices.show(canvas?.selected ? "boxes of this label have no keypoints" : "select a box to reach its keypoints");
}

/** Makes the focused keypoint visible, hidden, or not there, in turn. */
export function cycleKeypoint({ canvas, notices }: AppStore): void {
  const name = canvas?.points.focused;
  if (!name) return notices.show("go to a keypoint first: k");
  const point = canvas.points.cycle(name);
  if (point) notices.announce(`${point.name}: ${VISIBILITY_NAMES[point.visibility]}`);
}

/** Takes all keypoints of the selected box that are not there as visible, where they are. */
export function confirmKeypoints({ canvas, notices }: AppStore): void {
  const count = canvas?.points.confirm();
  notices.show(
    count ? `${pluralize(count, "keypoint is", "keypoints are")} confirmed; ${undoHint("u")} undoes this` : "no keypoints to confirm",
  );
}

export function removeSelected({ canvas }: AppStore): void {
  if (canvas?.selected) canvas.remove(canvas.selected);
}

/** Undo (-1) or redo (1) one change of the boxes. */
export function takeBack(store: AppStore, step: -1 | 1): void {
  const { canvas, notices } = store;
  if (!canvas?.go(step)) notices.show(step < 0 ? "there is no change to undo" : "there is no change to redo");
  else if (canvas.task) store.judge(canvas.task);
}

export function toggleSuggestions(store: AppStore): void {
  const { canvas, ready } = store;
  if (canvas && ready) canvas.hideSuggestions(!canvas.suggestionsHidden);
}
