/** The pointer on the stage: draw, select, pan, pinch. What happens on the selected box is left to the canvas. */

import type { Canvas } from "./canvas";
import type { Point } from "./wire";
import type { View } from "./view";

/** Screen pixels: anything smaller is a click, or an accident. */
const SMALLEST_PX = 3;
const TOUCH_BUFFER_PX = 10;
const MOUSE_BUFFER_PX = 3;

export interface Bench {
  canvas: Canvas;
  view: View;
  /** The hand tool is on: dragging moves the image. */
  hand: () => boolean;
  /** An image is shown and may be worked on. */
  open: () => boolean;
  label: () => string;
  color: () => string;
}

type Gesture =
  | { kind: "draw"; pointer: number; from: Point; at: Point }
  | { kind: "press"; pointer: number; from: Point }
  | { kind: "pan"; pointer: number; at: Point }
  | { kind: "pinch"; distance: number; at: Point }
  | null;

export class Gestures {
  private gesture: Gesture = null;
  private readonly touches = new Map<number, Point>();

  constructor(
    private readonly scroll: HTMLElement,
    private readonly rubber: HTMLElement,
    private readonly bench: Bench,
  ) {
    scroll.addEventListener("pointerdown", this.onDown, true);
    scroll.addEventListener("pointermove", this.onMove, true);
    scroll.addEventListener("pointerup", this.onUp, true);
    scroll.addEventListener("pointercancel", this.onCancel, true);
    scroll.addEventListener("wheel", this.onWheel, { passive: false });
    // Chrome scrolls by itself after a press of the middle button.
    scroll.addEventListener("mousedown", (event) => event.button === 1 && event.preventDefault());
  }

  get drawing(): boolean {
    return this.gesture?.kind === "draw";
  }

  cancel(): void {
    this.gesture = null;
    this.rubber.hidden = true;
  }

  private readonly onDown = (event: PointerEvent) => {
    if (!this.bench.open() || this.isOnScrollBar(event)) return;
    const at: Point = [event.clientX, event.clientY];
    if (event.pointerType === "touch") {
      if (event.isPrimary) this.touches.clear();
      this.touches.set(event.pointerId, at);
      if (this.touches.size === 2) return this.startPinch(event);
    }
    if (event.button === 1 || (event.button === 0 && this.bench.hand()))
      return this.start(event, { kind: "pan", pointer: event.pointerId, at });
    if (event.button !== 0 || !event.isPrimary) return event.stopPropagation();
    const onSelected = (event.target as Element).closest(".a9s-annotation.selected") !== null;
    if (onSelected && !event.shiftKey) {
      this.gesture = { kind: "press", pointer: event.pointerId, from: at };
      return;
    }
    this.bench.canvas.select(null);
    this.start(event, { kind: "draw", pointer: event.pointerId, from: at, at });
  };

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
    if (!gesture || gesture.kind === "press") return;
    event.stopPropagation();
    if (gesture.kind === "pinch") return this.pinch(gesture);
    if (gesture.pointer !== event.pointerId) return;
    if (gesture.kind === "pan") this.bench.view.pan(gesture.at[0] - at[0], gesture.at[1] - at[1]);
    gesture.at = at;
    if (gesture.kind === "draw") this.stretch(gesture.from, at);
  };

  private pinch(gesture: { distance: number; at: Point }): void {
    const [a, b] = [...this.touches.values()];
    if (!a || !b) return;
    const distance = Math.hypot(a[0] - b[0], a[1] - b[1]);
    const at = middle(a, b);
    this.bench.view.pan(gesture.at[0] - at[0], gesture.at[1] - at[1]);
    if (gesture.distance > 0) this.bench.view.zoomBy(distance / gesture.distance, at);
    gesture.distance = distance;
    gesture.at = at;
  }

  private readonly onUp = (event: PointerEvent) => {
    this.touches.delete(event.pointerId);
    const gesture = this.gesture;
    if (!gesture || (gesture.kind !== "pinch" && gesture.pointer !== event.pointerId)) return;
    const at: Point = [event.clientX, event.clientY];
    const byTouch = event.pointerType === "touch";
    this.cancel();
    // The editor has to hear of it, too.
    if (gesture.kind === "press") return this.finishPress(gesture.from, at, byTouch);
    event.stopPropagation();
    if (gesture.kind === "draw") this.finish(gesture.from, at, byTouch);
  };

  private readonly onCancel = (event: PointerEvent) => {
    this.touches.delete(event.pointerId);
    this.cancel();
  };

  private finish(from: Point, to: Point, byTouch: boolean): void {
    const { canvas, view } = this.bench;
    const [across, down] = [Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])];
    if (across < SMALLEST_PX && down < SMALLEST_PX) {
      canvas.selectAt(...view.toImage(...to), (byTouch ? TOUCH_BUFFER_PX : MOUSE_BUFFER_PX) / view.scale);
    } else if (across >= SMALLEST_PX && down >= SMALLEST_PX) {
      const { x, y, width, height } = between(view.inside(from), view.inside(to));
      if (width * view.scale >= 1 && height * view.scale >= 1) canvas.add({ x, y, width, height }, this.bench.label());
    }
  }

  /** A click on the selected box may mean a smaller one within it. */
  private finishPress(from: Point, to: Point, byTouch: boolean): void {
    if (Math.max(Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])) >= SMALLEST_PX) return;
    const { canvas, view } = this.bench;
    setTimeout(() =>
      canvas.selectAt(...view.toImage(...to), (byTouch ? TOUCH_BUFFER_PX : MOUSE_BUFFER_PX) / view.scale, true),
    );
  }

  private stretch(from: Point, to: Point): void {
    const { view } = this.bench;
    const { x, y, width, height } = between(view.inside(from), view.inside(to));
    const { style } = this.rubber;
    this.rubber.hidden = width * view.scale < SMALLEST_PX && height * view.scale < SMALLEST_PX;
    style.setProperty("--box", this.bench.color());
    style.left = `${x * view.scale}px`;
    style.top = `${y * view.scale}px`;
    style.width = `${width * view.scale}px`;
    style.height = `${height * view.scale}px`;
  }

  private readonly onWheel = (event: WheelEvent) => {
    if (!this.bench.open() || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.bench.view.zoomBy(Math.exp(-Math.max(-60, Math.min(60, event.deltaY * lines)) / 180), [
      event.clientX,
      event.clientY,
    ]);
  };

  private isOnScrollBar(event: PointerEvent): boolean {
    const { left, top } = this.scroll.getBoundingClientRect();
    return (
      event.target === this.scroll &&
      (event.clientX > left + this.scroll.clientWidth || event.clientY > top + this.scroll.clientHeight)
    );
  }
}

const middle = (a: Point, b: Point): Point => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

function between(a: Point, b: Point) {
  return {
    x: Math.min(a[0], b[0]),
    y: Math.min(a[1], b[1]),
    width: Math.abs(a[0] - b[0]),
    height: Math.abs(a[1] - b[1]),
  };
}
