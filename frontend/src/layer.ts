/** The library's layer over the image, fitted into the page. */

import type { Contents } from "./canvas";

export function dressLayer({ image, size, description }: Contents): void {
  const layer = image.parentElement?.querySelector("svg");
  if (!layer) return;
  // The server's pixels count, also where the browser reads another size from the file.
  layer.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  layer.setAttribute("aria-label", description);
  // The library takes every quick press for a click that selects what is there, also when it was a short drag of a
  // handle. Selecting is done in gestures.ts.
  layer.querySelector(":scope > g.drawing")?.addEventListener("pointerdown", (event) => event.stopPropagation());
}

/** The handles say that they are buttons, but no key works on them: arrows and alt+arrows do it here. */
export function undressHandles(frame: HTMLElement): void {
  for (const handle of frame.querySelectorAll('svg [role="button"]')) {
    handle.removeAttribute("role");
    handle.removeAttribute("tabindex");
  }
}
