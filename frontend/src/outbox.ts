/** Pending answers. An answer is removed only when the server confirms that it was saved or refused. */

import { api, ApiError, toApiError } from "./api";
import { Backoff } from "./backoff";
import type { AnswersReply, Decision, Sender, SentAnswer, Span } from "./messages";
import { keysWith, loadJson, save } from "./storage";

export interface Waiting {
  answer_id: string;
  image_id: string;
  file: string;
  answer: Decision;
  spans: Span[];
  /** The model version whose suggestions were shown. */
  version?: number | null;
  answered_at_ms: number;
  /** Time that the person worked for this answer; unknown for answers of an older page. */
  active_ms?: number;
}

interface Refused extends Waiting {
  reason: string;
}

const PREFIX = "odkeras:outbox";
const MAX_BATCH = 40;
/** The server refuses requests of more than 4 MiB; answers with hundreds of boxes are sent a few at a time. */
const MAX_BYTES = 1_000_000;
const TOO_LARGE = 413;
/** Browsers limit the size of requests that outlive the page (keepalive). */
const KEEPALIVE_BYTES = 60_000;

export class Outbox {
  waiting: Waiting[] = [];
  refused: Refused[] = [];
  /** Why the last attempt failed; null if it succeeded. */
  trouble: ApiError | null = null;
  /** false if the browser could not store the answers, so that a reload would lose them. */
  persisted = true;

  private readonly prefix: string;
  private sending: Promise<void> | null = null;
  private timer = 0;
  private readonly backoff = new Backoff(500, 8_000);

  constructor(
    private readonly who: Sender,
    dataset: string,
    private readonly changed: (saved: Waiting[]) => void,
  ) {
    this.prefix = `${PREFIX}:${dataset}:${who.session}:`;
    this.adopt();
  }

  /** Why no further answers are accepted: the server reports an error of its own (a full disk). "" if there is none. */
  get blocked(): string {
    return this.trouble && !this.trouble.unreachable ? this.trouble.message : "";
  }

  get imageIds(): string[] {
    return this.waiting.map((entry) => entry.image_id);
  }

  add(entry: Waiting): void {
    this.waiting.push(entry);
    this.persist();
    void this.flush();
  }

  dismissRefused(): void {
    this.refused = [];
    this.changed([]);
  }

  /** Sends the pending answers; resolves when none is left or an attempt failed. */
  flush(): Promise<void> {
    clearTimeout(this.timer);
    this.sending ??= this.sendAll().finally(() => (this.sending = null));
    return this.sending;
  }

  /** Called when the page is closed: sends with keepalive requests as much as browsers allow. */
  flushOnLeave(): void {
    let bytes = 0;
    const batch = this.waiting.map(asSent).filter((answer) => {
      bytes += JSON.stringify(answer).length + 1;
      return bytes < KEEPALIVE_BYTES;
    });
    // The reply is lost with the page. Sending again is safe, because storing is idempotent.
    if (batch.length) void api.answers(this.who, batch, true).catch(() => {});
  }

  private async sendAll(): Promise<void> {
    let most = MAX_BYTES;
    while (this.waiting.length) {
      const batch = this.nextBatch(most);
      try {
        this.settle(batch, await api.answers(this.who, batch.map(asSent)));
      } catch (error) {
        if (toApiError(error).status === TOO_LARGE) {
          most /= 4;
          if (batch.length === 1) {
            const reason = toApiError(error).message;
            this.settle(batch, { saved: [], refused: [{ answer_id: batch[0]!.answer_id, reason }] });
          }
          continue;
        }
        this.trouble = toApiError(error);
        this.timer = window.setTimeout(() => void this.flush(), this.backoff.next());
        this.changed([]);
        return;
      }
    }
  }

  /** The first answers that have at most so many bytes of JSON together, but at least one. */
  private nextBatch(bytes: number): Waiting[] {
    let left = bytes;
    const tooMany = this.waiting.slice(0, MAX_BATCH).findIndex((entry) => {
      left -= new TextEncoder().encode(JSON.stringify(asSent(entry))).length + 1;
      return left < 0;
    });
    return this.waiting.slice(0, tooMany < 0 ? MAX_BATCH : Math.max(1, tooMany));
  }

  private settle(batch: Waiting[], reply: AnswersReply): void {
    const saved = new Set(reply.saved);
    const refused = new Map(reply.refused.map(({ answer_id, reason }) => [answer_id, reason]));
    const settled = batch.filter(({ answer_id }) => saved.has(answer_id) || refused.has(answer_id));
    if (!settled.length) throw new ApiError(500, "the server's reply lists none of the answers");
    this.waiting = this.waiting.filter((entry) => !settled.includes(entry));
    for (const entry of settled) {
      const reason = refused.get(entry.answer_id);
      if (reason !== undefined) this.refused.push({ ...entry, reason });
    }
    this.trouble = null;
    this.backoff.reset();
    this.persist();
    this.changed(settled.filter(({ answer_id }) => saved.has(answer_id)));
  }

  /** Each tab has its own storage key, so that two tabs of a session do not overwrite each other's answers. */
  private persist(): void {
    this.persisted = save(this.prefix + this.who.tab, this.waiting.length ? JSON.stringify(this.waiting) : null);
  }

  /** Takes over the answers of earlier pages of this session. If such a page is still open, both send them, which is
   * safe because storing is idempotent. */
  private adopt(): void {
    const keys = keysWith(this.prefix);
    const seen = new Map(keys.flatMap(stored).map((entry) => [entry.answer_id, entry]));
    this.waiting = [...seen.values()].sort((a, b) => a.answered_at_ms - b.answered_at_ms);
    this.persist();
    if (this.persisted) keys.filter((key) => key !== this.prefix + this.who.tab).forEach((key) => save(key, null));
  }
}

function stored(key: string): Waiting[] {
  const entries = loadJson(key);
  return Array.isArray(entries) ? entries.filter((entry) => entry?.answer_id && entry?.image_id) : [];
}

function asSent({ answer_id, image_id, answer, spans, version, answered_at_ms, active_ms }: Waiting): SentAnswer {
  return { answer_id, image_id, answer, spans, version, age_ms: Math.max(0, Date.now() - answered_at_ms), active_ms };
}
