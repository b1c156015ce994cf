/** Label colours as one constructed style sheet, because the content security policy forbids style attributes. */

import type { Box } from "./boxes";
import type { Label } from "./messages";

/** Colour for labels that are not in the label map. */
const FALLBACK = "#8a8f98";

export class Colours {
  private readonly sheet = new CSSStyleSheet();
  private rules = "";
  private byName = new Map<string, string>();

  constructor() {
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, this.sheet];
  }

  take(labels: Label[]): void {
    this.byName = new Map(labels.map(({ name, color }) => [name, color]));
  }

  of(label: string): string {
    return this.byName.get(label) ?? FALLBACK;
  }

  /** The canvas draws each box as an element with data-id, except for a selected polygon. */
  paint(boxes: Box[], hidden: Set<string>, selected: string | null): void {
    const rules = boxes.map(({ id, label, origin }) => {
      const look = [`--box: ${this.of(label)}`];
      if (origin === "suggested") look.push("--dash: 7 5");
      if (id === selected) look.push("--emphasis: 1", "opacity: 1");
      if (hidden.has(id)) look.push("display: none");
      return `.frame .a9s-annotation[data-id="${CSS.escape(id)}"] { ${look.join("; ")} }`;
    });
    const text = rules.join("\n");
    if (text === this.rules) return;
    this.rules = text;
    this.sheet.replaceSync(text);
  }
}

/** Black or white, whichever has the higher contrast on the colour (relative luminance as defined by WCAG). */
export function inkOn(color: string): string {
  const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})/i.exec(expanded(color));
  if (!match) return "#000";
  const [r, g, b] = match.slice(1, 4).map((hex) => linear(parseInt(hex!, 16) / 255)) as [number, number, number];
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000" : "#fff";
}

const linear = (value: number) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const expanded = (color: string) => color.replace(/^#([0-9a-f])([0-9a-f])([0-9a-f])$/i, "#$1$1$2$2$3$3");
