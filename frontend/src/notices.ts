/** What the page says in passing. */

const NOTICE_MS = 5_000;

export class Notices {
  /** In the line under the image, for a while, and to screen readers. */
  notice = "";
  /** To screen readers only: what is on the desk now. */
  announcement = "";

  private timer = 0;

  constructor(private readonly changed: () => void) {}

  say(text: string): void {
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
