/** The size of the image on the screen. Zooming changes the layout inside a scroll container. */

import { clamp, type Rect, type Size } from "./boxes";
import type { Point } from "./messages";

/** The same value as in stage.css. */
const MARGIN_PX = 14;
const MAX_ENLARGED_AT_FIT = 8;
const MIN_ZOOM = 0.5;
const MAX_ZOOM = 24;

export class View {
  /** 1: the whole image fits the stage. */
  zoom = 1;
  private size: Size = { width: 1, height: 1 };
  private fitScale = 1;
  private readonly observer: ResizeObserver;

  constructor(
    private readonly scroll: HTMLElement,
    private readonly frame: HTMLElement,
    private readonly changed: () => void,
  ) {
    this.observer = new ResizeObserver(() => this.layOut());
    this.observer.observe(scroll);
  }

  /** Screen pixels per image pixel. */
  get scale(): number {
    return this.fitScale * this.zoom;
  }

  show(size: Size): void {
    this.size = size;
    this.zoom = 1;
    this.layOut();
  }

  fit(): void {
    this.zoom = 1;
    this.layOut();
  }

  /** Zooms towards a point in window coordinates, or towards the centre of the view. */
  zoomBy(factor: number, at?: Point): void {
    const seen = this.scroll.getBoundingClientRect();
    const [clientX, clientY] = at ?? [seen.left + seen.width / 2, seen.top + seen.height / 2];
    const [x, y] = this.toImage(clientX, clientY);
    this.zoom = clamp(this.zoom * factor, MIN_ZOOM, MAX_ZOOM);
    if (Math.abs(this.zoom - 1) < 0.02) this.zoom = 1;
    this.layOut();
    const frame = this.frame.getBoundingClientRect();
    this.pan(frame.left + x * this.scale - clientX, frame.top + y * this.scale - clientY);
  }

  pan(dx_px: number, dy_px: number): void {
    this.scroll.scrollLeft += dx_px;
    this.scroll.scrollTop += dy_px;
  }

  toImage(clientX: number, clientY: number): Point {
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    return [((clientX - left) / (width || 1)) * this.size.width, ((clientY - top) / (height || 1)) * this.size.height];
  }

  /** As toImage, but clamped to the image, because a drag may start or end outside. */
  inside(at: Point): Point {
    const [x, y] = this.toImage(...at);
    return [clamp(x, 0, this.size.width), clamp(y, 0, this.size.height)];
  }

  /** Converts a rectangle of the image to screen pixels relative to an element's upper left corner. */
  toStage({ x, y, width, height }: Rect, element: DOMRect): Rect {
    const { left, top } = this.frame.getBoundingClientRect();
    const { scale } = this;
    return {
      x: left - element.left + x * scale,
      y: top - element.top + y * scale,
      width: width * scale,
      height: height * scale,
    };
  }

  /** The visible part of the image, in image pixels. */
  seen(): Rect {
    const { left, top, right, bottom } = this.scroll.getBoundingClientRect();
    const [x0, y0] = this.toImage(left, top);
    const [x1, y1] = this.toImage(right, bottom);
    const x = Math.max(0, x0);
    const y = Math.max(0, y0);
    return { x, y, width: Math.min(this.size.width, x1) - x, height: Math.min(this.size.height, y1) - y };
  }

  /** Scrolls a rectangle of the image into view, its upper left part if it is larger than the view. */
  reveal({ x, y, width, height }: Rect): void {
    const seen = this.seen();
    const away = (start: number, length: number, seenFrom: number, seenLength: number) =>
      start < seenFrom || length > seenLength ? start - seenFrom : Math.max(0, start + length - seenFrom - seenLength);
    this.pan(away(x, width, seen.x, seen.width) * this.scale, away(y, height, seen.y, seen.height) * this.scale);
  }

  private layOut(): void {
    // The border box, so that a scroll bar that appears or disappears does not change the fit.
    const room = this.scroll.getBoundingClientRect();
    const across = Math.max(40, room.width - 2 * MARGIN_PX) / this.size.width;
    const down = Math.max(40, room.height - 2 * MARGIN_PX) / this.size.height;
    this.fitScale = Math.min(across, down, MAX_ENLARGED_AT_FIT);
    this.frame.style.width = `${this.size.width * this.scale}px`;
    this.frame.style.height = `${this.size.height * this.scale}px`;
    this.changed();
  }
}
