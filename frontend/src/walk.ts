/** Keys go through the candidates of the whole image: Tab shows the next one, Enter or a label key picks it. */

import type { Rect } from "./boxes";
import { nextOpen, openCandidates, toRect } from "./candidates";
import type { Canvas } from "./canvas";
import type { Ghost } from "./ghost";
import type { Candidate } from "./messages";

export interface WalkContext {
  canvas: Canvas;
  ghost: Ghost;
  /** The label that a picked box gets. */
  label: () => string;
  /** Whether candidates are shown now. */
  open: () => boolean;
  /** Scrolls a rectangle of the image into view. */
  reveal: (rect: Rect) => void;
}

export class CandidateWalk {
  /** The candidate that keys have shown last, which may have been picked. */
  private last: Candidate | null = null;
  /** The image on which Escape was pressed: there, the next Tab moves the focus. */
  private releasedAt: string | null = null;

  constructor(private readonly context: WalkContext) {
    window.addEventListener("focusin", ({ target }) => {
      if (!isOnImage(target)) this.stop();
    });
  }

  /** The candidate that Tab (1) or Shift+Tab (-1) shows; null if the key moves the focus instead: there is none in this
   * direction, or Escape was pressed. Otherwise a keyboard could not leave the image. */
  next(step: 1 | -1): Candidate | null {
    const { canvas } = this.context;
    if (this.releasedAt !== null && this.releasedAt === canvas.task?.image_id) return null;
    return nextOpen(canvas.candidates, this.candidates(), this.last, step);
  }

  show(candidate: Candidate): void {
    const { canvas, ghost, reveal } = this.context;
    // Or label keys and arrows would change the selected box.
    canvas.select(null);
    this.last = candidate;
    ghost.pin(candidate);
    reveal(toRect(candidate));
  }

  /** Whether keys have shown the candidate that is on the screen. */
  get shows(): boolean {
    return this.context.ghost.pinned;
  }

  /** The next Tab moves the focus. */
  release(): void {
    this.releasedAt = this.context.canvas.task?.image_id ?? null;
    this.context.ghost.unpin();
  }

  /** Adapts the outline to the zoom and the label. Hides it if the candidate is no longer one, or if a box was selected,
   * which label keys then change. */
  refresh(): void {
    const { canvas, ghost } = this.context;
    if (this.last && !canvas.candidates.includes(this.last)) this.last = null;
    if (!ghost.pinned || !ghost.shown) return;
    if (!canvas.selected && this.candidates().includes(ghost.shown)) ghost.pin(ghost.shown);
    else ghost.unpin();
  }

  /** Called when the focus has left the image: the next walk begins with the best candidate. */
  private stop(): void {
    this.releasedAt = null;
    this.last = null;
    this.context.ghost.unpin();
  }

  private candidates(): Candidate[] {
    const { canvas, label, open } = this.context;
    return open() ? openCandidates(canvas.candidates, canvas.boxes, label()) : [];
  }
}

/** Whether a key event belongs to the image, because no control has the focus. */
export function isOnImage(target: EventTarget | null): boolean {
  if (target === document.body) return true;
  return target instanceof Element && target.closest(".scroll") !== null && target.closest(".keypoint") === null;
}
