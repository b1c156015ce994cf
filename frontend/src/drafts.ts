/** Drafts: boxes of images that are not answered yet, stored in this browser in case the page is reloaded or closed. */

import type { Box } from "./boxes";
import type { AppStore } from "./store";
import type { QueuedTask } from "./queue";
import type { Span, Task } from "./messages";

export interface Draft {
  spans: Span[];
  /** The task's boxes as they were received, and the model version that suggested them. */
  first: Span[];
  version: number | null;
  threshold: number | null;
  /** Whether the image had been answered before and was reopened. */
  reopened: boolean;
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
    try {
      localStorage.removeItem(this.prefix + image_id);
    } catch {
      // Without storage there are no drafts.
    }
  }

  /** Notes in this tab which answered image is shown: after a reload, the server would send a different one. */
  noteShown(queued: QueuedTask | null): void {
    try {
      if (queued?.reopened) sessionStorage.setItem(this.reopenedKey, queued.id);
      else sessionStorage.removeItem(this.reopenedKey);
    } catch {
      // Without storage, a different image is shown after a reload.
    }
  }

  /** The answered image that this tab showed when the page was left. */
  reopened(): string | null {
    try {
      return sessionStorage.getItem(this.reopenedKey);
    } catch {
      return null;
    }
  }

  /** Restores an image's draft, if there is one. labels: the allowed labels. */
  restore(queued: QueuedTask, labels: string[]): void {
    if (queued.touched) return;
    const draft = this.find(queued.id);
    // An answer that was given elsewhere in the meantime is newer than a draft from before it.
    if (!draft || (queued.reopened !== null && !draft.reopened)) return;
    const allowed = new Set([...labels, ...queued.task.spans.map(({ label }) => label)]);
    if (draft.spans.every(({ label }) => allowed.has(label))) queued.restore(draft);
  }

  private find(image_id: string): Draft | null {
    try {
      const draft: unknown = JSON.parse(localStorage.getItem(this.prefix + image_id) ?? "null");
      return isDraft(draft) ? draft : null;
    } catch {
      return null;
    }
  }
}

function toDraft({ reopened }: QueuedTask, task: Task, spans: Span[]): Draft {
  const { spans: first, version, threshold } = task;
  return { spans, first, version, threshold, reopened: reopened !== null, saved_at_ms: Date.now() };
}

/** The task as it was when the draft was written. */
export function draftedTask(task: Task, { first, version, threshold }: Draft): Task {
  return { ...task, spans: first, version, threshold };
}

/** Writes a draft and deletes the oldest ones beyond the limits, including those of other tabs. Pending answers have
 * priority over drafts. */
function keep(key: string, text: string): void {
  if (text.length > MAX_CHARACTERS) return;
  try {
    const others = stored().filter((other) => other.key !== key);
    let characters = text.length;
    others.forEach((other, index) => {
      characters += other.text.length;
      if (index >= MAX_DRAFTS - 1 || characters > MAX_CHARACTERS) localStorage.removeItem(other.key);
    });
    localStorage.setItem(key, text);
  } catch {
    makeRoom(key, text);
  }
}

/** Deletes the oldest drafts until this one fits, because the storage is full. */
function makeRoom(key: string, text: string): void {
  try {
    for (const old of stored().reverse()) {
      localStorage.removeItem(old.key);
      if (fits(key, text)) return;
    }
  } catch {
    // Without storage, a reload loses the current boxes. The outbox warns about answers itself.
  }
}

function fits(key: string, text: string): boolean {
  try {
    localStorage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
}

/** All drafts in this browser, newest first. */
function stored(): { key: string; text: string; saved_at_ms: number }[] {
  return Object.keys(localStorage)
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => {
      const text = localStorage.getItem(key) ?? "";
      return { key, text, saved_at_ms: savedAt(text) };
    })
    .sort((a, b) => b.saved_at_ms - a.saved_at_ms);
}

function savedAt(text: string): number {
  try {
    return Number((JSON.parse(text) as Partial<Draft> | null)?.saved_at_ms) || 0;
  } catch {
    return 0;
  }
}

function isDraft(value: unknown): value is Draft {
  const draft = value as Partial<Draft> | null;
  return (
    typeof draft === "object" && draft !== null && [draft.spans, draft.first].every((spans) => areSpans(spans ?? null))
  );
}

function areSpans(value: unknown): value is Span[] {
  return (
    Array.isArray(value) &&
    value.every(
      (span) =>
        typeof span?.id === "string" &&
        typeof span.label === "string" &&
        [span.x, span.y, span.width, span.height].every(Number.isFinite),
    )
  );
}
