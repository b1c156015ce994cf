/** Labels drawn beside the boxes. Hidden from screen readers, which use the list of boxes instead. */

import { cut, type Box, type Size } from "./boxes";
import { inkOn, type Colours } from "./colours";
import { percent } from "./format";

const LINE_PX = 20;
/** Approximate width of a letter. Measuring each tag would be slow while boxes are dragged. */
const LETTER_PX = 7.5;
const PADDING_PX = 14;

export class Tags {
  private readonly tags = new Map<string, HTMLElement>();

  constructor(private readonly layer: HTMLElement) {
    layer.setAttribute("aria-hidden", "true");
  }

  update(
    boxes: Box[],
    image: Size,
    colours: Colours,
    selected: string | null,
    hidden: Set<string>,
    scale: number,
  ): void {
    const ids = new Set(boxes.map(({ id }) => id));
    for (const [id, tag] of this.tags) {
      if (ids.has(id)) continue;
      tag.remove();
      this.tags.delete(id);
    }
    for (const box of boxes)
      this.place(this.getTag(box.id), box, image, colours, box.id === selected, hidden.has(box.id), scale);
  }

  private getTag(id: string): HTMLElement {
    const existing = this.tags.get(id);
    if (existing) return existing;
    const tag = this.layer.appendChild(document.createElement("span"));
    this.tags.set(id, tag);
    return tag;
  }

  private place(
    tag: HTMLElement,
    box: Box,
    image: Size,
    colours: Colours,
    selected: boolean,
    hidden: boolean,
    scale: number,
  ): void {
    const color = colours.of(box.label);
    const text = tagText(box);
    if (tag.textContent !== text) tag.textContent = text;
    const { x, y, width } = cut(box, image);
    const fitsAbove = y * scale > LINE_PX;
    const width_px = text.length * LETTER_PX + PADDING_PX;
    const fromRight = (image.width - x) * scale < width_px && (x + width) * scale >= width_px;
    tag.className = ["tag", box.origin, selected && "selected", fitsAbove ? "above" : "inside"]
      .filter(Boolean)
      .join(" ");
    tag.hidden = hidden;
    tag.style.setProperty("--box", color);
    tag.style.setProperty("--ink", inkOn(color));
    tag.style.top = `${(y / image.height) * 100}%`;
    tag.style.left = fromRight ? "auto" : `${(x / image.width) * 100}%`;
    tag.style.right = fromRight ? `${(1 - (x + width) / image.width) * 100}%` : "auto";
  }
}

export function tagText(box: Box): string {
  return box.origin === "suggested" && box.score !== undefined ? `${box.label} ${percent(box.score)}` : box.label;
}
