/** The image with its boxes: Annotorious keeps, draws, selects and edits the shapes, the rest is here. */

import {
  createImageAnnotator,
  UserSelectAction,
  type ImageAnnotation,
  type ImageAnnotator,
  type ImageAnnotatorState,
  type Shape,
} from "@annotorious/annotorious";
import {
  annotation,
  boxOf,
  clipped,
  fromSpan,
  labelBodies,
  nudged,
  rectShape,
  toSpan,
  type Box,
  type Rect,
  type Size,
} from "./boxes";
import type { Colours } from "./colours";
import { uuid } from "./identity";
import { Tags } from "./tags";
import type { Span } from "./wire";

/** Changes with it are not steps that ctrl+z takes back. (The library exports no such value.) */
const NOT_BY_HAND = "REMOTE" as never;

export interface Contents {
  image: HTMLImageElement;
  size: Size;
  /** The boxes now, and as they were handed out. */
  spans: Span[];
  first: Span[];
  byModel: boolean;
  description: string;
}

export class Canvas {
  boxes: Box[] = [];
  selected: string | null = null;
  /** The selected box, if a person chose it; null for one that is selected because it was drawn or moved just now. */
  chosen: string | null = null;
  suggestionsHidden = false;
  /** Whether a person changed anything since the image was shown. */
  touched = false;

  private annotator: ImageAnnotator | null = null;
  private size: Size = { width: 1, height: 1 };
  private first = new Map<string, Span>();
  private byModel = false;
  private hidden = new Set<string>();
  private readonly tags: Tags;
  private readonly undressing = new MutationObserver(() => this.undressHandles());

  constructor(
    private readonly frame: HTMLElement,
    tagLayer: HTMLElement,
    private readonly colours: Colours,
    private readonly scale: () => number,
    private readonly changed: () => void,
  ) {
    this.tags = new Tags(tagLayer);
  }

  show(contents: Contents): void {
    this.clear();
    this.size = contents.size;
    this.byModel = contents.byModel;
    this.first = new Map(contents.first.map((span) => [span.id, span]));
    this.frame.prepend(contents.image);
    this.annotator = createImageAnnotator(contents.image, { drawingEnabled: false, userSelectAction: this.selectable });
    const { store, selection } = this.annotator.state;
    this.dressLayer(contents);
    store.bulkUpsertAnnotations(contents.spans.map(fromSpan), NOT_BY_HAND);
    store.observe(({ origin, changes }) => {
      if (origin !== NOT_BY_HAND) this.touched = true;
      const shapes = [
        // Also what ctrl+y puts back: the library remembers shapes as they were before they were put right.
        ...(changes.created ?? []).map(({ id, target }) => ({ id, before: target.selector })),
        ...(changes.updated ?? []).map(({ oldValue, newValue }) => ({
          id: newValue.id,
          before: oldValue.target.selector,
        })),
      ];
      // Later, so that whoever else listens hears of the change before its correction.
      if (shapes.length) queueMicrotask(() => shapes.forEach(({ id, before }) => this.keepInside(id, before)));
      this.update();
    });
    selection.subscribe(({ selected }: { selected: { id: string }[] }) => {
      this.selected = selected[0]?.id ?? null;
      if (this.chosen !== this.selected) this.chosen = null;
      this.update();
    });
  }

  clear(): void {
    this.undressing.disconnect();
    const image = this.frame.querySelector("img");
    this.annotator?.destroy();
    image?.remove();
    this.annotator = null;
    this.boxes = [];
    this.selected = null;
    this.chosen = null;
    this.touched = false;
    this.suggestionsHidden = false;
    this.hidden = new Set();
    this.update();
  }

  spans(): Span[] {
    return this.boxes.map(toSpan);
  }

  get suggestions(): Box[] {
    return this.boxes.filter(({ origin }) => origin === "suggested");
  }

  /** By a person's choice: label keys change this box from now on. */
  select(id: string | null): void {
    this.chosen = id;
    this.activate(id);
  }

  /** Shows the handles; keys move and remove the box, but label keys leave it alone. */
  private activate(id: string | null): void {
    if (id) this.annotator?.state.selection.setSelected(id);
    else this.annotator?.state.selection.clear();
  }

  /** The smallest visible box at a point; buffer in image pixels. keep: where there is none, what was selected stays. */
  selectAt(x: number, y: number, buffer: number, keep = false): void {
    const { store } = (this.annotator?.state ?? {}) as Partial<ImageAnnotatorState>;
    const hit = store?.getAt(x, y, ({ id }) => !this.hidden.has(id), buffer);
    if (hit || !keep) this.select(hit?.id ?? null);
    else this.select(this.selected);
  }

  selectNext(step: 1 | -1): void {
    const seen = this.boxes.filter(({ id }) => !this.hidden.has(id));
    if (!seen.length) return;
    const at = seen.findIndex(({ id }) => id === this.selected);
    const next = at < 0 ? (step > 0 ? 0 : seen.length - 1) : (at + step + seen.length) % seen.length;
    this.select(seen[next]!.id);
  }

  /** A box at a place where there is none like it yet. */
  addBeside(rect: Rect, label: string, step: number): void {
    const taken = (x: number, y: number) =>
      this.boxes.some((box) => Math.abs(box.x - x) < 1 && Math.abs(box.y - y) < 1);
    let { x, y } = rect;
    while (taken(x, y) && x + step + rect.width <= this.size.width && y + step + rect.height <= this.size.height)
      [x, y] = [x + step, y + step];
    this.add({ ...rect, x, y }, label);
  }

  add(rect: Rect, label: string): void {
    if (!this.annotator) return;
    const id = uuid();
    const shape = rectShape(rect);
    this.annotator.state.store.addAnnotation(annotation(id, label, clipped(shape, undefined, this.size) ?? shape));
    this.activate(id);
  }

  remove(id: string): void {
    this.annotator?.state.store.deleteAnnotation(id);
  }

  removeSuggestions(): number {
    const ids = this.suggestions.map(({ id }) => id);
    if (ids.length) this.annotator?.state.store.bulkDeleteAnnotations(ids);
    return ids.length;
  }

  relabel(id: string, label: string): void {
    const shown = this.annotator?.state.store.getAnnotation(id);
    if (shown) this.annotator?.state.store.updateAnnotation({ ...shown, bodies: labelBodies(id, label) });
  }

  /** Moves the selected box, or its right and lower edge. */
  nudge(dx: number, dy: number, resize: boolean): void {
    const shown = this.selected && this.annotator?.state.store.getAnnotation(this.selected);
    if (!shown) return;
    const moved = nudged(shown.target.selector, dx, dy, resize);
    this.setShape(shown, clipped(moved, resize ? undefined : shown.target.selector, this.size) ?? moved);
  }

  hideSuggestions(hide: boolean): void {
    this.suggestionsHidden = hide;
    if (hide && this.hasSelectedSuggestion()) this.select(null);
    this.update();
  }

  /** Where the boxes are on the screen changed. */
  update(): void {
    const all = this.annotator?.state.store.all() ?? [];
    this.boxes = all.map((shown) => boxOf(shown, this.first.get(shown.id), this.byModel));
    this.hidden = new Set(this.suggestionsHidden ? this.suggestions.map(({ id }) => id) : []);
    this.colours.paint(this.boxes, this.hidden);
    const selected = this.boxes.find(({ id }) => id === this.selected);
    if (selected) this.frame.style.setProperty("--selected", this.colours.of(selected.label));
    this.tags.update(this.boxes, this.size, this.colours, this.selected, this.hidden, this.scale());
    this.changed();
  }

  private readonly selectable = ({ id }: ImageAnnotation) =>
    this.hidden.has(id) ? UserSelectAction.NONE : UserSelectAction.EDIT;

  private hasSelectedSuggestion(): boolean {
    return this.suggestions.some(({ id }) => id === this.selected);
  }

  private keepInside(id: string, before: Shape): void {
    const shown = this.annotator?.state.store.getAnnotation(id);
    const inside = shown && clipped(shown.target.selector, before, this.size);
    if (inside) this.setShape(shown, inside, NOT_BY_HAND);
  }

  private setShape(shown: ImageAnnotation, selector: Shape, origin?: never): void {
    this.annotator?.state.store.updateTarget({ ...shown.target, selector }, origin);
  }

  private dressLayer({ image, size, description }: Contents): void {
    const layer = image.parentElement?.querySelector("svg");
    if (!layer) return;
    // The server's pixels count, also where the browser reads another size from the file.
    layer.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    layer.setAttribute("aria-label", description);
    // The library takes every quick press for a click that selects what is there, also when it was a short drag of a
    // handle. Selecting is done in gestures.ts.
    layer.querySelector(":scope > g.drawing")?.addEventListener("pointerdown", (event) => event.stopPropagation());
    this.undressing.observe(layer, { childList: true, subtree: true });
  }

  /** The handles say that they are buttons, but no key works on them: arrows and alt+arrows do it here. */
  private undressHandles(): void {
    for (const handle of this.frame.querySelectorAll('svg [role="button"]')) {
      handle.removeAttribute("role");
      handle.removeAttribute("tabindex");
    }
  }
}
