/** The layer over an image in which Annotorious stores, draws and selects the shapes, and edits polygons. */

import {
  createImageAnnotator,
  UserSelectAction,
  type ImageAnnotation,
  type ImageAnnotator,
  type ImageAnnotatorState,
  type Shape,
} from "@annotorious/annotorious";
import { boundsOf, isPolygon, labelBodies, readKeypoints, sameRect, type Size } from "./boxes";
import { carried } from "./keypoints";
import type { Keypoint } from "./messages";

/** Origin of our own changes; the library's changes (to polygons) do not have it. The library exports no such value. */
const OURS = "REMOTE" as never;

export interface LayerListener {
  /** The shapes have changed. */
  changed: () => void;
  /** A person has edited a polygon with the library's editor. */
  edited: (id: string) => void;
  selected: (id: string | null) => void;
}

export class Layer {
  private readonly annotator: ImageAnnotator;
  private readonly handleObserver: MutationObserver;

  /** image: an element in the document. size: the image's size according to the server. */
  constructor(
    image: HTMLImageElement,
    private readonly size: Size,
    description: string,
    shapes: ImageAnnotation[],
    private readonly isHidden: (id: string) => boolean,
  ) {
    this.annotator = createImageAnnotator(image, { drawingEnabled: false, userSelectAction: this.selectable });
    const svg = image.parentElement?.querySelector("svg");
    this.handleObserver = new MutationObserver(() => svg && stripHandles(svg));
    if (svg) {
      adapt(svg, size, description);
      this.handleObserver.observe(svg, { childList: true, subtree: true });
    }
    this.annotator.state.store.bulkUpsertAnnotations(shapes, OURS);
  }

  listen({ changed, edited, selected }: LayerListener): void {
    const { store, selection } = this.annotator.state;
    store.observe(({ origin, changes }) => {
      // Deferred, so that other observers see the change before its correction.
      if (origin !== OURS) queueMicrotask(() => changes.updated?.forEach(({ newValue }) => edited(newValue.id)));
      changed();
    });
    selection.subscribe((state: { selected: { id: string }[] }) => selected(state.selected[0]?.id ?? null));
  }

  destroy(): void {
    this.handleObserver.disconnect();
    this.annotator.destroy();
  }

  get shapes(): ImageAnnotation[] {
    return this.annotator.state.store.all();
  }

  get(id: string): ImageAnnotation | undefined {
    return this.annotator.state.store.getAnnotation(id);
  }

  /** The smallest visible shape at a point; buffer is in image pixels. */
  at(x: number, y: number, buffer: number): ImageAnnotation | undefined {
    const { store } = this.annotator.state as ImageAnnotatorState;
    return store.getAt(x, y, ({ id }) => !this.isHidden(id), buffer);
  }

  select(id: string | null): void {
    if (id) this.annotator.state.selection.setSelected(id);
    else this.annotator.state.selection.clear();
  }

  add(shapes: ImageAnnotation[]): void {
    this.annotator.state.store.bulkAddAnnotations(shapes, false, OURS);
  }

  remove(ids: string[]): void {
    this.annotator.state.store.bulkDeleteAnnotations(ids, OURS);
  }

  relabel(id: string, label: string, keypoints?: Keypoint[]): void {
    const shown = this.get(id);
    if (!shown) return;
    const properties = { ...shown.properties, keypoints };
    this.annotator.state.store.updateAnnotation({ ...shown, bodies: labelBodies(id, label), properties }, OURS);
  }

  /** Changes a shape. Its keypoints go along from where they are in `from`, the shape before the change. */
  reshape(id: string, selector: Shape, from = this.get(id)): void {
    const shown = this.get(id);
    if (!shown || !from) return;
    const { store } = this.annotator.state;
    const points = readKeypoints(from);
    if (!points) return store.updateTarget({ ...shown.target, selector }, OURS);
    const keypoints = carried(points, boundsOf(from.target.selector), boundsOf(selector), this.size);
    const properties = { ...shown.properties, keypoints };
    store.updateAnnotation({ ...shown, target: { ...shown.target, selector }, properties }, OURS);
  }

  /** Moves the keypoints of a polygon that the library has moved. before: the polygon before that. */
  carryKeypoints(id: string, before: ImageAnnotation | undefined): void {
    const points = before && readKeypoints(before);
    const shown = this.get(id);
    if (!points || !shown) return;
    const [from, to] = [boundsOf(before.target.selector), boundsOf(shown.target.selector)];
    const moved = { ...from, x: to.x, y: to.y };
    if (sameRect(moved, to)) this.setKeypoints(id, carried(points, from, moved, this.size));
  }

  setKeypoints(id: string, keypoints: Keypoint[]): void {
    const shown = this.get(id);
    if (!shown) return;
    const properties = { ...shown.properties, keypoints };
    this.annotator.state.store.updateAnnotation({ ...shown, properties }, OURS);
  }

  /** One call per shape: if several change at once, the library treats them as polygons that are being edited. */
  restore(shapes: ImageAnnotation[]): void {
    const { store } = this.annotator.state;
    const now = new Map(store.all().map((shown) => [shown.id, shown]));
    const wanted = new Set(shapes.map(({ id }) => id));
    for (const id of now.keys()) if (!wanted.has(id)) store.deleteAnnotation(id, OURS);
    for (const shown of shapes) {
      if (!now.has(shown.id)) store.addAnnotation(shown, OURS);
      else if (now.get(shown.id) !== shown) store.updateAnnotation(shown, OURS);
    }
  }

  /** Only polygons use the library's editor. Boxes are edited by gestures.ts, with the same rules for all of them. */
  private readonly selectable = ({ id, target }: ImageAnnotation) => {
    if (this.isHidden(id)) return UserSelectAction.NONE;
    return isPolygon(target.selector) ? UserSelectAction.EDIT : UserSelectAction.SELECT;
  };
}

function adapt(svg: SVGElement, size: Size, description: string): void {
  // The server's image size applies, even if the browser derives a different one from the file.
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  svg.setAttribute("aria-label", description);
  // The library treats every quick press as a click that selects, even if it was a short drag of a handle.
  // gestures.ts does the selecting instead.
  svg.querySelector(":scope > g.drawing")?.addEventListener("pointerdown", (event) => event.stopPropagation());
}

/** Removes the button role from the handles: no key works on them. Arrow keys and alt+arrows resize boxes instead. */
function stripHandles(svg: SVGElement): void {
  for (const handle of svg.querySelectorAll('[role="button"]')) {
    handle.removeAttribute("role");
    handle.removeAttribute("tabindex");
  }
}
