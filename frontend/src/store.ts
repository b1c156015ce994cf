/** The page's state: the shown image, the queue and the answers. Components render it; keys change it. */

import { ActiveTime } from "./active_time";
import { api } from "./api";
import type { Canvas } from "./canvas";
import type { Colours } from "./colours";
import { Display } from "./display";
import type { Drafts } from "./drafts";
import type { FirstSteps } from "./first_steps";
import type { Gestures } from "./gestures";
import { uuid } from "./identity";
import { Skeletons } from "./keypoints";
import type { LabelBook } from "./labels";
import { NO_FILTER, type Filter } from "./gallery";
import type { Live } from "./live";
import { Notices } from "./notices";
import type { Outbox, Waiting } from "./outbox";
import { QueuedTask, type Queue } from "./queue";
import type { PastRecord, Records } from "./records";
import { trainedNow } from "./training";
import type { View } from "./view";
import type { CandidateWalk } from "./walk";
import type { Decision, Project, Sender, Span, Task } from "./messages";
import { errorMessage, PAST } from "./format";

type Part = "stage" | "scroll" | "frame" | "tags" | "guides" | "handles" | "keypoints" | "rubber" | "ghost";
export type StageElements = { [part in Part]: HTMLElement };

const ANSWERED_KEPT = 30;
const IMAGES_KEPT = 6;

export class AppStore {
  project: Project | null = null;
  /** A fatal error; "" if there is none. */
  fatal = "";
  /** Set while the user is asked for a name, before anything else; known: the name stored in this browser, or "". */
  asksName: { known: string; answer: (name: string) => void } | null = null;
  /** The connection error while nothing has been loaded yet; "" if there is none. */
  starting = "";
  shown: QueuedTask | null = null;
  /** Whether the shown image is on the screen. */
  ready = false;
  label = "";
  labels: LabelBook | null = null;
  /** The revision of the labels that the server reported last; 0 at its start. */
  labelRevision = 0;
  colours: Colours | null = null;
  labelsOpen = false;
  /** Whether the menu in which labels are renamed, merged, retired and recoloured is open. */
  labelMenuOpen = false;
  galleryOpen = false;
  /** The last filter of the gallery, with which it opens again. */
  galleryFilter: Filter = NO_FILTER;
  hand = false;
  panelOpen = true;
  helpOpen = false;
  displayOpen = false;
  readonly display = new Display(() => this.changed());
  readonly skeletons = new Skeletons();
  readonly notices = new Notices(() => this.changed());
  readonly activeTime = new ActiveTime(() => this.galleryOpen);
  saving = false;
  outbox: Outbox | null = null;
  drafts: Drafts | null = null;
  queue: Queue | null = null;
  firstSteps: FirstSteps | null = null;
  live: Live | null = null;
  canvas: Canvas | null = null;
  view: View | null = null;
  gestures: Gestures | null = null;
  walk: CandidateWalk | null = null;

  who: Sender = { session: "", tab: "" };
  records: Records | null = null;
  elements: StageElements | null = null;
  /** The panel's answer counts at the last request for the history. */
  counted = "";

  /** Answered images in the order of their answers, including reopened ones. */
  private answered: QueuedTask[] = [];
  /** Incremented to cancel a pending request to open an image, which must not be shown later. */
  private openings = 0;
  /** The image shown last, and the one before it. */
  private latest: QueuedTask | null = null;
  private before: QueuedTask | null = null;
  private readonly listeners = new Set<() => void>();

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  readonly changed = (): void => this.listeners.forEach((listener) => listener());

  get history(): PastRecord[] {
    return this.records?.list(this.outbox?.waiting ?? []) ?? [];
  }

  /** Why no answer can be given now; "" if one can. */
  get closed(): string {
    return this.outbox?.blocked || (this.ready ? "" : "no image is shown");
  }

  answer(decision: Decision): void {
    const broken = decision === "ignore" && this.shown?.failed && !this.outbox?.blocked;
    if ((this.closed && !broken) || !this.shown) return;
    const queued = this.shown;
    // A box that is still being drawn or dragged is not final, so it is cancelled.
    this.gestures?.cancel();
    this.keepEdits();
    const unknown = queued.spans.find(({ label }) => !this.labels?.label(label));
    if (unknown && !broken)
      return this.notices.show(`label “${unknown.label}” is no longer in the label map: relabel its boxes`);
    this.activeTime.stop();
    queued.touched = false;
    this.openings += 1;
    this.remember(queued);
    const entry: Waiting = {
      answer_id: uuid(),
      image_id: queued.id,
      file: queued.task.file,
      answer: decision,
      spans: queued.spans,
      version: queued.task.version,
      answered_at_ms: Date.now(),
      active_ms: Math.round(queued.active_ms),
    };
    queued.active_ms = 0;
    queued.reopened = decision;
    // First: from here on the image counts as answered, also in the request for further tasks.
    this.outbox?.add(entry);
    this.drafts?.drop(queued.id);
    this.firstSteps?.afterAnswer(decision, queued.spans.length);
    this.shown = null;
    this.notices.show(PAST[decision]);
    this.next();
  }

  /** Reopens the previous answer with its boxes. */
  undo(): void {
    this.firstSteps?.closeEmpty();
    const own = this.answered.map(({ id }) => id).reverse();
    const ids = [...new Set([...own, ...this.history.map(({ image_id }) => image_id)])];
    // From a reopened image, go to the answer before it.
    const past = ids[ids.indexOf(this.shown?.id ?? "") + 1];
    if (past) void this.reopen(past);
    else this.notices.show(this.live?.panel ? "there is no earlier answer" : "the earlier answers are still loading");
  }

  async reopen(image_id: string): Promise<void> {
    if (this.shown?.id === image_id) return;
    const opening = ++this.openings;
    const local = this.queue?.pull(image_id) ?? this.answered.find(({ id }) => id === image_id);
    if (local) return this.bringBack(local);
    try {
      await this.outbox?.flush();
      const { task, answer } = await api.reopen(this.who, image_id);
      if (opening === this.openings) this.replaceShown(new QueuedTask(task, answer));
    } catch (error) {
      this.notices.show(`cannot reopen the answer: ${errorMessage(error)}`);
    }
  }

  /** Opens an image of the gallery and closes the gallery; returns an error message, "" on success. The current image
   * goes back into the queue. Does nothing if the gallery is closed or another image is requested in the meantime. */
  async openImage(key: string, image_id: string | null): Promise<string> {
    const opening = ++this.openings;
    const here = image_id === null ? null : this.newestHere(image_id);
    try {
      const queued = here ?? (await this.fetchToOpen(key));
      if (opening !== this.openings) return "";
      this.set({ galleryOpen: false });
      if (queued.id === this.shown?.id) return "";
      this.queue?.pull(queued.id);
      this.answered = this.answered.filter((other) => other === queued || other.id !== queued.id);
      if (here) this.bringBack(queued);
      else this.replaceShown(queued);
      return "";
    } catch (error) {
      return opening === this.openings ? errorMessage(error) : "";
    }
  }

  /** On start, reopens the answered image that was being corrected when the page was left. */
  async resume(image_id: string): Promise<void> {
    try {
      this.replaceShown(await this.fetchToOpen(image_id));
    } catch {
      // Another annotator has the image, or it no longer exists.
    }
  }

  /** This page's own copy of an image, unless the server may have a newer answer of any session. */
  private newestHere(image_id: string): QueuedTask | null {
    if (this.shown?.id === image_id) return this.shown;
    const ahead = this.queue?.find(image_id);
    if (ahead && (ahead.reopened === null || ahead.touched)) return ahead;
    const onTheWay = this.outbox?.imageIds.includes(image_id);
    return (onTheWay && this.answered.find(({ id }) => id === image_id)) || null;
  }

  private async fetchToOpen(key: string): Promise<QueuedTask> {
    await this.outbox?.flush();
    const { task, answer } = await api.open(this.who, key);
    return (answer === null && this.queue?.find(task.image_id)) || new QueuedTask(task, answer);
  }

  /** The boxes of the image shown before, else of the last answer; null if there is none. */
  async boxesBefore(): Promise<{ file: string; spans: Span[] } | null> {
    const { before } = this;
    if (before && before.id !== this.shown?.id)
      return { file: before.task.file, spans: this.labels?.translate(before.spans) ?? before.spans };
    const past = this.history.find(({ image_id }) => image_id !== this.shown?.id);
    return past ? api.boxes(this.who, past.image_id) : null;
  }

  /** Shows an image from this page's memory at once; the server is notified once it has the pending answers. */
  private bringBack(queued: QueuedTask): void {
    if (!queued.image) queued.load();
    this.replaceShown(queued);
    if (queued.reopened === null) return;
    void this.outbox?.flush().then(() => api.reopen(this.who, queued.id).catch(() => {}));
  }

  private replaceShown(queued: QueuedTask): void {
    if (this.shown) {
      this.keepEdits();
      // An answered image that was viewed but not changed keeps its answer.
      if (this.shown.reopened === null || this.shown.touched) this.queue?.putBack(this.shown);
      else if (!this.answered.includes(this.shown)) this.shown.release();
    }
    this.present(queued);
  }

  private remember(queued: QueuedTask): void {
    this.answered = [...this.answered.filter(({ id }) => id !== queued.id), queued].slice(-ANSWERED_KEPT);
    const old = this.answered.slice(0, -IMAGES_KEPT).filter((other) => !this.queue?.ahead.includes(other));
    old.forEach((other) => other.release());
  }

  private keepEdits(): void {
    if (!this.shown || !this.canvas || !this.ready) return;
    this.shown.spans = this.canvas.spans();
    this.shown.touched ||= this.canvas.touched;
  }

  next(): void {
    const queued = this.queue?.take() ?? null;
    if (queued) void this.present(queued);
    else this.empty();
    void this.queue?.fill();
  }

  private empty(): void {
    this.shown = null;
    this.ready = false;
    this.activeTime.stop();
    this.gestures?.cancel();
    this.canvas?.clear();
    this.mark(null);
    this.changed();
  }

  private async present(queued: QueuedTask): Promise<void> {
    this.empty();
    if (this.latest?.id !== queued.id) [this.before, this.latest] = [this.latest, queued];
    this.shown = queued;
    if (this.labels) queued.relabel(this.labels);
    this.drafts?.restore(queued, this.labels);
    this.mark(queued);
    if (!queued.image) {
      this.changed();
      await queued.loading;
      if (this.shown !== queued) return;
    }
    if (queued.image) this.draw(queued, queued.image);
    this.changed();
  }

  private draw(queued: QueuedTask, image: HTMLImageElement): void {
    const { task } = queued;
    const number = this.answeredByMe + 1;
    image.alt = task.file;
    image.dataset.testid = "image";
    this.view?.show(task);
    this.canvas?.show({
      image,
      spans: queued.spans,
      task,
      origin: queued.origin,
      description: `${task.file}. Drag to draw a box. B adds one, brackets select, arrows move, with alt or control they resize, U undoes, H lists all keys.`,
    });
    this.ready = true;
    this.bringIntoSight();
    const boxes = this.canvas?.suggestions.length ?? 0;
    const what = queued.beforeDraft
      ? "your unsaved boxes were restored"
      : queued.reopened
        ? `answered before: ${PAST[queued.reopened]}`
        : `${boxes} suggested ${boxes === 1 ? "box" : "boxes"}`;
    this.notices.announce(`image ${number}: ${task.file}, ${what}`);
    requestAnimationFrame(() => setTimeout(() => this.painted(queued)));
  }

  /** On narrow screens the page is one long column, and the user may have scrolled away from the stage. */
  private bringIntoSight(): void {
    const { stage } = this.elements!;
    const { top, bottom } = stage.getBoundingClientRect();
    if (top >= 0 && bottom <= innerHeight) return;
    if (bottom + scrollY <= innerHeight) scrollTo(0, 0);
    else stage.scrollIntoView({ block: "start" });
  }

  private painted(queued: QueuedTask): void {
    if (this.shown !== queued || !this.elements) return;
    this.activeTime.start(queued);
    this.elements.stage.dataset.ready = "true";
    window.dispatchEvent(new CustomEvent("odkeras:shown", { detail: { image_id: queued.id, at: performance.now() } }));
  }

  private mark(queued: QueuedTask | null): void {
    const data = this.elements!.stage.dataset;
    data.ready = "false";
    data.imageId = queued?.id ?? "";
    data.version = queued?.task.version?.toString() ?? "";
    this.drafts?.noteShown(queued);
  }

  /** Retries to load the image. */
  retryImage(): void {
    if (!this.shown) return;
    this.shown.load();
    void this.present(this.shown);
  }

  /** Moves an image that cannot be shown to the end of the queue. */
  skipImage(): void {
    const queued = this.shown;
    if (!queued || this.ready) return;
    this.next();
    this.queue?.ahead.push(queued);
  }

  /** Sets the task whose suggestions are on the screen. It changes with an offer, and when undo or redo passes one. */
  judge(task: Task): void {
    if (!this.shown) return;
    this.shown.task = task;
    this.elements!.stage.dataset.version = task.version?.toString() ?? "";
  }

  /** Discards a restored draft in favour of the boxes that the task came with. */
  startOver(): void {
    const { shown } = this;
    if (!shown?.beforeDraft) return;
    shown.renew(shown.beforeDraft);
    shown.touched = false;
    this.drafts?.drop(shown.id);
    void this.present(shown);
  }

  /** Keeps a restored draft: the user has dismissed the message about it. */
  keepDraft(): void {
    if (this.shown) this.shown.beforeDraft = null;
    this.changed();
  }

  async save(): Promise<void> {
    if (this.saving) return;
    this.saving = true;
    this.changed();
    try {
      await this.outbox?.flush();
      if (this.outbox?.waiting.length) throw this.outbox.trouble ?? new Error("the answers could not be sent");
      this.notices.show(trainedNow(await api.save(this.who)));
      this.records?.refresh();
    } catch (error) {
      this.notices.show(`cannot train now: ${errorMessage(error)}`);
    } finally {
      this.saving = false;
      this.changed();
    }
  }

  set(values: Partial<Pick<AppStore, "hand" | "panelOpen" | "helpOpen" | "displayOpen" | "labelsOpen" | "labelMenuOpen" | "galleryOpen">>): void {
    if (this.galleryOpen && values.galleryOpen === false) this.openings += 1;
    Object.assign(this, values);
    this.changed();
  }

  /** Whether a dialog covers the image, so that keys belong to the dialog. */
  get dialogOpen(): boolean {
    return this.helpOpen || this.labelsOpen || this.labelMenuOpen || this.galleryOpen;
  }

  get answeredByMe(): number {
    const mine = this.live?.panel?.mine;
    return (mine ? mine.accept + mine.reject + mine.ignore : 0) + (this.outbox?.waiting.length ?? 0);
  }
}
