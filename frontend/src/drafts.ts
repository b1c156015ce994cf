/** Drafts: boxes of images that are not answered yet, stored in this browser in case the page is reloaded or closed. */

import type { Box } from "./boxes";
import type { AppStore } from "./store";
import type { LabelBook } from "./labels";
import type { QueuedTask } from "./queue";
import type { Span, Task } from "./messages";
import { keysWith, load, loadJson, save } from "./storage";

export interface Draft {
  spans: Span[];
  /** The task's boxes as they were received, and the model version that suggested them. */
  first: Span[];
  version: number | null;
  threshold: number | null;
  /** Whether the image had been answered before and was reopened. */
  reopened: boolean;
  /** `QueuedTask.active_ms` at the last change. Work that changed nothing since then is not counted after a reload. */
  active_ms?: number;
  saved_at_ms: number;
}

const PREFIX = "odkeras:draft:";
const WRITE_AFTER_MS = 200;
const MAX_DRAFTS = 40;
/** Maximum size of all drafts in characters. Browsers store about five million, and pending answers need space too. */
const MAX_CHARACTERS = 1_000_000;

export class Drafts {
  private readonly prefix: string;
  private readonly reopenedKey: string;
  private pending: { image_id: string; draft: Draft } | null = null;
  private noted: Box[] = [];
  private timer = 0;

  constructor(dataset: string, session: string) {
    this.prefix = `${PREFIX}${encodeURIComponent(dataset)}:${session}:`;
    this.reopenedKey = `odkeras:reopened:${encodeURIComponent(dataset)}:${session}`;
  }

  /** Called at every change of the page's state; notes the shown boxes if a person changed them. */
  note({ shown, canvas, ready }: AppStore): void {
    if (!shown || !canvas?.touched || !ready || canvas.boxes === this.noted) return;
    this.noted = canvas.boxes;
    if (this.pending && this.pending.image_id !== shown.id) this.write();
    this.pending = { image_id: shown.id, draft: toDraft(shown, canvas.task ?? shown.task, canvas.spans()) };
    this.timer ||= window.setTimeout(() => this.write(), WRITE_AFTER_MS);
  }

  /** Writes the pending draft at once, because the page may be about to close. */
  write(): void {
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.pending) return;
    const { image_id, draft } = this.pending;
    this.pending = null;
    keep(this.prefix + image_id, JSON.stringify(draft));
  }

  /** Deletes a draft after the image was answered or the draft was discarded. */
  drop(image_id: string): void {
    if (this.pending?.image_id === image_id) this.pending = null;
    save(this.prefix + image_id, null);
  }

  /** Notes in this tab which answered image is shown: after a reload, the server would send a different one. */
  noteShown(queued: QueuedTask | null): void {
    // Without storage, a different image is shown after a reload.
    save(this.reopenedKey, queued?.reopened ? queued.id : null, "sessionStorage");
  }

  /** The answered image that this tab showed when the page was left. */
  reopened(): string | null {
    return load(this.reopenedKey, "sessionStorage");
  }

  /** Restores an image's draft, if there is one with labels that exist. */
  restore(queued: QueuedTask, book: LabelBook | null): void {
    if (queued.touched) return;
    const stored = loadJson(this.prefix + queued.id);
    const draft = isDraft(stored) && book ? { ...stored, ...translated(stored, book) } : stored;
    // An answer that was given elsewhere in the meantime is newer than a draft from before it.
    if (!isDraft(draft) || (queued.reopened !== null && !draft.reopened)) return;
    const received = new Set(queued.task.spans.map(({ label }) => label));
    if (draft.spans.every(({ label }) => book?.label(label) || received.has(label))) queued.restore(draft);
  }
}

const translated = ({ spans, first }: Draft, book: LabelBook) => ({
  spans: book.translate(spans),
  first: book.translate(first),
});

function toDraft({ reopened, active_ms }: QueuedTask, task: Task, spans: Span[]): Draft {
  const { spans: first, version, threshold } = task;
  return { spans, first, version, threshold, reopened: reopened !== null, active_ms, saved_at_ms: Date.now() };
}

/** The task as it was when the draft was written. */
export function draftedTask(task: Task, { first, version, threshold }: Draft): Task {
  return { ...task, spans: first, version, threshold };
}

/** Writes a draft and deletes the oldest ones beyond the limits, including those of other tabs. Pending answers have
 * priority over drafts. */
function keep(key: string, text: string): void {
  if (text.length > MAX_CHARACTERS) return;
  const others = stored().filter((other) => other.key !== key);
  let characters = text.length;
  others.forEach((other, index) => {
    characters += other.characters;
    if (index >= MAX_DRAFTS - 1 || characters > MAX_CHARACTERS) save(other.key, null);
  });
  if (!save(key, text)) makeRoom(key, text);
}

/** Deletes the oldest drafts until this one fits, because the storage is full. Without storage, a reload loses the
 * current boxes. The outbox warns about answers itself. */
function makeRoom(key: string, text: string): void {
  for (const old of stored().reverse()) {
    save(old.key, null);
    if (save(key, text)) return;
  }
}

/** All drafts in this browser, newest first. */
function stored(): { key: string; characters: number; saved_at_ms: number }[] {
  return keysWith(PREFIX)
    .map((key) => ({ key, characters: load(key)?.length ?? 0, saved_at_ms: savedAt(key) }))
    .sort((a, b) => b.saved_at_ms - a.saved_at_ms);
}

const savedAt = (key: string) => Number((loadJson(key) as Partial<Draft> | null)?.saved_at_ms) || 0;

function isDraft(value: unknown): value is Draft {
  const draft = value as Partial<Draft> | null;
  return (
    typeof draft === "object" && draft !== null && [draft.spans, draft.first].every((spans) => areSpans(spans ?? null))
  );
}

function areKeypoints(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.every(
      (point) =>
        typeof point?.name === "string" &&
        [point.x, point.y].every(Number.isFinite) &&
        [0, 1, 2].includes(point.visibility),
    )
  );
}

function areSpans(value: unknown): value is Span[] {
  return (
    Array.isArray(value) &&
    value.every(
      (span) =>
        typeof span?.id === "string" &&
        typeof span.label === "string" &&
        [span.x, span.y, span.width, span.height].every(Number.isFinite) &&
        areKeypoints(span.keypoints ?? []),
    )
  );
}
