/** The gallery's list of images. Only the pages that are scrolled into view are fetched. */

import { api } from "./api";
import { Backoff } from "./backoff";
import type { GalleryFilter, GalleryImage, Sender } from "./messages";
import { errorMessage } from "./format";

const PAGE = 100;
/** Delay before a request, so that fast scrolling causes none. */
const ASK_AFTER_MS = 80;

export type Filter = Required<GalleryFilter>;

export const NO_FILTER: Filter = {
  state: "all",
  label: "",
  decision: "",
  annotator: "",
  min_score: null,
  max_score: null,
  name: "",
};

export class GalleryList {
  /** null until the first page has arrived. */
  total: number | null = null;
  missing = "";
  trouble = "";

  private readonly pages = new Map<number, GalleryImage[]>();
  private readonly asked = new Set<number>();
  private wanted: number[] = [];
  private timer = 0;
  private closed = false;
  private readonly backoff = new Backoff(1_000, 10_000);
  /** performance.now() before which no request is sent. */
  private not_before = 0;

  constructor(
    private readonly who: Sender,
    private readonly filter: Filter,
    private readonly changed: () => void,
  ) {
    void this.fetch(0);
  }

  at(index: number): GalleryImage | null {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE] ?? null;
  }

  /** Called with the range of images that is on the screen. */
  show(first: number, last: number): void {
    const pages = [Math.floor(first / PAGE), Math.floor(last / PAGE)];
    this.wanted = [...new Set(pages)].filter((page) => page >= 0 && !this.asked.has(page));
    this.schedule();
  }

  private schedule(): void {
    clearTimeout(this.timer);
    if (!this.wanted.length || this.closed) return;
    const wait_ms = Math.max(ASK_AFTER_MS, this.not_before - performance.now());
    this.timer = window.setTimeout(() => this.wanted.forEach((page) => void this.fetch(page)), wait_ms);
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
  }

  private async fetch(page: number): Promise<void> {
    if (this.closed || this.asked.has(page)) return;
    this.asked.add(page);
    try {
      const { total, images, missing } = await api.images(this.who, this.filter, page * PAGE, PAGE);
      if (this.closed) return;
      this.pages.set(page, images);
      Object.assign(this, { total, missing, trouble: "" });
      this.backoff.reset();
    } catch (error) {
      this.asked.delete(page);
      this.trouble = errorMessage(error);
      this.not_before = performance.now() + this.backoff.next();
      // Nothing on the screen would request the first page, because it shows no images yet.
      if (!this.wanted.includes(page)) this.wanted.push(page);
      this.schedule();
    }
    if (!this.closed) this.changed();
  }
}
