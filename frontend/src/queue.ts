/** Prefetched tasks with their decoded images, so that the next image appears at once. */

import { api, toApiError, type ApiError } from "./api";
import { withIds, type Origin } from "./boxes";
import { draftedTask, type Draft } from "./drafts";
import { uuid } from "./identity";
import type { LabelBook } from "./labels";
import type { Decision, Sender, Span, Task } from "./messages";
import { errorMessage } from "./format";

export class QueuedTask {
  image: HTMLImageElement | null = null;
  failed = "";
  loading: Promise<void> = Promise.resolve();
  /** The boxes as they are now; task.spans has them as they were received. */
  spans: Span[];
  touched = false;
  /** Time that the person worked on the image since its last answer; see `ActiveTime`. */
  active_ms = 0;
  /** The earlier answer, if the image was reopened; else null. */
  reopened: Decision | null;
  /** The task as received, while the boxes are those of a draft; else null. */
  beforeDraft: Task | null = null;
  /** Newer suggestions than the shown ones. They are shown when the user asks for them. */
  offer: Task | null = null;
  /** The version requested last, and how many times: the server may still have been loading it. */
  private requested: { version: number; times: number } | null = null;

  /** Whether the task's boxes are those of an answer, made by people as well as by a model. */
  private readonly fromAnswer: boolean;
  private address = "";

  /** answer: the earlier decision, if the task's boxes are those of an answer and not suggestions. */
  constructor(
    public task: Task,
    answer: Decision | null = null,
  ) {
    this.task = { ...task, spans: withIds(task.spans) };
    this.reopened = answer;
    this.fromAnswer = answer !== null;
    this.spans = this.task.spans;
    this.load();
  }

  get id(): string {
    return this.task.image_id;
  }

  /** Origin of the task's boxes without a score. Boxes with a score were suggested, even those of an answer. */
  get origin(): Origin {
    if (this.fromAnswer) return "drawn";
    return this.task.version === null ? "given" : "suggested";
  }

  /** Replaces the task by one with newer suggestions for the same image. */
  renew(task: Task): void {
    this.task = { ...task, spans: withIds(task.spans) };
    this.spans = this.task.spans;
    this.offer = null;
    this.beforeDraft = null;
  }

  /** Offers newer suggestions for the shown image. If it has none and gets none, its task has the newer candidates at
   * once, because a person sees no difference until they look for one. */
  propose(task: Task): void {
    const isSeen = task.spans.length > 0 || this.task.spans.length > 0;
    this.offer = isSeen ? task : null;
    if (!isSeen) this.task = task;
  }

  /** Accepts the offer. The new suggestions get new ids; the canvas replaces the boxes on the screen. */
  takeOffer(): Task {
    const spans = (this.offer?.spans ?? []).map((span) => ({ ...span, id: uuid() }));
    this.task = { ...(this.offer ?? this.task), spans };
    this.offer = null;
    return this.task;
  }

  /** Takes over the names that labels have now. Suggestions whose label is gone are left out. */
  relabel(book: LabelBook): void {
    this.task = book.translateTask(this.task, this.fromAnswer);
    this.spans = book.translateSpans(this.spans, this.fromAnswer);
    if (this.offer) this.offer = book.translateTask(this.offer, false);
    if (this.beforeDraft) this.beforeDraft = book.translateTask(this.beforeDraft, this.fromAnswer);
  }

  /** Restores the boxes that a person had drawn before the page was left. */
  restore(draft: Draft): void {
    this.beforeDraft = this.task;
    this.task = draftedTask(this.task, draft);
    this.spans = withIds(draft.spans);
    this.active_ms = Math.max(this.active_ms, draft.active_ms ?? 0);
    this.touched = true;
  }

  /** Whether to ask for the suggestions of a version. Limited to `MAX_REQUESTS` times, since it may have none. */
  canRequest(version: number): boolean {
    const times = this.requested?.version === version ? this.requested.times : 0;
    return this.task.version !== version && times < MAX_REQUESTS && !this.reopened;
  }

  /** Counts a reply to a request for a version's suggestions. */
  countRequest(version: number): void {
    this.requested = { version, times: this.requested?.version === version ? this.requested.times + 1 : 1 };
  }

  load(): void {
    this.failed = "";
    this.loading = this.fetchImage().catch((error: unknown) => {
      this.failed = errorMessage(error);
    });
  }

  release(): void {
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = "";
    this.image = null;
  }

  private async fetchImage(): Promise<void> {
    let reply: Response;
    try {
      reply = await fetch(this.task.image, { credentials: "same-origin" });
    } catch {
      throw new Error("the server cannot be reached");
    }
    if (!reply.ok) throw new Error(`the server has no such image (${reply.status})`);
    this.release();
    this.address = URL.createObjectURL(await reply.blob());
    const image = new Image();
    image.src = this.address;
    image.alt = "";
    image.draggable = false;
    try {
      await image.decode();
    } catch {
      throw new Error("this browser cannot show the image");
    }
    this.image = image;
  }
}

const ASK_AGAIN_MS = 3_000;
/** Maximum number of requests for one version's suggestions for one image. */
const MAX_REQUESTS = 4;
const RENEW_AGAIN_MS = 1_500;
const RENEW_AFTER_FAILURE_MS = 5_000;

export interface Surroundings {
  /** Ids of images that must not be fetched again: shown, or answered and pending. */
  others: () => string[];
  /** Whether the user is waiting for an image. */
  idle: () => boolean;
  changed: () => void;
}

export class Queue {
  ahead: QueuedTask[] = [];
  waiting = "";
  done = false;
  /** Why the last fetch failed; null if it succeeded. */
  trouble: ApiError | null = null;

  private filling: Promise<void> | null = null;
  private fillAgain = false;
  private timer = 0;

  constructor(
    private readonly who: Sender,
    private readonly prefetch: number,
    private readonly around: Surroundings,
  ) {}

  take(): QueuedTask | null {
    return this.ahead.shift() ?? null;
  }

  putBack(queued: QueuedTask): void {
    this.ahead.unshift(queued);
  }

  find(image_id: string): QueuedTask | null {
    return this.ahead.find(({ id }) => id === image_id) ?? null;
  }

  /** Removes a task from the queue and returns it. */
  pull(image_id: string): QueuedTask | null {
    const at = this.ahead.findIndex(({ id }) => id === image_id);
    return at < 0 ? null : (this.ahead.splice(at, 1)[0] ?? null);
  }

  fill(wanted = this.prefetch): Promise<void> {
    clearTimeout(this.timer);
    this.fillAgain = this.filling !== null;
    this.filling ??= this.fetchTasks(wanted).finally(() => {
      this.filling = null;
      if (this.fillAgain) void this.fill(wanted);
    });
    return this.filling;
  }

  private async fetchTasks(wanted: number): Promise<void> {
    // Each task may need a prediction, so the first one is fetched alone if the user is waiting for it.
    const count = this.around.idle() && !this.ahead.length ? 1 : wanted - this.ahead.length;
    if (count <= 0) return;
    const have = () => [...this.around.others(), ...this.ahead.map(({ id }) => id)];
    try {
      const reply = await api.tasks(this.who, count, have());
      const ids = new Set(have());
      const fresh = reply.tasks.filter(({ image_id }) => !ids.has(image_id));
      this.ahead.push(...fresh.map((task) => new QueuedTask(task)));
      this.trouble = null;
      this.done = reply.done && !reply.tasks.length;
      this.waiting = reply.tasks.length ? "" : reply.waiting;
      if (!this.done && !this.ahead.length) this.askAgain(wanted);
    } catch (error) {
      this.trouble = toApiError(error);
      this.askAgain(wanted);
    }
    this.around.changed();
  }

  private askAgain(wanted: number): void {
    this.timer = window.setTimeout(() => void this.fill(wanted), ASK_AGAIN_MS);
  }
}

/** Gets newer suggestions for unedited prefetched tasks; the shown image gets them as an offer, or only the candidates if
 * neither version suggests anything. Returns the delay in ms before a retry, if some had none yet or the request failed;
 * null if no retry is needed. */
export async function renewSuggestions(who: Sender, version: number, ahead: QueuedTask[], shown: QueuedTask | null): Promise<number | null> {
  const candidates = [...(shown ? [shown] : []), ...ahead.filter(({ touched }) => !touched)].filter((queued) =>
    queued.canRequest(version),
  );
  if (!candidates.length) return null;
  const ids = candidates.map(({ id }) => id);
  const reply = await api.suggestions(who, ids).catch(() => null);
  if (!reply) return RENEW_AFTER_FAILURE_MS;
  for (const queued of candidates) queued.countRequest(version);
  for (const task of reply.tasks) {
    const queued = candidates.find(({ id }) => id === task.image_id);
    if (!queued || queued.reopened) continue;
    if (queued === shown) queued.propose(task);
    else if (!queued.touched && ahead.includes(queued)) queued.renew(task);
  }
  const renewed = new Set(reply.tasks.map(({ image_id }) => image_id));
  return candidates.some((queued) => !renewed.has(queued.id) && queued.canRequest(version)) ? RENEW_AGAIN_MS : null;
}
