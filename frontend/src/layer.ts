/** Adapts the library's SVG layer over the image. */

import type { Contents } from "./canvas";

export function styleLayer({ image, size, description }: Contents): void {
  const layer = image.parentElement?.querySelector("svg");
  if (!layer) return;
  // The server's image size applies, even if the browser derives a different one from the file.
  layer.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  layer.setAttribute("aria-label", description);
  // The library treats every quick press as a click that selects, even if it was a short drag of a handle.
  // gestures.ts does the selecting instead.
  layer.querySelector(":scope > g.drawing")?.addEventListener("pointerdown", (event) => event.stopPropagation());
}

/** Removes the button role from the handles: no key works on them. Arrow keys and alt+arrows resize boxes instead. */
export function stripHandles(frame: HTMLElement): void {
  for (const handle of frame.querySelectorAll('svg [role="button"]')) {
    handle.removeAttribute("role");
    handle.removeAttribute("tabindex");
  }
}
