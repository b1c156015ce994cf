/** Undo history: the state of the boxes after each change. */

const MERGED_MS = 1_000;

export class Steps<T> {
  private readonly states: T[];
  private at = 0;
  private kind = "";
  private until = 0;

  constructor(first: T) {
    this.states = [first];
  }

  /** Consecutive changes of the same kind within `MERGED_MS` are one step; changes without a kind are never merged. */
  add(state: T, kind = ""): void {
    const now = performance.now();
    const merged = kind !== "" && kind === this.kind && now < this.until;
    if (!merged) this.at += 1;
    this.states.splice(this.at, Infinity, state);
    this.kind = kind;
    this.until = now + MERGED_MS;
  }

  /** The state after the last change. */
  get current(): T {
    return this.states[this.at]!;
  }

  /** Replaces states, without a step. */
  change(replace: (state: T) => T): void {
    this.states.splice(0, Infinity, ...this.states.map(replace));
  }

  has(step: -1 | 1): boolean {
    return this.states[this.at + step] !== undefined;
  }

  /** The state one step back (-1) or forward (1); null if there is none. */
  go(step: -1 | 1): T | null {
    const state = this.states[this.at + step];
    if (state === undefined) return null;
    this.at += step;
    this.kind = "";
    return state;
  }
}
