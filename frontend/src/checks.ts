/** Checks for likely mistakes: a box that duplicates another one of its label, or a tiny box. */

import type { Box, Rect } from "./boxes";

/** Minimum IoU at which a drawn box replaces a suggestion of its label. */
const REPLACES_FROM = 0.5;
/** Minimum IoU at which two boxes of one label count as the same object. */
export const SAME_FROM = 0.8;
const TINY_IMAGE_PX = 4;
const TINY_SCREEN_PX = 6;

export function iou(a: Rect, b: Rect): number {
  const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  const both = Math.max(0, across) * Math.max(0, down);
  return both / (a.width * a.height + b.width * b.height - both || 1);
}

/** The suggestion that a drawn box replaces: the one of its label with the highest IoU. Polygons are never replaced. */
export function replacedBy(drawn: Rect, label: string, suggestions: Box[]): Box | null {
  let best: Box | null = null;
  let most = REPLACES_FROM;
  for (const box of suggestions) {
    const share = box.label === label && box.type === "rect" ? iou(drawn, box) : 0;
    if (share > most) [best, most] = [box, share];
  }
  return best;
}

/** Whether one of the boxes probably marks the same object as a suggestion. */
export function isCovered(suggestion: Rect, label: string, boxes: Box[]): boolean {
  return boxes.some((box) => box.label === label && iou(suggestion, box) > REPLACES_FROM);
}

/** Whether only a thin strip of a box is inside the image. */
export function isStrip(whole: Rect, inside: Rect): boolean {
  const strip = (length: number, left: number) => left < length && left < TINY_IMAGE_PX;
  return strip(whole.width, inside.width) || strip(whole.height, inside.height);
}

/** Whether a box for the same object exists. A suggestion counts at a lower IoU, because it need not fit exactly. */
export function isThere(rect: Rect, label: string, boxes: Box[]): boolean {
  return boxes.some(
    (box) => box.label === label && iou(rect, box) > (box.origin === "suggested" ? REPLACES_FROM : SAME_FROM),
  );
}

/** A warning about a box; "" if it looks right. scale: screen pixels per image pixel. */
export function oddity(box: Box, boxes: Box[], scale: number): string {
  const side = Math.min(box.width, box.height);
  if (side < TINY_IMAGE_PX || side * scale < TINY_SCREEN_PX)
    return `This box is tiny: ${pixels(box.width)} × ${pixels(box.height)} pixels of the image.`;
  const shares = boxes.filter(({ id, label }) => id !== box.id && label === box.label).map((other) => iou(box, other));
  const most = Math.max(0, ...shares);
  return most >= SAME_FROM ? `Two boxes “${box.label}” overlap by ${Math.floor(most * 100)} %.` : "";
}

const pixels = (length: number) => String(Math.round(length * 10) / 10);
