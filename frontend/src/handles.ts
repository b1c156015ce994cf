/** Dots at the corners of boxes that can be dragged. grips.ts defines what a drag does, also at edges. */

import { cut, type Rect, type Size } from "./boxes";

const CORNERS = [
  [0, 0],
  [1, 0],
  [0, 1],
  [1, 1],
] as const;

export class Handles {
  private dots: HTMLElement[] = [];

  constructor(private readonly layer: HTMLElement) {
    layer.setAttribute("aria-hidden", "true");
  }

  show(boxes: (Rect & { id: string })[], image: Size): void {
    const corners = boxes.flatMap(({ id, ...rect }) => {
      const box = { id, ...cut(rect, image) };
      return CORNERS.map((corner) => ({ box, corner }));
    });
    while (this.dots.length < corners.length)
      this.dots.push(this.layer.appendChild(document.createElement("span")));
    for (const dot of this.dots.splice(corners.length)) dot.remove();
    corners.forEach(({ box, corner: [right, bottom] }, index) => {
      const dot = this.dots[index]!;
      dot.dataset.boxId = box.id;
      dot.style.left = `${((box.x + right * box.width) / image.width) * 100}%`;
      dot.style.top = `${((box.y + bottom * box.height) / image.height) * 100}%`;
    });
  }
}
