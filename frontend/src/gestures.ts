/** Pointer gestures on the stage: draw, edit, select, pan, pinch. Selected polygons are left to the canvas's editor. */

import type { Extra, Rect } from "./boxes";
import { candidatesAt, snapTarget, toRect } from "./candidates";
import type { Canvas } from "./canvas";
import type { Ghost } from "./ghost";
import { between, type Hit, type Reach } from "./grips";
import { tagText } from "./tags";
import type { Candidate, Point } from "./messages";
import type { View } from "./view";
import { undoHint } from "./format";

/** Precision of a pointer, in screen pixels. */
interface Aim extends Reach {
  /** Shorter movements are clicks. */
  click_px: number;
  /** Distance from a keypoint at which it can be grabbed; less than of a corner, where keypoints often are. */
  keypoint_px: number;
  /** Distance from a box within which a click still selects it. */
  buffer_px: number;
  /** Minimum width and height of a drawn box; smaller ones are accidents. */
  smallest_px: number;
}

const MOUSE: Aim = { edge_px: 7, corner_px: 11, keypoint_px: 7, click_px: 3, buffer_px: 3, smallest_px: 6 };
const TOUCH: Aim = { edge_px: 12, corner_px: 20, keypoint_px: 16, click_px: 8, buffer_px: 10, smallest_px: 10 };

/** Less than a notch of a mouse wheel in any browser; touch pads report many smaller movements. */
const WHEEL_STEP_PX = 40;

const TOO_SMALL = "too small for a box; zoom in to draw around small objects";

const pointerAim = ({ pointerType }: PointerEvent) => (pointerType === "touch" ? TOUCH : MOUSE);

export interface GestureContext {
  canvas: Canvas;
  view: View;
  /** Whether the hand tool is active, so that dragging moves the image. */
  hand: () => boolean;
  /** Whether an image is shown and can be edited. */
  open: () => boolean;
  /** Whether the candidates under the pointer are shown. */
  candidates: () => boolean;
  /** Called when a candidate was picked. */
  picked: () => void;
  label: () => string;
  color: () => string;
  notify: (text: string) => void;
}

/** from, at: window coordinates; start: a point of the image, which may move under the pointer; candidate: what a click
 * picks. */
type Gesture =
  | { kind: "draw"; pointer: number; from: Point; at: Point; start: Point; candidate: Candidate | null }
  | { kind: "edit"; pointer: number; from: Point; start: Point; hit: Hit; moved: boolean; candidate: Candidate | null }
  | { kind: "keypoint"; pointer: number; from: Point; start: Point; name: string; moved: boolean }
  | { kind: "press"; pointer: number; from: Point }
  | { kind: "pan"; pointer: number; at: Point }
  | { kind: "pinch"; distance: number; at: Point }
  | null;

export class Gestures {
  private gesture: Gesture = null;
  /** The last event of the mouse over the stage. */
  private under: PointerEvent | null = null;
  /** The image over which the mouse moved last; another one may have come under it. */
  private pointedAt: string | null = null;
  /** How far the wheel has turned since it showed another candidate. */
  private turned_px = 0;
  private readonly touches = new Map<number, Point>();

  constructor(
    private readonly scroll: HTMLElement,
    private readonly rubber: HTMLElement,
    readonly ghost: Ghost,
    private readonly context: GestureContext,
  ) {
    scroll.addEventListener("pointerdown", this.onDown, true);
    scroll.addEventListener("pointermove", this.onMove, true);
    scroll.addEventListener("pointerup", this.onUp, true);
    scroll.addEventListener("pointercancel", this.onCancel, true);
    scroll.addEventListener("pointerleave", () => this.hover(null));
    window.addEventListener("keydown", this.onShift);
    window.addEventListener("keyup", this.onShift);
    scroll.addEventListener("wheel", this.onWheel, { passive: false });
    // Chrome starts autoscrolling after a press of the middle button.
    scroll.addEventListener("mousedown", (event) => event.button === 1 && event.preventDefault());
  }

  /** Whether a box is being drawn or changed. */
  get busy(): boolean {
    return this.gesture !== null && ["draw", "edit", "keypoint"].includes(this.gesture.kind);
  }

  /** Cancels the gesture and restores the previous state. */
  cancel(): void {
    if (this.gesture?.kind === "edit") this.context.canvas.putBack();
    if (this.gesture?.kind === "keypoint") this.context.canvas.points.putBack();
    this.gesture = null;
    this.rubber.hidden = true;
  }

  private readonly onDown = (event: PointerEvent) => {
    if (!this.context.open() || this.isOnScrollBar(event)) return;
    const at: Point = [event.clientX, event.clientY];
    this.ghost.unpin();
    if (event.pointerType === "touch") {
      if (event.isPrimary) this.touches.clear();
      this.touches.set(event.pointerId, at);
      if (this.touches.size === 2) return this.startPinch(event);
    }
    if (event.button === 1 || (event.button === 0 && this.context.hand()))
      return this.start(event, { kind: "pan", pointer: event.pointerId, at });
    if (event.button !== 0 || !event.isPrimary) return event.stopPropagation();
    const name = this.keypointAt(event);
    if (name !== null) {
      const start = this.context.view.toImage(...at);
      return this.start(event, { kind: "keypoint", pointer: event.pointerId, from: at, start, name, moved: false });
    }
    const onPolygon = (event.target as Element).closest(".a9s-annotation.selected") !== null;
    if (onPolygon && !event.shiftKey) {
      this.gesture = { kind: "press", pointer: event.pointerId, from: at };
      return;
    }
    const hit = this.hitAt(event);
    const candidate = this.candidateFor(event, hit);
    const gesture = { pointer: event.pointerId, from: at, candidate };
    const { canvas, view } = this.context;
    if (hit) return this.start(event, { ...gesture, kind: "edit", start: view.toImage(...at), hit, moved: false });
    canvas.select(null);
    this.start(event, { ...gesture, kind: "draw", at, start: view.inside(at) });
  };

  /** What a click picks: the candidate that is shown, or on a touch screen, which shows none, the best one. */
  private candidateFor(event: PointerEvent, hit: Hit | null): Candidate | null {
    if (event.pointerType !== "touch") this.hover(event);
    else if (this.isFree(event, hit)) return this.candidatesAt(event)[0] ?? null;
    return this.ghost.shown;
  }

  private candidatesAt(event: PointerEvent): Candidate[] {
    if (!this.context.candidates() || this.context.hand()) return [];
    const { canvas, view } = this.context;
    return candidatesAt(canvas.candidates, canvas.boxes, view.toImage(event.clientX, event.clientY));
  }

  /** Whether a click here selects nothing. If a person has selected a box, it deselects that box instead. */
  private isFree(event: PointerEvent, hit: Hit | null): boolean {
    const { canvas, view } = this.context;
    const at = view.toImage(event.clientX, event.clientY);
    return !hit && !canvas.chosen && canvas.idAt(at, pointerAim(event).buffer_px / view.scale) === null;
  }

  /** What a drag from here would change; with shift, a drag always draws. */
  private hitAt(event: PointerEvent): Hit | null {
    if (event.shiftKey || this.context.hand()) return null;
    return this.context.canvas.hitAt(this.context.view.toImage(event.clientX, event.clientY), pointerAim(event));
  }

  /** The keypoint of the selected box that a drag from here would move. */
  private keypointAt(event: PointerEvent): string | null {
    if (event.shiftKey || this.context.hand()) return null;
    const at = this.context.view.toImage(event.clientX, event.clientY);
    return this.context.canvas.points.at(at, pointerAim(event).keypoint_px);
  }

  private start(event: PointerEvent, gesture: Gesture): void {
    event.preventDefault();
    event.stopPropagation();
    (document.activeElement as HTMLElement | null)?.blur();
    this.scroll.setPointerCapture(event.pointerId);
    this.gesture = gesture;
  }

  private startPinch(event: PointerEvent): void {
    this.cancel();
    const [a, b] = [...this.touches.values()] as [Point, Point];
    this.start(event, { kind: "pinch", distance: Math.hypot(a[0] - b[0], a[1] - b[1]), at: middle(a, b) });
  }

  private readonly onMove = (event: PointerEvent) => {
    const at: Point = [event.clientX, event.clientY];
    if (this.touches.has(event.pointerId)) this.touches.set(event.pointerId, at);
    const gesture = this.gesture;
    if (!gesture && event.pointerType !== "touch") {
      this.notePointing(event);
      this.hover(event);
    }
    if (!gesture || gesture.kind === "press") return;
    event.stopPropagation();
    if (gesture.kind === "pinch") return this.pinch(gesture);
    if (gesture.pointer !== event.pointerId) return;
    if (gesture.kind === "edit" || gesture.kind === "keypoint") return this.change(gesture, at, pointerAim(event));
    if (gesture.kind === "pan") this.context.view.pan(gesture.at[0] - at[0], gesture.at[1] - at[1]);
    gesture.at = at;
    if (gesture.kind === "draw") this.stretch(gesture.start, at);
  };

  /** Browsers also report movements of the image under a mouse that rests. */
  private notePointing({ clientX, clientY }: PointerEvent): void {
    if (clientX === this.under?.clientX && clientY === this.under.clientY) return;
    this.ghost.unpin();
    this.turned_px = 0;
    this.pointedAt = this.context.canvas.task?.image_id ?? null;
  }

  private change(gesture: Gesture & { kind: "edit" | "keypoint" }, at: Point, { click_px }: Aim): void {
    gesture.moved ||= distance(gesture.from, at) >= click_px;
    if (!gesture.moved) return;
    const { canvas, view } = this.context;
    const [x, y] = view.toImage(...at);
    const [dx, dy] = [x - gesture.start[0], y - gesture.start[1]];
    if (gesture.kind === "edit") canvas.drag(gesture.hit, dx, dy);
    else canvas.points.drag(gesture.name, dx, dy);
  }

  /** Shows what a drag from here would do, with the cursor and the box's handles. */
  private hover(event: PointerEvent | null): void {
    this.under = event;
    const open = event !== null && this.context.open();
    const point = open ? this.keypointAt(event) : null;
    const hit = open && point === null ? this.hitAt(event) : null;
    const at = open && !event.shiftKey && !this.context.hand() ? this.context.view.toImage(event.clientX, event.clientY) : null;
    this.context.canvas.hover(at, hit);
    this.scroll.dataset.grip = point === null ? (hit?.grip ?? "") : "keypoint";
    if (open) this.ghost.point(this.candidatesAt(event), point === null && this.isFree(event, hit));
    else this.ghost.point([], false);
  }

  /** Adapts what is shown under the mouse to a change of the boxes, the label, the zoom or the settings. */
  refresh(): void {
    if (this.under && !this.gesture) this.hover(this.under);
  }

  /** Hides the candidate under the pointer until the pointer moves. */
  dismissCandidate(): void {
    this.under = null;
    this.ghost.hide();
  }

  pickCandidate(): void {
    if (this.ghost.shown) this.pick(this.ghost.shown);
  }

  /** Whether the mouse points at candidates: it has moved since the image was shown. Keys then choose among these. */
  get points(): boolean {
    return this.ghost.choices > 0 && this.pointedAt === this.context.canvas.task?.image_id;
  }

  private readonly onShift = (event: KeyboardEvent) => {
    const { under } = this;
    if (event.key !== "Shift" || !under || this.gesture) return;
    const { pointerType, clientX, clientY } = under;
    this.hover(new PointerEvent("pointermove", { pointerType, clientX, clientY, shiftKey: event.type === "keydown" }));
  };

  private pinch(gesture: { distance: number; at: Point }): void {
    const [a, b] = [...this.touches.values()];
    if (!a || !b) return;
    const distance = Math.hypot(a[0] - b[0], a[1] - b[1]);
    const at = middle(a, b);
    this.context.view.pan(gesture.at[0] - at[0], gesture.at[1] - at[1]);
    if (gesture.distance > 0) this.context.view.zoomBy(distance / gesture.distance, at);
    gesture.distance = distance;
    gesture.at = at;
  }

  private readonly onUp = (event: PointerEvent) => {
    this.touches.delete(event.pointerId);
    const gesture = this.gesture;
    if (!gesture || (gesture.kind !== "pinch" && gesture.pointer !== event.pointerId)) return;
    const at: Point = [event.clientX, event.clientY];
    const aim = pointerAim(event);
    this.gesture = null;
    this.rubber.hidden = true;
    // The library's editor needs the event too, so it is not stopped.
    if (gesture.kind === "press") return this.finishPress(gesture.from, at, aim);
    event.stopPropagation();
    if (gesture.kind === "draw") this.finishDrawing(gesture, at, aim, event.altKey);
    if (gesture.kind === "edit") this.finishEdit(gesture, at, aim);
    if (gesture.kind === "keypoint") this.finishKeypoint(gesture);
    if (event.pointerType !== "touch") this.hover(event);
  };

  private readonly onCancel = (event: PointerEvent) => {
    this.touches.delete(event.pointerId);
    this.cancel();
  };

  /** snaps: the box is fitted to a candidate. Not by default: people draw better than a model that has learned from a
   * few dozen images. In simulated sessions, fitting all boxes lowered their IoU from 0.91 to 0.74. */
  private finishDrawing(gesture: Gesture & { kind: "draw" }, to: Point, aim: Aim, snaps: boolean): void {
    const { canvas, view, notify } = this.context;
    if (distance(gesture.from, to) < aim.click_px) return this.finishClick(gesture.candidate, to, aim);
    const box = between(gesture.start, view.inside(to));
    if (Math.min(box.width, box.height) * view.scale < aim.smallest_px) return notify(TOO_SMALL);
    this.draw(box);
    if (!snaps || !this.context.candidates()) return;
    const others = canvas.boxes.filter(({ id }) => id !== canvas.selected);
    const target = snapTarget(canvas.candidates, others, box);
    if (target && canvas.fit(toRect(target))) notify(`the box was fitted to a detection; ${undoHint("u")} restores what you drew`);
    else notify("the model detected nothing there that the box could be fitted to");
  }

  private draw(box: Rect, extra: Extra = {}): void {
    const replaced = this.context.canvas.draw(box, this.context.label(), extra);
    if (replaced) this.context.notify(`the new box replaces the suggestion ${tagText(replaced)}; ${undoHint("u")} undoes this`);
  }

  private pick(candidate: Candidate): void {
    const keypoints = candidate.label === this.context.label() ? candidate.keypoints : undefined;
    this.draw(toRect(candidate), { picked: true, keypoints });
    this.context.picked();
  }

  /** Picks the candidate, or else selects the box at the point, or else `otherwise`. */
  private finishClick(candidate: Candidate | null, at: Point, aim: Aim, otherwise: string | null = null): void {
    const { canvas, view } = this.context;
    if (candidate) this.pick(candidate);
    else canvas.select(canvas.idAt(view.toImage(...at), aim.buffer_px / view.scale) ?? otherwise);
  }

  /** Without movement it was a click, which selects the box there, possibly a smaller one inside this box. */
  private finishEdit({ hit, moved, candidate }: Gesture & { kind: "edit" }, at: Point, aim: Aim): void {
    if (moved) this.context.canvas.drop();
    else this.finishClick(candidate, at, aim, hit.id);
  }

  /** Without movement it was a click, which changes the keypoint's visibility. */
  private finishKeypoint({ name, moved }: Gesture & { kind: "keypoint" }): void {
    const { points } = this.context.canvas;
    if (!moved) points.cycle(name);
    points.drop(name);
  }

  /** A click on the selected polygon may be meant for a smaller box inside it. */
  private finishPress(from: Point, to: Point, aim: Aim): void {
    const { selected } = this.context.canvas;
    if (distance(from, to) < aim.click_px) setTimeout(() => this.finishClick(null, to, aim, selected));
  }

  private stretch(start: Point, to: Point): void {
    const { view } = this.context;
    const { x, y, width, height } = between(start, view.inside(to));
    const { style } = this.rubber;
    this.rubber.hidden = Math.max(width, height) * view.scale < MOUSE.click_px;
    if (!this.rubber.hidden) this.ghost.hide();
    style.setProperty("--box", this.context.color());
    style.left = `${x * view.scale}px`;
    style.top = `${y * view.scale}px`;
    style.width = `${width * view.scale}px`;
    style.height = `${height * view.scale}px`;
  }

  private readonly onWheel = (event: WheelEvent) => {
    if (!this.context.open()) return;
    const turned_px = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
    if (!event.ctrlKey && !event.metaKey) return this.turn(turned_px);
    event.preventDefault();
    this.context.view.zoomBy(Math.exp(-Math.max(-60, Math.min(60, turned_px)) / 180), [
      event.clientX,
      event.clientY,
    ]);
  };

  /** Shows another candidate under the mouse, where the wheel has nothing to scroll. */
  private turn(turned_px: number): void {
    const { ghost } = this;
    if (!ghost.shown || ghost.pinned || ghost.choices < 2 || overflows(this.scroll) || overflows(document.documentElement))
      return;
    this.turned_px += turned_px;
    if (Math.abs(this.turned_px) < WHEEL_STEP_PX) return;
    ghost.cycle(this.turned_px > 0 ? 1 : -1);
    this.turned_px = 0;
  }

  private isOnScrollBar(event: PointerEvent): boolean {
    const { left, top } = this.scroll.getBoundingClientRect();
    return (
      event.target === this.scroll &&
      (event.clientX > left + this.scroll.clientWidth || event.clientY > top + this.scroll.clientHeight)
    );
  }
}

const overflows = ({ scrollWidth, clientWidth, scrollHeight, clientHeight }: HTMLElement) =>
  scrollWidth > clientWidth || scrollHeight > clientHeight;

const middle = (a: Point, b: Point): Point => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

/** Chebyshev distance: the larger of the horizontal and the vertical distance. */
const distance = (a: Point, b: Point) => Math.max(Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
