/** Crosshair through the pointer, which shows where a box would start. */

export class Guides {
  constructor(
    private readonly stage: HTMLElement,
    private readonly layer: HTMLElement,
    private readonly wanted: () => boolean,
  ) {
    // Capture phase, because the stage stops the propagation of its events while a box is drawn.
    stage.addEventListener("pointermove", this.follow, true);
    stage.addEventListener("pointerdown", this.follow, true);
    stage.addEventListener("pointerup", (event) => event.pointerType === "touch" && this.hide(), true);
    stage.addEventListener("pointercancel", () => this.hide(), true);
    stage.addEventListener("pointerleave", () => this.hide());
  }

  hide(): void {
    this.layer.hidden = true;
  }

  private readonly follow = ({ clientX, clientY, target }: PointerEvent) => {
    const overImage = (target as Element).closest(".scroll") !== null;
    this.layer.hidden = !overImage || !this.wanted();
    if (this.layer.hidden) return;
    const { left, top } = this.stage.getBoundingClientRect();
    this.layer.style.setProperty("--across", `${clientY - top}px`);
    this.layer.style.setProperty("--down", `${clientX - left}px`);
  };
}
