/** Finds a position for a box's button on the screen: beside the box and in view. Lengths are in screen pixels. */

import { clamp, type Rect } from "./boxes";
import type { Point } from "./messages";

/** The upper left corner of a square button; gap_px: space for the box's handles. */
export function besideBox(box: Rect, view: Rect, side_px: number, gap_px: number): Point {
  const [right, bottom] = [box.x + box.width, box.y + box.height];
  const upper = clamp(box.y, view.y, view.y + view.height - side_px);
  const outer = clamp(right - side_px, view.x, view.x + view.width - side_px);
  const places: Point[] = [
    [right + gap_px, upper],
    [box.x - gap_px - side_px, upper],
    [outer, box.y - gap_px - side_px],
    [outer, bottom + gap_px],
  ];
  const fits = ([x, y]: Point) =>
    x >= view.x && y >= view.y && x + side_px <= view.x + view.width && y + side_px <= view.y + view.height;
  // If the box fills the view, the button goes inside, away from the corners.
  return places.find(fits) ?? inside(box, view, side_px, gap_px);
}

/** Whether a part of a box is in view. Otherwise its button is hidden, which would seem to belong to another box. */
export function isSeen(box: Rect, view: Rect): boolean {
  return (
    box.x < view.x + view.width && box.x + box.width > view.x && box.y < view.y + view.height && box.y + box.height > view.y
  );
}

function inside(box: Rect, view: Rect, side_px: number, gap_px: number): Point {
  const x = clamp(box.x + (box.width - side_px) / 2, view.x, view.x + view.width - side_px);
  return [x, clamp(box.y + gap_px, view.y + gap_px, view.y + view.height - side_px - gap_px)];
}
