/** The page's boxes, converted between the canvas's annotations and the server's spans. */

import type { ImageAnnotation, Polygon, Rectangle, Shape } from "@annotorious/annotorious";
import { uuid } from "./identity";
import { copied, sameKeypoints } from "./keypoints";
import type { Keypoint, Point, Span } from "./messages";

/** suggested: unchanged from the model; adjusted: a changed suggestion; drawn: by a person; given: from the source. */
export type Origin = "suggested" | "adjusted" | "drawn" | "given";

export interface Box extends Span {
  origin: Origin;
}

export interface Size {
  width: number;
  height: number;
}

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

export function withIds(spans: Span[]): Span[] {
  const seen = new Set<string>();
  return spans.map((span) => {
    const id = span.id && !seen.has(span.id) ? span.id : uuid();
    seen.add(id);
    return { ...span, id };
  });
}

export function rectShape({ x, y, width, height }: Rect): Rectangle {
  const bounds = { minX: x, minY: y, maxX: x + width, maxY: y + height };
  return { type: "RECTANGLE", geometry: { x, y, w: width, h: height, rot: 0, bounds } } as Rectangle;
}

function polygonShape(points: Point[]): Polygon {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const bounds = { minX: Math.min(...xs), minY: Math.min(...ys), maxX: Math.max(...xs), maxY: Math.max(...ys) };
  return { type: "POLYGON", geometry: { points, bounds } } as Polygon;
}

/** What a box has besides its shape and its label. */
export interface Extra {
  /** Whether a person picked the box from the model's candidates. */
  picked?: boolean;
  keypoints?: Keypoint[];
}

export function annotation(id: string, label: string, selector: Shape, { picked, keypoints }: Extra): ImageAnnotation {
  const properties = picked || keypoints ? { picked, keypoints } : undefined;
  return { id, bodies: labelBodies(id, label), target: { annotation: id, selector }, properties };
}

export function labelBodies(id: string, label: string): ImageAnnotation["bodies"] {
  return [{ id: `${id}-label`, annotation: id, purpose: "tagging", value: label }];
}

export const isPolygon = (shape: Shape): shape is Polygon => (shape.type as string) === "POLYGON";

export function fromSpan(span: Span): ImageAnnotation {
  const isPolygon = span.type === "polygon" && (span.points?.length ?? 0) > 2;
  return annotation(span.id, span.label, isPolygon ? polygonShape(span.points!) : rectShape(span), span);
}

export function readKeypoints({ properties }: ImageAnnotation): Keypoint[] | undefined {
  return properties?.keypoints as Keypoint[] | undefined;
}

export function readLabel(shown: ImageAnnotation): string {
  return shown.bodies[0]?.value ?? "";
}

/** The annotation with another label; itself if it has the label. */
export function withLabel(shown: ImageAnnotation, label: string): ImageAnnotation {
  return label === readLabel(shown) ? shown : { ...shown, bodies: labelBodies(shown.id, label) };
}

/** The bounding box of a shape. */
export function boundsOf({ geometry }: Shape): Rect {
  const { minX, minY, maxX, maxY } = geometry.bounds;
  return { x: minX, y: minY, width: maxX - minX, height: maxY - minY };
}

function readSpan(shown: ImageAnnotation): Span {
  const { id, target, properties } = shown;
  const label = readLabel(shown);
  const keypoints = readKeypoints(shown);
  const points = keypoints && { keypoints };
  if (isPolygon(target.selector)) {
    const corners = target.selector.geometry.points.map(([x, y]) => [rounded(x!), rounded(y!)] as Point);
    const bounds = boundsOf(polygonShape(corners));
    return { id, label, type: "polygon", ...bounds, points: corners, ...points };
  }
  const { x, y, w, h } = (target.selector as Rectangle).geometry;
  const rect = { x: rounded(x), y: rounded(y), width: rounded(w), height: rounded(h) };
  const span: Span = { id, label, type: "rect", ...rect, ...points };
  return properties?.picked ? { ...span, picked: true } : span;
}

/** first: the span as it was received, if any; unscored: the origin of received spans that have no score. */
export function toBox(shown: ImageAnnotation, first: Span | undefined, unscored: Origin): Box {
  const span = readSpan(shown);
  if (!first) return { ...span, origin: "drawn" };
  const origin = first.score === undefined ? unscored : "suggested";
  const unchanged =
    first.label === span.label && sameGeometry(first, span) && sameKeypoints(first.keypoints, span.keypoints);
  return unchanged
    ? { ...span, ...receivedNumbers(first), origin }
    : { ...span, origin: origin === "suggested" ? "adjusted" : "drawn" };
}

/** The received numbers of an unchanged box, so that it is returned without rounding differences. */
function receivedNumbers(first: Span): Partial<Span> {
  const { x, y, width, height, points, score } = first;
  const own: Partial<Span> = first.type === "polygon" ? { points } : { x, y, width, height };
  if (score !== undefined) own.score = score;
  return own;
}

/** The span to send. A changed suggestion keeps its id but loses its score, which was the score of another box. */
export function toSpan({ id, label, type, x, y, width, height, points, score, picked, keypoints, origin }: Box): Span {
  const span: Span = { id, label, type, x, y, width, height };
  if (type === "polygon" && points) span.points = points;
  if (score !== undefined && origin === "suggested") span.score = score;
  if (picked) span.picked = true;
  if (keypoints) span.keypoints = keypoints;
  return span;
}

function sameGeometry(first: Span, now: Span): boolean {
  if (first.type === "polygon" && first.points) {
    const points = now.points ?? [];
    return (
      first.points.length === points.length &&
      first.points.every(([x, y], i) => close(x, points[i]![0]) && close(y, points[i]![1]))
    );
  }
  return sameRect(first, now);
}

export function sameRect(a: Rect, b: Rect): boolean {
  return close(a.x, b.x) && close(a.y, b.y) && close(a.width, b.width) && close(a.height, b.height);
}

const close = (a: number, b: number) => Math.abs(a - b) < 0.02;
const rounded = (value: number) => Math.round(value * 100) / 100;
/** The value within a range; `low` if the range is empty. */
export const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), Math.max(low, high));

/** Clips a box to the image; the result is at least one pixel wide and high. */
export function cut({ x, y, width, height }: Rect, size: Size): Rect {
  const left = clamp(x, 0, size.width - 1);
  const top = clamp(y, 0, size.height - 1);
  const right = clamp(x + width, left + 1, size.width);
  const bottom = clamp(y + height, top + 1, size.height);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/** The box, shifted diagonally by `step` until no other box starts there. */
export function freePlace(box: Rect, others: Rect[], step: number, size: Size): Rect {
  const taken = (x: number, y: number) => others.some((other) => Math.abs(other.x - x) < 1 && Math.abs(other.y - y) < 1);
  let { x, y } = box;
  while (taken(x, y) && x + step + box.width <= size.width && y + step + box.height <= size.height)
    [x, y] = [x + step, y + step];
  return { ...box, x, y };
}

/** Moves a box into the image; the size is kept if it fits. */
export function shifted({ x, y, width, height }: Rect, size: Size): Rect {
  const moved = { x: clamp(x, 0, size.width - width), y: clamp(y, 0, size.height - height), width, height };
  return cut(moved, size);
}

/** Clips a polygon to the image and recomputes its bounds; null if nothing changes. */
export function clippedPolygon(shape: Polygon, { width, height }: Size): Polygon | null {
  const points = shape.geometry.points.map(([x, y]) => [clamp(x!, 0, width), clamp(y!, 0, height)] as Point);
  const inside = polygonShape(points);
  const same = points.every(([x, y], i) => x === shape.geometry.points[i]![0] && y === shape.geometry.points[i]![1]);
  return same && JSON.stringify(inside.geometry.bounds) === JSON.stringify(shape.geometry.bounds) ? null : inside;
}

/** A copy of another image's box with a new id, clipped to this image. */
export function copyAnnotation(span: Span, size: Size, picked: boolean): ImageAnnotation {
  const { label, type, points } = span;
  const keypoints = span.keypoints && copied(span.keypoints, size);
  const shown = fromSpan({ id: uuid(), label, type, points, picked, keypoints, ...cut(span, size) });
  const { selector } = shown.target;
  const inside = isPolygon(selector) ? clippedPolygon(selector, size) : null;
  return inside ? { ...shown, target: { ...shown.target, selector: inside } } : shown;
}

/** Moves a polygon by (dx, dy), but not beyond the image. */
export function movedPolygon(shape: Polygon, dx: number, dy: number, size: Size): Polygon {
  const room = boundsOf(polygonShape(shape.geometry.points as Point[]));
  const { x, y } = shifted({ ...room, x: room.x + dx, y: room.y + dy }, size);
  return polygonShape(shape.geometry.points.map(([px, py]) => [px! + x - room.x, py! + y - room.y] as Point));
}
