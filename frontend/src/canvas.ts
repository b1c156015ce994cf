/** The image with its boxes: what the page's tools do with them, and the undo history. */

import type { ImageAnnotation } from "@annotorious/annotorious";
import { annotation, boundsOf, clippedPolygon, copyAnnotation, cut, freePlace, fromSpan, isPolygon } from "./boxes";
import { movedPolygon, readKeypoints, readLabel, rectShape, sameRect, toBox, toSpan, withLabel } from "./boxes";
import type { Box, Extra, Origin, Rect, Size } from "./boxes";
import { isCovered, isStrip, isThere, oddity, replacedBy } from "./checks";
import type { Colours } from "./colours";
import { dragged, hitAt, nudged, type Hit, type Reach } from "./grips";
import { Handles } from "./handles";
import { uuid } from "./identity";
import type { Skeletons } from "./keypoints";
import type { LabelBook } from "./labels";
import { Layer } from "./layer";
import type { Candidate, Point, Span, Task } from "./messages";
import { Points } from "./points";
import { Steps } from "./steps";
import { Tags } from "./tags";

export interface Contents {
  image: HTMLImageElement;
  /** The boxes as they are now; task.spans has them as they were received. */
  spans: Span[];
  task: Task;
  /** Origin of the boxes that were received without a score. */
  origin: Origin;
  description: string;
}

/** A state in the undo history: the boxes, and the task whose suggestions they include. */
interface State {
  boxes: ImageAnnotation[];
  task: Task | null;
}

export class Canvas {
  boxes: Box[] = [];
  selected: string | null = null;
  /** The selected box if a person selected it; null if it is selected because it was just drawn or moved. */
  chosen: string | null = null;
  suggestionsHidden = false;
  /** Whether a person has changed anything since the image was shown. */
  touched = false;
  /** The task whose suggestions are shown. */
  task: Task | null = null;
  /** Warning about the box that was changed last; "" if there is none. */
  warning = "";

  /** null while no image is shown. */
  private layer: Layer | null = null;
  private size: Size = { width: 1, height: 1 };
  private steps = new Steps<State>({ boxes: [], task: null });
  /** The dragged box, as it was before the drag. */
  private dragging: { id: string; rect: Rect; shown: ImageAnnotation } | null = null;
  /** The box under the mouse, whose handles are shown. */
  private hovered: string | null = null;
  private first = new Map<string, Span>();
  private origin: Origin = "given";
  private hidden = new Set<string>();
  private readonly tags: Tags;
  private readonly handles: Handles;
  private readonly frame: HTMLElement;
  readonly points: Points;

  constructor(
    { frame, tags, handles, keypoints }: { [layer in "frame" | "tags" | "handles" | "keypoints"]: HTMLElement },
    private readonly colours: Colours,
    private readonly skeletons: Skeletons,
    private readonly scale: () => number,
    private readonly changed: () => void,
  ) {
    this.frame = frame;
    this.tags = new Tags(tags);
    this.handles = new Handles(handles);
    this.points = new Points(keypoints, colours, skeletons, {
      box: () => this.visible.find(({ id }) => id === this.selected) ?? null,
      scale,
      set: (id, points) => this.layer?.setKeypoints(id, points),
      commit: (id, kind) => this.commit([id], kind),
    });
  }

  show(contents: Contents): void {
    this.clear();
    this.origin = contents.origin;
    this.size = contents.task;
    this.task = contents.task;
    this.first = new Map(contents.task.spans.map((span) => [span.id, this.skeletons.completed(span)]));
    this.frame.prepend(contents.image);
    const shapes = contents.spans.map((span) => fromSpan(this.skeletons.completed(span)));
    this.layer = new Layer(contents.image, this.size, contents.description, shapes, (id) => this.hidden.has(id));
    this.steps = new Steps<State>({ boxes: this.layer.shapes, task: this.task });
    this.layer.listen({
      changed: () => this.update(),
      edited: (id) => this.keepPolygon(id),
      selected: (id) => {
        this.selected = id;
        if (this.chosen !== id) this.chosen = null;
        this.update();
      },
    });
  }

  clear(): void {
    const image = this.frame.querySelector("img");
    this.layer?.destroy();
    image?.remove();
    this.layer = null;
    this.boxes = [];
    this.selected = null;
    this.chosen = null;
    this.hovered = null;
    this.dragging = null;
    this.warning = "";
    this.touched = false;
    this.suggestionsHidden = false;
    this.hidden = new Set();
    this.update();
  }

  spans(): Span[] {
    return this.boxes.map(toSpan);
  }

  private get visible(): Box[] {
    return this.boxes.filter(({ id }) => !this.hidden.has(id));
  }

  get suggestions(): Box[] {
    return this.boxes.filter(({ origin }) => origin === "suggested");
  }

  /** Selects a box by a person's choice: label keys change it from now on. */
  select(id: string | null): void {
    this.chosen = id;
    this.activate(id);
  }

  /** Shows a box's handles. Keys move and remove the box, but label keys do not change it. */
  activate(id: string | null): void {
    this.layer?.select(id);
  }

  /** The smallest visible box at a point; buffer is in image pixels. */
  idAt([x, y]: Point, buffer: number): string | null {
    return this.layer?.at(x, y, buffer)?.id ?? null;
  }

  /** The model's candidates; none while the suggestions are hidden. */
  get candidates(): Candidate[] {
    return this.suggestionsHidden ? [] : (this.task?.candidates ?? []);
  }

  selectNext(step: 1 | -1): void {
    const seen = this.visible;
    if (!seen.length) return;
    const at = seen.findIndex(({ id }) => id === this.selected);
    const next = at < 0 ? (step > 0 ? 0 : seen.length - 1) : (at + step + seen.length) % seen.length;
    this.select(seen[next]!.id);
  }

  /** Adds a box, shifted diagonally by `step` until no other box starts there. */
  addBeside(rect: Rect, label: string, step: number): void {
    this.insert(freePlace(rect, this.boxes, step, this.size), label);
    this.commit();
  }

  /** Adds a drawn or picked box; returns the suggestion that it replaces, if any. */
  draw(rect: Rect, label: string, extra: Extra = {}): Box | null {
    const replaced = replacedBy(rect, label, this.suggestions);
    if (replaced) this.layer?.remove([replaced.id]);
    this.commit([this.insert(rect, label, extra)]);
    return replaced;
  }

  /** Changes the selected box to a rectangle; false if that changes nothing, or if no rectangle is selected. */
  fit(rect: Rect): boolean {
    const box = this.selectedRect;
    if (!box || sameRect(box, rect)) return false;
    this.layer?.reshape(box.id, rectShape(cut(rect, this.size)));
    this.commit([box.id]);
    return true;
  }

  get selectedRect(): Box | null {
    return this.boxes.find(({ id, type }) => id === this.selected && type === "rect") ?? null;
  }

  /** Adds boxes of another image as one undo step; returns their number. Skips boxes that are already here or outside.
   * Also skips boxes of which only a thin strip is inside this smaller image: the model would learn it as an object. */
  copyIn(spans: Span[], picked = false): number {
    const { width, height } = this.size;
    const fresh = spans.filter(
      (span) =>
        span.x < width &&
        span.y < height &&
        !isStrip(span, cut(span, this.size)) &&
        !isThere(span, span.label, this.boxes),
    );
    if (!fresh.length || !this.layer) return 0;
    const copies = fresh.map((span) => copyAnnotation(this.skeletons.completed(span), this.size, picked));
    this.layer.add(copies);
    this.commit(copies.map(({ id }) => id));
    return copies.length;
  }

  remove(id: string): void {
    this.layer?.remove([id]);
    this.commit();
  }

  removeSuggestions(): number {
    const ids = this.suggestions.map(({ id }) => id);
    if (!ids.length) return 0;
    this.layer?.remove(ids);
    this.commit();
    return ids.length;
  }

  /** Replaces untouched suggestions by newer ones, as one undo step, and returns how many are shown. Drawn and changed
   * boxes stay. A suggestion for the same object is dropped, because the model would be trained on both. */
  replaceSuggestions(task: Task): number {
    const spans = task.spans.map((span) => this.skeletons.completed(span));
    this.task = task;
    const isUntouched = ({ origin }: Box) => origin === "suggested" || origin === "given";
    const untouched = this.boxes.filter(isUntouched);
    const kept = this.boxes.filter((box) => !isUntouched(box));
    const fresh = spans.filter((span) => !isCovered(span, span.label, kept));
    for (const span of spans) this.first.set(span.id, span);
    this.layer?.remove(untouched.map(({ id }) => id));
    this.layer?.add(fresh.map(fromSpan));
    this.commit();
    return fresh.length;
  }

  /** Replaces the task by one without suggestions, as it is itself. Undo steps that have the task get the new one. */
  renewCandidates(task: Task): void {
    const old = this.task;
    this.steps.change((state) => (state.task === old ? { ...state, task } : state));
    this.task = task;
  }

  relabel(id: string, label: string): void {
    const shown = this.layer?.get(id);
    if (!shown || readLabel(shown) === label) return;
    this.layer?.relabel(id, label, this.skeletons.complete(label, boundsOf(shown.target.selector), readKeypoints(shown)));
    this.commit([id]);
  }

  /** Takes over the names that labels have now, also in the undo steps, without a step. Suggestions whose label is gone
   * are removed. answered: the boxes are those of an answer, which stay. */
  takeLabels(book: LabelBook, answered: boolean): void {
    const now = (shown: ImageAnnotation) => book.today(readLabel(shown));
    const isOwn = ({ id }: ImageAnnotation) => answered || this.first.get(id)?.score === undefined;
    const current = (boxes: ImageAnnotation[]) =>
      boxes.filter((shown) => isOwn(shown) || now(shown) !== null).map((shown) => withLabel(shown, now(shown) ?? readLabel(shown)));
    this.steps.change(({ boxes, task }) => ({ boxes: current(boxes), task: task && book.translateTask(task, answered) }));
    this.first = new Map(book.translate([...this.first.values()]).map((span) => [span.id, span]));
    this.task = this.steps.current.task;
    this.layer?.restore(this.steps.current.boxes);
    this.update();
  }

  /** Moves the selected box or one of its corners by (dx, dy) image pixels. */
  nudge(dx: number, dy: number, grip: "move" | "nw" | "se"): void {
    const shown = this.selected && this.layer?.get(this.selected);
    if (!shown) return;
    const { selector } = shown.target;
    if (isPolygon(selector) && grip !== "move") return;
    const moved = isPolygon(selector)
      ? movedPolygon(selector, dx, dy, this.size)
      : rectShape(nudged(this.boxRect(shown.id), grip, dx, dy, this.size));
    this.layer?.reshape(shown.id, moved);
    this.commit([shown.id], `${grip} ${shown.id}`);
  }

  /** What a drag from this point of the image would change. Polygons are handled by the library. */
  hitAt(at: Point, reach: Reach): Hit | null {
    return hitAt(this.visible.filter(({ type }) => type === "rect"), this.selected, at, this.scale(), reach, this.size);
  }

  /** Shows the handles of the box whose edge is at the point, else of the smallest box at it. */
  hover(at: Point | null, hit: Hit | null): void {
    const under = at && (hit?.id ?? this.idAt(at, 0));
    const hovered = this.boxes.find(({ id, type }) => id === under && type === "rect")?.id ?? null;
    if (hovered === this.hovered) return;
    this.hovered = hovered;
    this.showHandles();
  }

  /** Drags by (dx, dy) image pixels from the box's position at the start. It is not an undo step before `drop`. */
  drag({ id, grip }: Hit, dx: number, dy: number): void {
    const shown = this.layer?.get(id);
    // A key may have removed the box since the press.
    if (!shown) return;
    if (this.dragging?.id !== id) this.dragging = { id, rect: this.boxRect(id), shown };
    if (id !== this.selected) this.activate(id);
    const { rect, shown: before } = this.dragging;
    this.layer?.reshape(id, rectShape(dragged(rect, grip, dx, dy, this.size)), before);
  }

  drop(): void {
    const dragged = this.dragging;
    this.dragging = null;
    if (!dragged) return;
    // Label keys must not change a box that was just moved or resized, even if it had been clicked before.
    this.chosen = null;
    this.commit([dragged.id]);
  }

  /** Cancels the drag. */
  putBack(): void {
    const dragged = this.dragging;
    this.dragging = null;
    if (dragged) this.layer?.reshape(dragged.id, dragged.shown.target.selector, dragged.shown);
  }

  canGo(step: -1 | 1): boolean {
    return this.layer !== null && this.steps.has(step);
  }

  /** Undo (-1) or redo (1) one step; false if there is none. */
  go(step: -1 | 1): boolean {
    const state = this.steps.go(step);
    if (!state || !this.layer) return false;
    this.layer.restore(state.boxes);
    this.task = state.task;
    this.warning = "";
    this.touched = true;
    this.update();
    return true;
  }

  dismissWarning(): void {
    this.warning = "";
    this.changed();
  }

  hideSuggestions(hide: boolean): void {
    this.suggestionsHidden = hide;
    if (hide && this.suggestions.some(({ id }) => id === this.selected)) this.select(null);
    this.update();
  }

  /** Updates everything that depends on the boxes or on their position on the screen. */
  update(): void {
    this.boxes = (this.layer?.shapes ?? []).map((shown) => toBox(shown, this.first.get(shown.id), this.origin));
    this.hidden = new Set(this.suggestionsHidden ? this.suggestions.map(({ id }) => id) : []);
    this.colours.paint(this.boxes, this.hidden, this.selected);
    const selected = this.boxes.find(({ id }) => id === this.selected);
    if (selected) this.frame.style.setProperty("--selected", this.colours.of(selected.label));
    this.showHandles();
    this.points.update(this.visible, this.size);
    this.tags.update(this.boxes, this.size, this.colours, this.selected, this.hidden, this.scale());
    this.changed();
  }

  /** The part of a box that is inside the image. */
  private boxRect(id: string): Rect {
    return cut(this.boxes.find((box) => box.id === id)!, this.size);
  }

  private showHandles(): void {
    const shown = this.boxes.filter(
      ({ id, type }) => type === "rect" && !this.hidden.has(id) && (id === this.selected || id === this.hovered),
    );
    this.handles.show(shown, this.size);
  }

  private insert(rect: Rect, label: string, extra: Extra = {}): string {
    const id = uuid();
    const box = cut(rect, this.size);
    const keypoints = this.skeletons.complete(label, box, extra.keypoints);
    this.layer?.add([annotation(id, label, rectShape(box), { ...extra, keypoints })]);
    this.activate(id);
    return id;
  }

  /** Records an undo step after a person changed the boxes. changed: ids of the boxes to check for warnings. */
  private commit(changed: string[] = [], kind = ""): void {
    this.touched = true;
    this.steps.add({ boxes: this.layer?.shapes ?? [], task: this.task }, kind);
    this.update();
    const boxes = this.boxes.filter(({ id }) => changed.includes(id));
    for (const box of boxes) this.skeletons.remember(box);
    this.warning = boxes.map((box) => oddity(box, this.boxes, this.scale())).find(Boolean) ?? "";
    this.changed();
  }

  /** Clips an edited polygon to the image. */
  private keepPolygon(id: string): void {
    const selector = this.layer?.get(id)?.target.selector;
    if (!selector || !isPolygon(selector)) return;
    this.layer?.carryKeypoints(id, this.steps.current.boxes.find((shown) => shown.id === id));
    const inside = clippedPolygon(selector, this.size);
    if (inside) this.layer?.reshape(id, inside);
    this.chosen = null;
    this.commit([id], `polygon ${id}`);
  }
}
