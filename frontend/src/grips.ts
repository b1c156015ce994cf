/** Hit testing of boxes and the effect of drags. Reach is in screen pixels, everything else in image pixels. */

import { cut, shifted, type Rect, type Size } from "./boxes";
import type { Point } from "./messages";

/** The dragged part of a box: an edge or corner by its compass point, or the whole box. */
export type Grip = "n" | "ne" | "e" | "se" | "s" | "sw" | "w" | "nw" | "move";

export interface Hit {
  id: string;
  grip: Grip;
}

/** Maximum distance from an edge or corner at which it can be grabbed, on either side. */
export interface Reach {
  edge_px: number;
  corner_px: number;
}

/** Maximum share of a side that each end's handle covers, so that the middle stays free in small boxes too. */
const MAX_INSIDE = 0.25;

type End = -1 | 0 | 1;

interface Near extends Hit {
  distance_px: number;
  area: number;
}

type Placed = Rect & { id: string };

/**
 * The target under a point, in this order: an edge or corner of the selected box; the nearest one of another box, and
 * of the smaller box at equal distance; the inside of the selected box. null: a drag would change nothing.
 */
export function hitAt(
  boxes: Placed[],
  selected: string | null,
  at: Point,
  scale: number,
  reach: Reach,
  size: Size,
): Hit | null {
  const near = boxes
    .map((box) => nearness(box.id, cut(box, size), at, scale, reach))
    .filter((grip) => grip !== null)
    .sort(
      (a, b) =>
        Number(b.id === selected) - Number(a.id === selected) || a.distance_px - b.distance_px || a.area - b.area,
    )[0];
  if (near) return { id: near.id, grip: near.grip };
  const own = boxes.find(({ id }) => id === selected);
  return own && contains(own, at) ? { id: own.id, grip: "move" } : null;
}

function nearness(id: string, box: Rect, [x, y]: Point, scale: number, reach: Reach): Near | null {
  const [across, down] = [(x - box.x) * scale, (y - box.y) * scale];
  const [width, height] = [box.width * scale, box.height * scale];
  const grip = gripAt(across, down, width, height, reach);
  if (!grip) return null;
  const distance = Math.round(toOutline(across, down, width, height));
  return { id, grip, distance_px: distance, area: box.width * box.height };
}

function gripAt(across: number, down: number, width: number, height: number, reach: Reach): Grip | null {
  for (const [reach_px, corners] of [
    [reach.corner_px, true],
    [reach.edge_px, false],
  ] as const) {
    const [x, y] = [endAt(across, width, reach_px), endAt(down, height, reach_px)];
    if (x === null || y === null) continue;
    if (corners ? x !== 0 && y !== 0 : x !== 0 || y !== 0) return compassPoint(x, y);
  }
  return null;
}

/** -1 or 1: near the start or end of a side; 0: in between; null: outside. */
function endAt(at: number, length: number, reach_px: number): End | null {
  if (at < -reach_px || at > length + reach_px) return null;
  const inside = Math.min(reach_px, length * MAX_INSIDE);
  return at <= inside ? -1 : at >= length - inside ? 1 : 0;
}

function compassPoint(x: End, y: End): Grip {
  return `${y < 0 ? "n" : y > 0 ? "s" : ""}${x < 0 ? "w" : x > 0 ? "e" : ""}` as Grip;
}

function toOutline(across: number, down: number, width: number, height: number): number {
  const [outX, outY] = [Math.max(-across, 0, across - width), Math.max(-down, 0, down - height)];
  return outX || outY ? Math.hypot(outX, outY) : Math.min(across, width - across, down, height - down);
}

export function contains({ x, y, width, height }: Rect, at: Point): boolean {
  return at[0] >= x && at[0] <= x + width && at[1] >= y && at[1] <= y + height;
}

/** The box after a drag of (dx, dy), clipped to the image. Dragging an edge past the opposite one flips the box. */
export function dragged(box: Rect, grip: Grip, dx: number, dy: number, size: Size): Rect {
  if (grip === "move") return shifted({ ...box, x: box.x + dx, y: box.y + dy }, size);
  const left = box.x + (grip.includes("w") ? dx : 0);
  const right = box.x + box.width + (grip.includes("e") ? dx : 0);
  const top = box.y + (grip.includes("n") ? dy : 0);
  const bottom = box.y + box.height + (grip.includes("s") ? dy : 0);
  return cut(between([left, top], [right, bottom]), size);
}

/** The box after a step of (dx, dy) with keys. Opposite edges stay one pixel apart. */
export function nudged(box: Rect, grip: "move" | "nw" | "se", dx: number, dy: number, size: Size): Rect {
  const least = (delta: number, side: number) => (grip === "nw" ? Math.min(delta, side) : Math.max(delta, -side));
  const step = grip === "move" ? [dx, dy] : [least(dx, box.width - 1), least(dy, box.height - 1)];
  return dragged(box, grip, step[0]!, step[1]!, size);
}

/** The rectangle with these opposite corners. */
export function between(a: Point, b: Point): Rect {
  return {
    x: Math.min(a[0], b[0]),
    y: Math.min(a[1], b[1]),
    width: Math.abs(a[0] - b[0]),
    height: Math.abs(a[1] - b[1]),
  };
}
