/** Display settings of the page, the image and the boxes, stored in this browser. */

import { loadJson, save } from "./storage";

export type Theme = "auto" | "light" | "dark";
export type Names = "all" | "selected" | "none";

export interface Settings {
  theme: Theme;
  /** Which boxes show their label's name. */
  names: Names;
  /** Whether boxes are filled with a tint. */
  fill: boolean;
  /** Whether lines through the pointer cross the stage. */
  guides: boolean;
  /** Whether the model's candidate under the pointer is shown. */
  candidates: boolean;
  /** Opacity of the boxes that are not selected, in percent. */
  opacity: number;
  /** Line width of boxes, in screen pixels. */
  line: number;
  /** Brightness and contrast of the image, in percent. */
  brightness: number;
  contrast: number;
}

export const DEFAULTS: Readonly<Settings> = {
  theme: "auto",
  names: "all",
  fill: true,
  guides: false,
  candidates: true,
  opacity: 100,
  line: 2,
  brightness: 100,
  contrast: 100,
};

export const THEMES: readonly Theme[] = ["auto", "light", "dark"];
export const NAMES: readonly Names[] = ["all", "selected", "none"];

export type Amount = "opacity" | "line" | "brightness" | "contrast";

export const RANGES: { [name in Amount]: { min: number; max: number; step: number } } = {
  opacity: { min: 10, max: 100, step: 5 },
  line: { min: 1, max: 8, step: 1 },
  brightness: { min: 50, max: 400, step: 10 },
  contrast: { min: 50, max: 400, step: 10 },
};

const KEY = "odkeras:display";

export class Display {
  settings: Settings = stored();

  constructor(private readonly changed: () => void) {
    this.apply();
    // The settings were changed in another tab.
    window.addEventListener("storage", ({ key }) => {
      if (key === KEY || key === null) this.take(stored());
    });
  }

  get isDefault(): boolean {
    return (Object.keys(DEFAULTS) as (keyof Settings)[]).every((name) => this.settings[name] === DEFAULTS[name]);
  }

  set(values: Partial<Settings>): void {
    this.take(checked({ ...this.settings, ...values }));
    // Without storage, the settings last until the page is closed.
    save(KEY, JSON.stringify(this.settings));
  }

  reset(): void {
    this.set(DEFAULTS);
  }

  private take(settings: Settings): void {
    this.settings = settings;
    this.apply();
    this.changed();
  }

  /** Sets attributes and properties of the root element, which the style sheets use. */
  private apply(): void {
    const { theme, names, fill, opacity, line, brightness, contrast } = this.settings;
    const { dataset, style } = document.documentElement;
    dataset.scheme = theme;
    dataset.names = names;
    dataset.fill = fill ? "on" : "off";
    style.setProperty("--box-opacity", `${opacity / 100}`);
    style.setProperty("--box-line", `${line}px`);
    const plain = brightness === 100 && contrast === 100;
    style.setProperty("--picture", plain ? "none" : `brightness(${brightness}%) contrast(${contrast}%)`);
  }
}

function stored(): Settings {
  const value = loadJson(KEY);
  return checked(typeof value === "object" && value !== null ? value : {});
}

/** Replaces settings that are missing or invalid (written by another version of the page) by their defaults. */
function checked(given: Partial<Settings>): Settings {
  const amounts = (Object.keys(RANGES) as Amount[]).map((name) => [name, within(name, given[name])]);
  return {
    theme: THEMES.find((theme) => theme === given.theme) ?? DEFAULTS.theme,
    names: NAMES.find((names) => names === given.names) ?? DEFAULTS.names,
    fill: typeof given.fill === "boolean" ? given.fill : DEFAULTS.fill,
    guides: typeof given.guides === "boolean" ? given.guides : DEFAULTS.guides,
    candidates: typeof given.candidates === "boolean" ? given.candidates : DEFAULTS.candidates,
    ...(Object.fromEntries(amounts) as Pick<Settings, Amount>),
  };
}

function within(name: Amount, value: unknown): number {
  const { min, max } = RANGES[name];
  return typeof value === "number" && value >= min && value <= max ? value : DEFAULTS[name];
}
