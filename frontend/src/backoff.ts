/** Exponential backoff: the delay in ms before the next retry, which doubles up to a maximum. */
export class Backoff {
  private delay_ms: number;

  constructor(
    private readonly min_ms: number,
    private readonly max_ms: number,
  ) {
    this.delay_ms = min_ms;
  }

  next(): number {
    const delay_ms = this.delay_ms;
    this.delay_ms = Math.min(2 * delay_ms, this.max_ms);
    return delay_ms;
  }

  /** Called after a success. */
  reset(): void {
    this.delay_ms = this.min_ms;
  }
}
