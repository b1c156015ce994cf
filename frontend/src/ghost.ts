/** The dashed outline of a candidate, which a click or Enter makes a box. It is under the pointer, or keys show it. */

import { toRect } from "./candidates";
import type { Candidate } from "./messages";

export class Ghost {
  /** The candidate whose outline is shown. */
  shown: Candidate | null = null;
  /** Whether keys show it, wherever the pointer is. The pointer must move to show another one. */
  pinned = false;

  /** The candidates under the pointer, best first. */
  private under: Candidate[] = [];
  /** The one of them that a key or the wheel has chosen. It stays until the pointer leaves it. */
  private chosen: Candidate | null = null;

  constructor(
    private readonly element: HTMLElement,
    private readonly scale: () => number,
    private readonly label: () => string,
    private readonly color: () => string,
  ) {}

  /** under: the candidates under the pointer, best first; free: no box is there, so the best one is shown. */
  point(under: Candidate[], free: boolean): void {
    this.under = under;
    if (this.chosen && !under.includes(this.chosen)) this.chosen = null;
    if (!this.pinned) this.show(this.chosen ?? (free ? (under[0] ?? null) : null));
  }

  /** Shows a candidate that need not be under the pointer. */
  pin(candidate: Candidate): void {
    this.pinned = true;
    this.show(candidate);
  }

  /** Hides the candidate that keys show, if any. */
  unpin(): void {
    if (this.pinned) this.hide();
  }

  hide(): void {
    this.pinned = false;
    this.point([], false);
  }

  /** Number of candidates under the pointer. */
  get choices(): number {
    return this.under.length;
  }

  /** Shows the next or previous candidate under the pointer, also over a box. */
  cycle(step: 1 | -1): void {
    const count = this.under.length;
    const index = this.shown ? this.under.indexOf(this.shown) + step : step > 0 ? 0 : -1;
    this.chosen = this.under[(index + count) % count] ?? null;
    this.show(this.chosen);
  }

  private show(candidate: Candidate | null): void {
    this.shown = candidate;
    this.element.hidden = candidate === null;
    if (!candidate) return;
    const { x, y, width, height } = toRect(candidate);
    const { style, dataset } = this.element;
    const scale = this.scale();
    style.transform = `translate(${x * scale}px, ${y * scale}px)`;
    style.width = `${width * scale}px`;
    style.height = `${height * scale}px`;
    style.setProperty("--box", this.color());
    dataset.label = this.label();
    dataset.rect = candidate.rect.join(",");
  }
}
