/** Fits a box to the image: each edge moves to the strongest edge of the image nearby. */

import { cut, type Rect, type Size } from "./boxes";

/** How far an edge moves: this share of the box's side, and at least so many pixels of the image. */
const REACH_SHARE = 0.06;
const MIN_REACH_PX = 4;
/** How far an edge moves inwards at most, as a share of the side, so that opposite edges cannot meet. */
const MAX_INWARDS = 1 / 3;
/** How much less an image edge counts at the end of the reach than one where the box's edge is. Without it, edges of
 * textures and the widest parts of round objects win: tight boxes became worse. */
const DISTANCE_WEIGHT = 0.8;
/** Larger parts of an image are examined at a lower resolution. */
const MAX_SIDE_PX = 1000;
/** Minimum mean difference of neighbouring pixels along an edge, summed over red, green and blue. */
const MIN_DIFFERENCE = 6;

/** Pixels, RGBA, row by row. */
export interface Pixels {
  data: Uint8ClampedArray;
  width: number;
  height: number;
}

/** image: the shown image; size: its size according to the server; box: in pixels of that size. */
export function tightened(image: HTMLImageElement, size: Size, box: Rect): Rect {
  const [reachX, reachY] = [reach(box.width), reach(box.height)];
  const [left, top] = [Math.max(0, Math.floor(box.x - reachX - 1)), Math.max(0, Math.floor(box.y - reachY - 1))];
  const right = Math.min(size.width, Math.ceil(box.x + box.width + reachX + 1));
  const bottom = Math.min(size.height, Math.ceil(box.y + box.height + reachY + 1));
  const scale = Math.min(1, MAX_SIDE_PX / Math.max(right - left, bottom - top));
  const [across, down] = [Math.ceil((right - left) * scale), Math.ceil((bottom - top) * scale)];
  const pixels = read(image, size, { x: left, y: top, width: right - left, height: bottom - top }, across, down);
  const [sx, sy] = [across / (right - left), down / (bottom - top)];
  const placed = { x: (box.x - left) * sx, y: (box.y - top) * sy, width: box.width * sx, height: box.height * sy };
  const { x, y, width, height } = strongestEdges(pixels, placed, reachX * sx, reachY * sy);
  return cut({ x: left + x / sx, y: top + y / sy, width: width / sx, height: height / sy }, size);
}

const reach = (side: number) => Math.max(MIN_REACH_PX, REACH_SHARE * side);

function read(image: HTMLImageElement, size: Size, part: Rect, width: number, height: number): Pixels {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  const [kx, ky] = [image.naturalWidth / size.width, image.naturalHeight / size.height];
  context.drawImage(image, part.x * kx, part.y * ky, part.width * kx, part.height * ky, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/** The box with each edge where neighbouring pixels along it differ most, within reach; near positions count more. An
 * edge stays where it is at the border of the pixels, and where they hardly differ. All lengths are in these pixels. */
export function strongestEdges(pixels: Pixels, box: Rect, reachX: number, reachY: number): Rect {
  const { width, height } = pixels;
  const [right, bottom] = [box.x + box.width, box.y + box.height];
  const rows = within(box.y, bottom, height);
  const columns = within(box.x, right, width);
  const vertical = (x: number) => difference(pixels, 4, x * 4, rows, width * 4);
  const horizontal = (y: number) => difference(pixels, width * 4, y * width * 4, columns, 4);
  const inX = Math.min(reachX, box.width * MAX_INWARDS);
  const inY = Math.min(reachY, box.height * MAX_INWARDS);
  const x0 = strongest(vertical, box.x, [box.x - reachX, box.x + inX], reachX, width);
  const x1 = strongest(vertical, right, [right - inX, right + reachX], reachX, width);
  const y0 = strongest(horizontal, box.y, [box.y - reachY, box.y + inY], reachY, height);
  const y1 = strongest(horizontal, bottom, [bottom - inY, bottom + reachY], reachY, height);
  return { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
}

/** The whole pixels from `start` to before `end`. */
function within(start: number, end: number, length: number): [number, number] {
  const first = Math.min(Math.max(0, Math.round(start)), length - 1);
  return [first, Math.min(length, Math.max(first + 1, Math.round(end)))];
}

/** Mean difference between the pixels along a line and those before it. before: distance of these in the data; start:
 * of the line; along: first and last pixel of the line, which are `step` apart in the data. */
function difference(
  { data }: Pixels,
  before: number,
  start: number,
  [first, end]: [number, number],
  step: number,
): number {
  let sum = 0;
  for (let index = first; index < end; index += 1) {
    const at = start + index * step;
    for (let channel = at; channel < at + 3; channel += 1) sum += Math.abs(data[channel]! - data[channel - before]!);
  }
  return sum / (end - first);
}

/** The position from `low` to `high` with the largest weighted difference; `now` if all are small. */
function strongest(
  differenceAt: (at: number) => number,
  now: number,
  [low, high]: [number, number],
  reach: number,
  length: number,
): number {
  if (now < 0.5 || now > length - 0.5) return now;
  let [best, most] = [now, MIN_DIFFERENCE];
  for (let at = Math.max(1, Math.ceil(low)); at <= Math.min(length - 1, Math.floor(high)); at += 1) {
    const value = differenceAt(at) * (1 - (DISTANCE_WEIGHT * Math.abs(at - now)) / reach);
    if (value > most) [best, most] = [at, value];
  }
  return best;
}
