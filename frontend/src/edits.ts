/** What a person does to the boxes without pointing at them. */

import type { Desk } from "./desk";
import { many } from "./words";

const SMALLEST_PX = 8;
const BESIDE_SCREEN_PX = 12;

export function chooseLabel(desk: Desk, name: string): void {
  desk.label = name;
  const { canvas } = desk;
  if (canvas?.selected) canvas.relabel(canvas.selected, name);
  desk.changed();
}

export function addBox(desk: Desk): void {
  const { canvas, view, ready } = desk;
  if (!ready || !canvas || !view) return;
  const seen = view.seen();
  const side = Math.round(Math.max(SMALLEST_PX, Math.min(seen.width, seen.height) / 4));
  const [x, y] = [Math.round(seen.x + (seen.width - side) / 2), Math.round(seen.y + (seen.height - side) / 2)];
  canvas.addBeside({ x, y, width: side, height: side }, desk.label, BESIDE_SCREEN_PX / view.scale);
}

export function removeSuggestions(desk: Desk): void {
  const count = desk.canvas?.removeSuggestions() ?? 0;
  desk.notices.say(
    count ? `${many(count, "suggested box", "suggested boxes")} removed` : "there are no suggestions to remove",
  );
}

export function toggleSuggestions(desk: Desk): void {
  const { canvas, ready } = desk;
  if (canvas && ready) canvas.hideSuggestions(!canvas.suggestionsHidden);
}
