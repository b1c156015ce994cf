/** Tasks that were fetched ahead, each with its decoded image, so that the next one is there at once. */

import { api, ApiError, type Who } from "./api";
import { withIds, type Origin } from "./boxes";
import { taskOf, type Draft } from "./drafts";
import { uuid } from "./identity";
import type { Decision, Span, Task } from "./wire";
import { messageOf } from "./words";

export class Held {
  image: HTMLImageElement | null = null;
  failed = "";
  loading: Promise<void> = Promise.resolve();
  /** The boxes as they are now; task.spans: as they were handed out. */
  spans: Span[];
  touched = false;
  /** What was answered before it was opened again. */
  reopened: Decision | null;
  /** While the boxes are those of a draft: the task as it came. */
  beforeDraft: Task | null = null;
  /** Newer suggestions than those that are shown: they come on the screen when the person asks for them. */
  offer: Task | null = null;
  /** The version whose suggestions were asked for last, and how many times: the server may be loading it just then. */
  private asked: { version: number; times: number } | null = null;

  /** The task's boxes are those of an answer, of people as well as of a model. */
  private readonly fromAnswer: boolean;
  private address = "";

  /** answer: what was answered about the image, if the task's boxes are those of that answer, not suggestions. */
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

  /** Of the task's boxes without a score; those with one were suggested, also those of an answer. */
  get origin(): Origin {
    if (this.fromAnswer) return "drawn";
    return this.task.version === null ? "given" : "suggested";
  }

  /** Takes newer suggestions for the same image. */
  renew(task: Task): void {
    this.task = { ...task, spans: withIds(task.spans) };
    this.spans = this.task.spans;
    this.offer = null;
    this.beforeDraft = null;
  }

  /** Takes the offer; the boxes on the screen are the canvas's. The new suggestions have ids of their own. */
  takeOffer(): Task {
    const spans = (this.offer?.spans ?? []).map((span) => ({ ...span, id: uuid() }));
    this.task = { ...(this.offer ?? this.task), spans };
    this.offer = null;
    return this.task;
  }

  /** Takes the boxes that a person had drawn on this image before the page was left. */
  restore(draft: Draft): void {
    this.beforeDraft = this.task;
    this.task = taskOf(this.task, draft);
    this.spans = withIds(draft.spans);
    this.touched = true;
  }

  /** Whether a version may have newer suggestions than these. Not for long: it may have nothing to say. */
  mayBeRenewed(version: number): boolean {
    const times = this.asked?.version === version ? this.asked.times : 0;
    return this.task.version !== version && times < MOST_ASKED && !this.reopened;
  }

  /** Counts a reply to a request for the suggestions of a version. */
  noteAsked(version: number): void {
    this.asked = { version, times: this.asked?.version === version ? this.asked.times + 1 : 1 };
  }

  load(): void {
    this.failed = "";
    this.loading = this.fetchImage().catch((error: unknown) => {
      this.failed = messageOf(error);
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
/** Requests for the suggestions of one version for one image. */
const MOST_ASKED = 4;
const RENEW_AGAIN_MS = 1_500;
const RENEW_AFTER_FAILURE_MS = 5_000;

export interface Surroundings {
  /** Image ids that must not come again: shown, or answered and on their way. */
  others: () => string[];
  /** Somebody waits for an image. */
  idle: () => boolean;
  changed: () => void;
}

export class Queue {
  ahead: Held[] = [];
  waiting = "";
  done = false;
  /** Why nothing could be fetched; null: it could. */
  trouble: ApiError | null = null;

  private filling: Promise<void> | null = null;
  private once_more = false;
  private timer = 0;

  constructor(
    private readonly who: Who,
    private readonly prefetch: number,
    private readonly around: Surroundings,
  ) {}

  take(): Held | null {
    return this.ahead.shift() ?? null;
  }

  putBack(held: Held): void {
    this.ahead.unshift(held);
  }

  find(image_id: string): Held | null {
    return this.ahead.find(({ id }) => id === image_id) ?? null;
  }

  /** Takes a task out of the queue. */
  pull(image_id: string): Held | null {
    const at = this.ahead.findIndex(({ id }) => id === image_id);
    return at < 0 ? null : (this.ahead.splice(at, 1)[0] ?? null);
  }

  fill(wanted = this.prefetch): Promise<void> {
    clearTimeout(this.timer);
    this.once_more = this.filling !== null;
    this.filling ??= this.fetchTasks(wanted).finally(() => {
      this.filling = null;
      if (this.once_more) void this.fill(wanted);
    });
    return this.filling;
  }

  private async fetchTasks(wanted: number): Promise<void> {
    // Each task may take a prediction: the first one should not have to wait for the others.
    const count = this.around.idle() && !this.ahead.length ? 1 : wanted - this.ahead.length;
    if (count <= 0) return;
    const have = () => [...this.around.others(), ...this.ahead.map(({ id }) => id)];
    try {
      const reply = await api.tasks(this.who, count, have());
      const held = new Set(have());
      const fresh = reply.tasks.filter(({ image_id }) => !held.has(image_id));
      this.ahead.push(...fresh.map((task) => new Held(task)));
      this.trouble = null;
      this.done = reply.done && !reply.tasks.length;
      this.waiting = reply.tasks.length ? "" : reply.waiting;
      if (!this.done && !this.ahead.length) this.askAgain(wanted);
    } catch (error) {
      this.trouble = error instanceof ApiError ? error : new ApiError(500, String(error));
      this.askAgain(wanted);
    }
    this.around.changed();
  }

  private askAgain(wanted: number): void {
    this.timer = window.setTimeout(() => void this.fill(wanted), ASK_AGAIN_MS);
  }
}

/** Newer suggestions for tasks that are held; those that somebody worked on stay as they are. The image on the screen
 * gets an offer. Returns after how long to try again, if some had none yet or there was no reply; null: not at all. */
export async function renewSuggestions(who: Who, version: number, ahead: Held[], shown: Held | null): Promise<number | null> {
  const held = [...(shown ? [shown] : []), ...ahead.filter(({ touched }) => !touched)].filter((one) =>
    one.mayBeRenewed(version),
  );
  if (!held.length) return null;
  const ids = held.map(({ id }) => id);
  const reply = await api.suggestions(who, ids).catch(() => null);
  if (!reply) return RENEW_AFTER_FAILURE_MS;
  for (const one of held) one.noteAsked(version);
  for (const task of reply.tasks) {
    const one = held.find(({ id }) => id === task.image_id);
    if (!one) continue;
    if (one === shown) one.offer = task.spans.length || one.task.spans.length ? task : null;
    else if (!one.touched && ahead.includes(one)) one.renew(task);
  }
  const renewed = new Set(reply.tasks.map(({ image_id }) => image_id));
  return held.some((one) => !renewed.has(one.id) && one.mayBeRenewed(version)) ? RENEW_AGAIN_MS : null;
}
