/** Measures how long a person works on the shown image. */

import type { QueuedTask } from "./queue";

/** A longer pause between two actions counts as this long, because the person may have left. */
const MAX_PAUSE_MS = 30_000;
const ACTIONS = ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"];

export class ActiveTime {
  private queued: QueuedTask | null = null;
  /** Up to when the time is counted, on the clock of performance.now(); null while it does not count. */
  private counted_ms: number | null = null;

  /** covered: whether something covers the image, so that nobody works on it. */
  constructor(private readonly covered: () => boolean) {
    // Before other listeners, which may answer the image or store it as a draft.
    for (const action of ACTIONS) addEventListener(action, () => this.count(), { capture: true, passive: true });
    for (const change of ["focus", "blur"]) addEventListener(change, () => this.refresh());
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  /** Called when an image is painted: from now on, time is added to its `active_ms`. */
  start(queued: QueuedTask): void {
    this.stop();
    this.queued = queued;
    this.refresh();
  }

  /** Called when the image is answered or leaves the screen. */
  stop(): void {
    this.count();
    this.queued = null;
    this.counted_ms = null;
  }

  /** Called when the conditions may have changed: time counts while the image is visible and the page is focused. */
  refresh(): void {
    const counts =
      this.queued !== null && document.visibilityState === "visible" && document.hasFocus() && !this.covered();
    if (counts === (this.counted_ms !== null)) return;
    this.count();
    this.counted_ms = counts ? performance.now() : null;
  }

  private count(): void {
    if (this.queued === null || this.counted_ms === null) return;
    const now_ms = performance.now();
    this.queued.active_ms += Math.min(now_ms - this.counted_ms, MAX_PAUSE_MS);
    this.counted_ms = now_ms;
  }
}
