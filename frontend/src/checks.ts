/** Whether a box is likely to be a mistake: another one of its label lies there already, or it is tiny. */

import type { Box, Rect } from "./boxes";

/** Intersection over union from which a new box replaces a suggestion of its label. */
const REPLACES_FROM = 0.5;
/** ... and from which two boxes of one label are taken for one object. */
const SAME_FROM = 0.8;
const TINY_IMAGE_PX = 4;
const TINY_SCREEN_PX = 6;

export function iou(a: Rect, b: Rect): number {
  const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  const both = Math.max(0, across) * Math.max(0, down);
  return both / (a.width * a.height + b.width * b.height - both || 1);
}

/** The suggestion that a drawn box stands for: the one of its label that it covers best. Polygons are left alone. */
export function replacedBy(drawn: Rect, label: string, suggestions: Box[]): Box | null {
  let best: Box | null = null;
  let most = REPLACES_FROM;
  for (const box of suggestions) {
    const share = box.label === label && box.type === "rect" ? iou(drawn, box) : 0;
    if (share > most) [best, most] = [box, share];
  }
  return best;
}

/** Whether one of the boxes is likely to stand for the same object as a suggestion. */
export function isCovered(suggestion: Rect, label: string, boxes: Box[]): boolean {
  return boxes.some((box) => box.label === label && iou(suggestion, box) > REPLACES_FROM);
}

/** Whether a box that reaches out of the image leaves but a strip of itself in it. */
export function isStrip(whole: Rect, inside: Rect): boolean {
  const strip = (length: number, left: number) => left < length && left < TINY_IMAGE_PX;
  return strip(whole.width, inside.width) || strip(whole.height, inside.height);
}

/** Whether a box stands for the same object as this one of another image: a suggestion need not be quite like it. */
export function isThere(rect: Rect, label: string, boxes: Box[]): boolean {
  return boxes.some(
    (box) => box.label === label && iou(rect, box) > (box.origin === "suggested" ? REPLACES_FROM : SAME_FROM),
  );
}

/** What is odd about a box, in words; "": nothing. scale: screen pixels per image pixel. */
export function oddity(box: Box, boxes: Box[], scale: number): string {
  const side = Math.min(box.width, box.height);
  if (side < TINY_IMAGE_PX || side * scale < TINY_SCREEN_PX)
    return `This box is tiny: ${pixels(box.width)} × ${pixels(box.height)} pixels of the image.`;
  const shares = boxes.filter(({ id, label }) => id !== box.id && label === box.label).map((other) => iou(box, other));
  const most = Math.max(0, ...shares);
  return most >= SAME_FROM ? `Two boxes “${box.label}” overlap by ${Math.floor(most * 100)} %.` : "";
}

const pixels = (length: number) => String(Math.round(length * 10) / 10);
