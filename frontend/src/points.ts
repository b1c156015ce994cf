/** The keypoints on the image: what is drawn, and what gestures and keys do with those of the selected box. */

import type { Box, Size } from "./boxes";
import type { Colours } from "./colours";
import { inside, isThere, NEXT_VISIBILITY, NOT_THERE, VISIBILITY_NAMES, VISIBLE, type Skeletons } from "./keypoints";
import type { Keypoint, Point } from "./messages";

const SVG = "http://www.w3.org/2000/svg";
/** Maximum reach of a keypoint as a share of its box, so that the inside of small boxes stays free. */
const MAX_REACH = 0.15;
const MIN_REACH_PX = 5;
/** Radius of the keypoints of boxes that are not selected, in screen pixels. */
const DOT_PX = 3;

export interface PointsContext {
  /** The selected box, unless it is hidden. */
  box: () => Box | null;
  scale: () => number;
  /** Changes the keypoints of a box; this is not an undo step before `commit`. */
  set: (id: string, keypoints: Keypoint[]) => void;
  /** Consecutive steps of the same kind are one undo step. */
  commit: (id: string, kind?: string) => void;
}

export class Points {
  private readonly drawing = document.createElementNS(SVG, "svg");
  private buttons: HTMLButtonElement[] = [];
  private shownFor: string | null = null;
  private size: Size = { width: 1, height: 1 };
  /** The keypoints of the box before the drag. */
  private before: { id: string; keypoints: Keypoint[] } | null = null;

  constructor(
    private readonly layer: HTMLElement,
    private readonly colours: Colours,
    private readonly skeletons: Skeletons,
    private readonly context: PointsContext,
  ) {
    this.drawing.setAttribute("aria-hidden", "true");
    layer.append(this.drawing);
  }

  /** boxes: those that are not hidden. */
  update(boxes: Box[], size: Size): void {
    this.size = size;
    this.layer.hidden = !this.skeletons.any;
    if (!this.skeletons.any) return;
    const selected = this.context.box();
    this.drawing.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    const withKeypoints = boxes.filter(({ keypoints }) => keypoints?.length);
    this.drawing.replaceChildren(...withKeypoints.flatMap((box) => this.draw(box, box.id === selected?.id)));
    this.showButtons(selected?.keypoints?.length ? selected : null);
  }

  /** The name of the nearest keypoint of the selected box within reach; null if there is none. */
  at([x, y]: Point, reach_px: number): string | null {
    const box = this.context.box();
    if (!box?.keypoints) return null;
    const scale = this.context.scale();
    const most = Math.max(MIN_REACH_PX, MAX_REACH * Math.min(box.width, box.height) * scale);
    const near = box.keypoints
      .map((point) => ({ name: point.name, distance: Math.hypot(point.x - x, point.y - y) * scale }))
      .filter(({ distance }) => distance <= Math.min(reach_px, most))
      .sort((a, b) => a.distance - b.distance);
    return near[0]?.name ?? null;
  }

  /** Drags a keypoint by (dx, dy) image pixels from its place at the start. One that was not there is visible then. */
  drag(name: string, dx: number, dy: number): void {
    const box = this.context.box();
    if (!box?.keypoints) return;
    if (this.before?.id !== box.id) this.before = { id: box.id, keypoints: box.keypoints };
    this.context.set(box.id, this.moved(this.before.keypoints, name, dx, dy));
  }

  drop(name: string): void {
    const { before } = this;
    this.before = null;
    if (before) this.context.commit(before.id);
    this.focus(name);
  }

  /** Cancels the drag. */
  putBack(): void {
    const { before } = this;
    this.before = null;
    if (before) this.context.set(before.id, before.keypoints);
  }

  /** The name of the keypoint that has the focus. */
  get focused(): string | null {
    const button = this.buttons.find((other) => other === document.activeElement);
    return button?.dataset.name ?? null;
  }

  /** Moves the focus to another keypoint of the selected box; returns it, null if the box has none. */
  focusNext(step: 1 | -1): Keypoint | null {
    const points = this.context.box()?.keypoints ?? [];
    if (!points.length) return null;
    const at = points.findIndex(({ name }) => name === this.focused);
    const next = points[at < 0 ? (step > 0 ? 0 : points.length - 1) : (at + step + points.length) % points.length]!;
    this.focus(next.name);
    return next;
  }

  blur(): void {
    this.buttons.find((button) => button === document.activeElement)?.blur();
  }

  /** Moves the focused keypoint by (dx, dy) image pixels. */
  nudge(dx: number, dy: number): void {
    const { focused } = this;
    const box = this.context.box();
    if (!box?.keypoints || focused === null) return;
    this.context.set(box.id, this.moved(box.keypoints, focused, dx, dy));
    this.context.commit(box.id, `keypoint ${focused} ${box.id}`);
  }

  /** Makes a keypoint visible, hidden, or not there, in turn; returns the keypoint. */
  cycle(name: string): Keypoint | null {
    const point = this.context.box()?.keypoints?.find((other) => other.name === name);
    return point ? this.change(name, { ...point, visibility: NEXT_VISIBILITY[point.visibility] }) : null;
  }

  /** Marks a keypoint as not there. */
  markNotThere(name: string): Keypoint | null {
    const point = this.context.box()?.keypoints?.find((other) => other.name === name);
    return point && isThere(point) ? this.change(name, { ...point, visibility: NOT_THERE }) : null;
  }

  /** Makes all keypoints of the selected box visible that are not there, where they are; returns their number. */
  confirm(): number {
    const box = this.context.box();
    const count = (box?.keypoints ?? []).filter((point) => !isThere(point)).length;
    if (!box?.keypoints || !count) return 0;
    const confirmed = box.keypoints.map((point) => (isThere(point) ? point : { ...point, visibility: VISIBLE }));
    this.context.set(box.id, confirmed);
    this.context.commit(box.id);
    return count;
  }

  focus(name: string): void {
    this.buttons.find((button) => button.dataset.name === name)?.focus({ preventScroll: true });
  }

  private change(name: string, changed: Keypoint): Keypoint {
    const box = this.context.box()!;
    this.context.set(box.id, box.keypoints!.map((point) => (point.name === name ? changed : point)));
    this.context.commit(box.id);
    return changed;
  }

  private moved(points: Keypoint[], name: string, dx: number, dy: number): Keypoint[] {
    return points.map((point) => {
      if (point.name !== name) return point;
      const visibility = isThere(point) ? point.visibility : VISIBLE;
      return { name, ...inside(point.x + dx, point.y + dy, this.size), visibility };
    });
  }

  /** The lines between the keypoints of a box, and its keypoints, unless buttons show them. */
  private draw({ label, keypoints = [] }: Box, selected: boolean): SVGElement[] {
    const color = this.colours.of(label);
    const lines = (this.skeletons.of(label)?.edges ?? []).flatMap(([from, to]) => {
      const [a, b] = [keypoints[from], keypoints[to]];
      if (!a || !b) return [];
      const there = isThere(a) && isThere(b);
      if (!there && !selected) return [];
      const ends = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
      return [shape("line", { ...ends, stroke: color, class: there ? "edge" : "edge proposed" })];
    });
    const r = DOT_PX / this.context.scale();
    const dots = (selected ? [] : keypoints.filter(isThere)).map(({ x, y, visibility }) =>
      shape("circle", { cx: x, cy: y, r, stroke: color, fill: visibility === VISIBLE ? color : "none", class: "dot" }),
    );
    return [...lines, ...dots];
  }

  private showButtons(box: Box | null): void {
    const points = box?.keypoints ?? [];
    if (this.shownFor !== (box?.id ?? null) || this.buttons.length !== points.length) {
      for (const button of this.buttons) button.remove();
      this.buttons = points.map(({ name }) => this.layer.appendChild(this.createButton(name)));
      this.shownFor = box?.id ?? null;
    }
    points.forEach((point, index) => this.place(this.buttons[index]!, point, box!, index));
  }

  private createButton(name: string): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "keypoint";
    button.dataset.testid = "keypoint";
    const text = button.appendChild(document.createElement("span"));
    text.textContent = name;
    // Only keys and screen readers click it. gestures.ts handles the pointer.
    button.addEventListener("click", () => this.cycle(button.dataset.name!));
    return button;
  }

  private place(button: HTMLButtonElement, { name, x, y, visibility }: Keypoint, box: Box, index: number): void {
    const { style, dataset } = button;
    Object.assign(dataset, { name, visibility: String(visibility), at: `${x},${y}` });
    button.firstElementChild!.textContent = name;
    style.left = `${(x / this.size.width) * 100}%`;
    style.top = `${(y / this.size.height) * 100}%`;
    style.setProperty("--box", this.colours.of(box.label));
    const place = `keypoint ${index + 1} of ${box.keypoints!.length} of ${box.label}`;
    button.setAttribute("aria-label", `${name}, ${VISIBILITY_NAMES[visibility]}, ${place}`);
  }
}

function shape(kind: "line" | "circle", attributes: { [name: string]: string | number }): SVGElement {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}
