/** The display settings. They are beside the image, so that their effect is visible. */

import { useLayoutEffect, useRef } from "preact/hooks";
import type { AppStore } from "../store";
import { NAMES, RANGES, THEMES, type Amount, type Names, type Theme } from "../display";

export function DisplaySettings({ store }: { store: AppStore }) {
  const panel = useRef<HTMLElement>(null);
  useFocusWhileOpen(panel);
  const { display } = store;
  const { theme, names, fill, guides, candidates } = display.settings;
  return (
    <section
      ref={panel}
      id="display"
      class="display"
      role="dialog"
      aria-label="Display"
      data-testid="display"
      onPointerUp={() => setTimeout(() => blurWithin(panel.current))}
    >
      <header>
        <h2>Display</h2>
        <button type="button" class="plain small" onClick={() => store.set({ displayOpen: false })}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      <Choice
        title="Theme"
        options={THEMES.map((value) => [value, THEME_WORDS[value]])}
        chosen={theme}
        onChoose={(value) => display.set({ theme: value })}
      />
      <h3>Boxes</h3>
      <Choice
        title="Names"
        options={NAMES.map((value) => [value, NAME_WORDS[value]])}
        chosen={names}
        onChoose={(value) => display.set({ names: value })}
      />
      <Check title="Fill" checked={fill} onChange={(value) => display.set({ fill: value })} />
      <Check title="Candidates" checked={candidates} onChange={(value) => display.set({ candidates: value })} />
      <Slider store={store} name="opacity" title="Opacity" unit=" %" />
      <Slider store={store} name="line" title="Line width" unit=" px" />
      <h3>Image</h3>
      <Slider store={store} name="brightness" title="Brightness" unit=" %" />
      <Slider store={store} name="contrast" title="Contrast" unit=" %" />
      <Check title="Lines through the pointer" checked={guides} onChange={(value) => display.set({ guides: value })} />
      <footer>
        <button
          type="button"
          class="plain small"
          data-testid="display-reset"
          disabled={display.isDefault}
          onClick={() => display.reset()}
        >
          Reset to defaults
        </button>
        <p class="quiet">Saved in this browser. Does not affect answers.</p>
      </footer>
    </section>
  );
}

const THEME_WORDS: { [theme in Theme]: string } = { auto: "Auto", light: "Light", dark: "Dark" };
const NAME_WORDS: { [names in Names]: string } = { all: "All", selected: "Selected", none: "None" };

/** For keyboard users: moves the focus into the panel when it opens and back when it closes. */
function useFocusWhileOpen(panel: { current: HTMLElement | null }): void {
  // A layout effect, so that the focus is there before the next key event.
  useLayoutEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    const opened = panel.current;
    opened?.querySelector<HTMLElement>("[aria-pressed='true']")?.focus({ preventScroll: true });
    return () => {
      const focused = document.activeElement;
      if (focused === document.body || opened?.contains(focused)) before?.focus({ preventScroll: true });
    };
  }, []);
}

/** Removes the focus after a click; otherwise keys would act on the clicked control instead of the image. */
function blurWithin(panel: HTMLElement | null): void {
  const focused = document.activeElement;
  if (focused instanceof HTMLElement && panel?.contains(focused)) focused.blur();
}

interface ChoiceProps<T extends string> {
  title: string;
  options: [T, string][];
  chosen: T;
  onChoose: (value: T) => void;
}

function Choice<T extends string>({ title, options, chosen, onChoose }: ChoiceProps<T>) {
  return (
    <div class="row">
      <span aria-hidden="true">{title}</span>
      <div class="choice" role="group" aria-label={title}>
        {options.map(([value, words]) => (
          <button
            key={value}
            type="button"
            data-testid={`display-${title.toLowerCase()}-${value}`}
            aria-pressed={value === chosen}
            onClick={() => onChoose(value)}
          >
            {words}
          </button>
        ))}
      </div>
    </div>
  );
}

function Check({ title, checked, onChange }: { title: string; checked: boolean; onChange: (value: boolean) => void }) {
  return (
    <label class="row">
      <span>{title}</span>
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.currentTarget.checked)} />
    </label>
  );
}

function Slider({ store, name, title, unit }: { store: AppStore; name: Amount; title: string; unit: string }) {
  const value = store.display.settings[name];
  const text = `${value}${unit}`;
  return (
    <label class="row">
      <span>{title}</span>
      <input
        type="range"
        {...RANGES[name]}
        value={value}
        aria-valuetext={text}
        onInput={(event) => store.display.set({ [name]: event.currentTarget.valueAsNumber })}
      />
      <output>{text}</output>
    </label>
  );
}
