/** Keypoints of boxes: which ones a label has, where they are put at first, and how they follow their box. */

import type { Rect, Size } from "./boxes";
import type { Keypoint, Label, Point, Span, Visibility } from "./messages";

/** COCO's visibilities. A keypoint that is not there is not trained; its place is a proposal. */
export const [NOT_THERE, HIDDEN, VISIBLE]: [Visibility, Visibility, Visibility] = [0, 1, 2];

export const VISIBILITY_NAMES: { [visibility in Visibility]: string } = { 0: "not there", 1: "hidden", 2: "visible" };

/** What the next click or key makes of a keypoint. */
export const NEXT_VISIBILITY: { [visibility in Visibility]: Visibility } = { 0: VISIBLE, 2: HIDDEN, 1: NOT_THERE };

/** The keypoints that the objects of a label have. */
export interface Skeleton {
  names: string[];
  /** Pairs of places in `names`. */
  edges: [number, number][];
}

export class Skeletons {
  private byLabel = new Map<string, Skeleton>();
  /** Where a person put the keypoints of the last box of a label, by name, as shares of the box. */
  private readonly layouts = new Map<string, Map<string, Point>>();

  take(labels: Label[]): void {
    const withKeypoints = labels.filter(({ keypoints }) => keypoints.length);
    this.byLabel = new Map(withKeypoints.map(({ name, keypoints, edges }) => [name, { names: keypoints, edges }]));
  }

  /** Whether any label has keypoints. */
  get any(): boolean {
    return this.byLabel.size > 0;
  }

  of(label: string): Skeleton | null {
    return this.byLabel.get(label) ?? null;
  }

  /** All keypoints of a box, in the order of its label: the known ones, and the others as proposals that are not there.
   * undefined if the label has none. */
  complete(label: string, box: Rect, known: Keypoint[] = []): Keypoint[] | undefined {
    const names = this.of(label)?.names;
    const layout = this.layouts.get(label);
    return names?.map((name, index) => {
      const [x, y] = layout?.get(name) ?? spread(index, names.length);
      const proposal = { name, x: rounded(box.x + x * box.width), y: rounded(box.y + y * box.height) };
      return known.find((point) => point.name === name) ?? { ...proposal, visibility: NOT_THERE };
    });
  }

  /** A span with all keypoints of its label. */
  completed(span: Span): Span {
    return { ...span, keypoints: this.complete(span.label, span, span.keypoints) };
  }

  /** Notes the places of a box's keypoints for the next box of its label, if a person has placed any of them. */
  remember({ label, keypoints = [], x, y, width, height }: Rect & { label: string; keypoints?: Keypoint[] }): void {
    const placed = keypoints.filter(isThere);
    if (!placed.length || !width || !height) return;
    const layout = this.layouts.get(label) ?? new Map<string, Point>();
    for (const point of placed) layout.set(point.name, [(point.x - x) / width, (point.y - y) / height]);
    this.layouts.set(label, layout);
  }
}

export const isThere = ({ visibility }: Keypoint) => visibility !== NOT_THERE;

/** Places in a grid inside a box, as shares of its sides. */
function spread(index: number, count: number): Point {
  const columns = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / columns);
  return [((index % columns) + 0.5) / columns, (Math.floor(index / columns) + 0.5) / rows];
}

/** The keypoints of a box after it was moved or resized; they stay inside the image. */
export function carried(points: Keypoint[], from: Rect, to: Rect, size: Size): Keypoint[] {
  const place = (at: number, start: number, length: number, newStart: number, newLength: number) =>
    newStart + (at - start) * (length > 0 ? newLength / length : 1);
  return points.map((point) => ({
    ...point,
    ...inside(
      place(point.x, from.x, from.width, to.x, to.width),
      place(point.y, from.y, from.height, to.y, to.height),
      size,
    ),
  }));
}

/** The keypoints of another image's box in this image: those outside it are not there. */
export function copied(points: Keypoint[], size: Size): Keypoint[] {
  return points.map((point) => {
    const place = inside(point.x, point.y, size);
    const isInside = Math.abs(place.x - point.x) < 1 && Math.abs(place.y - point.y) < 1;
    return { ...point, ...place, visibility: isInside ? point.visibility : NOT_THERE };
  });
}

export function inside(x: number, y: number, { width, height }: Size): { x: number; y: number } {
  return { x: rounded(Math.min(Math.max(x, 0), width)), y: rounded(Math.min(Math.max(y, 0), height)) };
}

/** Whether two boxes have the same keypoints; where those are that are not there does not matter. */
export function sameKeypoints(a: Keypoint[] = [], b: Keypoint[] = []): boolean {
  return a.length === b.length && a.every((point, index) => same(point, b[index]!));
}

function same(a: Keypoint, b: Keypoint): boolean {
  const close = Math.abs(a.x - b.x) < 0.02 && Math.abs(a.y - b.y) < 0.02;
  return a.name === b.name && a.visibility === b.visibility && (close || !isThere(a));
}

const rounded = (value: number) => Math.round(value * 100) / 100;
