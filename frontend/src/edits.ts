/** Edits of the boxes that need no pointer. */

import type { Desk } from "./desk";
import { many, messageOf, takesBack, versionName } from "./words";

const SMALLEST_PX = 8;
const BESIDE_SCREEN_PX = 12;

/** Chooses a label for the box that the user selected, if there is one, else for the next box. */
export function chooseLabel(desk: Desk, name: string): void {
  desk.labels?.use(name);
  const { canvas } = desk;
  if (canvas?.chosen) canvas.relabel(canvas.chosen, name);
  else desk.label = name;
  desk.changed();
}

/** Whether label keys change the selected box, and the label to show as chosen: that box's or the next one's. */
export function labelTarget({ canvas, label }: Desk): { relabels: boolean; label: string } {
  const box = canvas?.boxes.find(({ id }) => id === canvas.chosen);
  return { relabels: box !== undefined, label: box?.label ?? label };
}

export function addBox(desk: Desk): void {
  const { canvas, view, ready } = desk;
  if (!ready || !canvas || !view) return;
  const seen = view.seen();
  const side = Math.round(Math.max(SMALLEST_PX, Math.min(seen.width, seen.height) / 4));
  const [x, y] = [Math.round(seen.x + (seen.width - side) / 2), Math.round(seen.y + (seen.height - side) / 2)];
  canvas.addBeside({ x, y, width: side, height: side }, desk.label, BESIDE_SCREEN_PX / view.scale);
}

/** Copies the boxes of the image shown before to this one, as one undo step; meant for video frames. */
export async function copyBoxes(desk: Desk): Promise<void> {
  const { shown, notices } = desk;
  if (!desk.ready || !shown) return;
  try {
    const before = await desk.boxesBefore();
    if (desk.shown !== shown || !desk.ready || !desk.canvas) return;
    if (!before?.spans.length) return notices.say(before ? `${before.file} has no boxes` : "there is no previous image");
    const count = desk.canvas.copyIn(before.spans);
    notices.say(
      count
        ? `${many(count, "box", "boxes")} copied from ${before.file}`
        : `all boxes of ${before.file} are already here or outside this image`,
    );
  } catch (error) {
    notices.say(`no boxes copied: ${messageOf(error)}`);
  }
}

/** Replaces the untouched suggestions of the shown image by newer ones. */
export function showOffer(desk: Desk): void {
  const { shown, canvas, ready } = desk;
  if (!shown?.offer || !canvas || !ready) return;
  const task = shown.takeOffer();
  const count = canvas.replaceSuggestions(task);
  desk.judge(task);
  const name = task.version === null ? "" : ` by the model of ${versionName(desk.live?.panel, task.version)}`;
  desk.notices.say(`${many(count, "suggestion")}${name}; ${takesBack("ctrl+z")} restores the previous ones`);
}

export function removeSuggestions(desk: Desk): void {
  const count = desk.canvas?.removeSuggestions() ?? 0;
  desk.notices.say(
    count ? `${many(count, "suggested box", "suggested boxes")} removed` : "there are no suggestions to remove",
  );
}

export function removeSelected({ canvas }: Desk): void {
  if (canvas?.selected) canvas.remove(canvas.selected);
}

/** Undo (-1) or redo (1) one change of the boxes. */
export function takeBack(desk: Desk, step: -1 | 1): void {
  const { canvas, notices } = desk;
  if (!canvas?.go(step)) notices.say(step < 0 ? "there is no change to undo" : "there is no change to redo");
  else if (canvas.task) desk.judge(canvas.task);
}

export function toggleSuggestions(desk: Desk): void {
  const { canvas, ready } = desk;
  if (canvas && ready) canvas.hideSuggestions(!canvas.suggestionsHidden);
}
