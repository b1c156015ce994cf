/** The latest answers: the server's list, preceded by this page's answers that are pending or not in the list yet. */

import { api } from "./api";
import type { Waiting } from "./outbox";
import type { PastAnswer, Sender } from "./messages";

const REFRESH_MS = 250;

export interface PastRecord extends PastAnswer {
  answered_at_ms: number;
}

export class Records {
  private stored: PastRecord[] = [];
  private fresh: PastRecord[] = [];
  private timer = 0;

  constructor(
    private readonly who: Sender,
    private readonly changed: () => void,
  ) {}

  list(waiting: Waiting[]): PastRecord[] {
    const own = waiting.map((entry) => record(entry, "sending")).reverse();
    const seen = new Set<string>();
    return [...own, ...this.fresh, ...this.stored]
      .filter(({ image_id }) => !seen.has(image_id) && seen.add(image_id))
      .slice(0, 20);
  }

  /** Shows answers as saved until the server's list includes them. */
  saved(entries: Waiting[]): void {
    this.fresh = [...entries.map((entry) => record(entry, "saved")).reverse(), ...this.fresh];
    this.refresh();
  }

  /** Schedules a refresh; several calls within `REFRESH_MS` cause one request. */
  refresh(): void {
    this.timer ||= window.setTimeout(() => void this.fetch(), REFRESH_MS);
  }

  private async fetch(): Promise<void> {
    this.timer = 0;
    const before = this.fresh;
    try {
      const { answers } = await api.history(this.who);
      const now = Date.now();
      this.stored = answers.map((answer) => ({ ...answer, answered_at_ms: now - answer.answered_s_ago * 1000 }));
      this.fresh = this.fresh.filter((entry) => !before.includes(entry));
      this.changed();
    } catch {
      // The list is a convenience, so errors are ignored; the next change retries.
    }
  }
}

function record({ image_id, file, answer, spans, answered_at_ms }: Waiting, state: string): PastRecord {
  return { image_id, file, answer, boxes: spans.length, answered_s_ago: 0, state, answered_at_ms };
}
