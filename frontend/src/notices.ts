/** Short messages of the page. */

const NOTICE_MS = 5_000;

export class Notices {
  /** Shown below the image for a while, and read by screen readers. */
  notice = "";
  /** Only for screen readers: the image that is shown now. */
  announcement = "";

  private timer = 0;

  constructor(private readonly changed: () => void) {}

  show(text: string): void {
    this.notice = text;
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      this.notice = "";
      this.changed();
    }, NOTICE_MS);
    this.changed();
  }

  announce(text: string): void {
    this.announcement = text;
    this.changed();
  }
}
