/** The keys: one table for what they do and for the help that lists them. */

import type { Desk } from "./desk";
import { addBox, chooseLabel, removeSuggestions, toggleSuggestions } from "./edits";
import type { Decision } from "./wire";

interface Binding {
  group: string;
  keys: string[];
  does: string;
  /** Whether it was this key; returns what to do. */
  when: (event: KeyboardEvent, desk: Desk) => (() => void) | null;
}

const NUDGE: { [key: string]: [number, number] } = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const FAST_PX = 10;

/** No modifier that means something else; AltGr is how some keyboards write brackets. */
function plain(event: KeyboardEvent): boolean {
  return event.getModifierState("AltGraph") || !(event.ctrlKey || event.metaKey || event.altKey);
}

function key(names: string[], act: (desk: Desk) => void, repeats = true): Binding["when"] {
  return (event, desk) => {
    if (!plain(event) || !names.includes(event.key.length === 1 ? event.key.toLowerCase() : event.key)) return null;
    // Held down, a key must not answer image after image.
    return event.repeat && !repeats ? () => {} : () => act(desk);
  };
}

const answer = (name: string, decision: Decision) => key([name], (desk) => desk.answer(decision), false);

function nudge(resize: boolean): Binding["when"] {
  return (event, desk) => {
    const step = NUDGE[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey !== resize) return null;
    const [dx, dy] = step.map((px) => px * (event.shiftKey ? FAST_PX : 1)) as [number, number];
    // Without a box plain arrows scroll; alt+arrows must not leave the page, with or without one.
    if (!desk.canvas?.selected) return resize ? () => {} : null;
    return () => desk.canvas?.nudge(dx, dy, resize);
  };
}

function digit(event: KeyboardEvent, desk: Desk): (() => void) | null {
  const number = /^[0-9]$/.test(event.key) ? event.key : event.shiftKey ? null : /^Digit([0-9])$/.exec(event.code)?.[1];
  const label = number && plain(event) && desk.labels?.named(number);
  return label ? () => chooseLabel(desk, label) : null;
}

function escape(event: KeyboardEvent, desk: Desk): (() => void) | null {
  if (event.key !== "Escape") return null;
  return () => {
    if ((event.target as Element).closest?.("#display")) desk.set({ displayOpen: false });
    else if (desk.gestures?.drawing) desk.gestures.cancel();
    else if (desk.canvas?.selected) desk.canvas.select(null);
    else if (desk.displayOpen) desk.set({ displayOpen: false });
    else if (desk.hand) desk.set({ hand: false });
  };
}

function save(event: KeyboardEvent, desk: Desk): (() => void) | null {
  const isSave =
    event.key.toLowerCase() === "s" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  return isSave ? () => !event.repeat && void desk.save() : null;
}

function remove(event: KeyboardEvent, desk: Desk): (() => void) | null {
  const selected = desk.canvas?.selected;
  // A corner of a polygon is selected: it is the canvas that removes it.
  if (document.querySelector(".a9s-handle-selected")) return null;
  return event.key === "Delete" && plain(event) && selected ? () => desk.canvas?.remove(selected) : null;
}

export const BINDINGS: Binding[] = [
  { group: "Answers", keys: ["a"], does: "accept", when: answer("a", "accept") },
  { group: "Answers", keys: ["x"], does: "reject", when: answer("x", "reject") },
  { group: "Answers", keys: ["space"], does: "ignore", when: answer(" ", "ignore") },
  {
    group: "Answers",
    keys: ["backspace"],
    does: "undo: back to the answer before",
    when: key(["Backspace"], (desk) => desk.undo(), false),
  },
  { group: "Answers", keys: ["ctrl + s"], does: "save: hand all answers to the trainer now", when: save },
  {
    group: "Boxes",
    keys: ["1", "…", "9", "0"],
    does: "label of the next box; with a box selected by click, list or brackets: the label of that box",
    when: digit,
  },
  {
    group: "Boxes",
    keys: ["l", "/"],
    does: "search the labels, give them other keys",
    when: key(["l", "/"], (desk) => desk.set({ labelsOpen: true }), false),
  },
  {
    group: "Boxes",
    keys: ["b"],
    does: "add a box in the middle of the view",
    when: key(["b"], (desk) => addBox(desk), false),
  },
  {
    group: "Boxes",
    keys: ["["],
    does: "select the previous box",
    when: key(["[", ","], (desk) => desk.canvas?.selectNext(-1)),
  },
  {
    group: "Boxes",
    keys: ["]"],
    does: "select the next box",
    when: key(["]", "."], (desk) => desk.canvas?.selectNext(1)),
  },
  { group: "Boxes", keys: ["arrows"], does: "move the selected box by 1 pixel (shift: 10)", when: nudge(false) },
  { group: "Boxes", keys: ["alt + arrows"], does: "resize the selected box by 1 pixel (shift: 10)", when: nudge(true) },
  { group: "Boxes", keys: ["delete"], does: "remove the selected box", when: remove },
  { group: "Boxes", keys: ["esc"], does: "cancel drawing, deselect, close a dialog", when: escape },
  { group: "Boxes", keys: ["ctrl + z", "ctrl + y"], does: "take back or repeat a change of boxes", when: () => null },
  {
    group: "Suggestions",
    keys: ["s"],
    does: "hide or show suggestions while looking; hidden ones stay part of the answer",
    when: key(["s"], (desk) => toggleSuggestions(desk), false),
  },
  {
    group: "Suggestions",
    keys: ["d"],
    does: "remove all suggestions",
    when: key(["d"], (desk) => removeSuggestions(desk), false),
  },
  {
    group: "Suggestions",
    keys: ["n"],
    does: "show suggestions that came after the image",
    when: key(["n"], (desk) => desk.showOffer(), false),
  },
  { group: "View", keys: ["+"], does: "zoom in", when: key(["+", "="], (desk) => desk.view?.zoomBy(1.25)) },
  { group: "View", keys: ["-"], does: "zoom out", when: key(["-", "_"], (desk) => desk.view?.zoomBy(1 / 1.25)) },
  { group: "View", keys: ["z"], does: "fit the image into the view", when: key(["z"], (desk) => desk.view?.fit()) },
  {
    group: "View",
    keys: ["m"],
    does: "hand tool: move the image by dragging",
    when: key(["m"], (desk) => desk.set({ hand: !desk.hand }), false),
  },
  {
    group: "View",
    keys: ["v"],
    does: "display: boxes, brightness, lines through the pointer, theme",
    when: key(["v"], (desk) => desk.set({ displayOpen: !desk.displayOpen }), false),
  },
  {
    group: "View",
    keys: ["p"],
    does: "open or close the live panel",
    when: key(["p"], (desk) => desk.set({ panelOpen: !desk.panelOpen }), false),
  },
  {
    group: "View",
    keys: ["h", "?"],
    does: "this list",
    when: key(["h", "?"], (desk) => desk.set({ helpOpen: true }), false),
  },
];

export function listen(desk: Desk): void {
  // Before anybody else: the canvas takes some keys for its corners of polygons.
  window.addEventListener("keydown", (event) => onKey(event, desk), true);
  // A button that was clicked keeps the focus, and the space bar would press it instead of ignoring the image.
  window.addEventListener("click", (event) => {
    if (event.detail > 0 && !desk.dialogOpen) (event.target as Element).closest("button")?.blur();
  });
}

function onKey(event: KeyboardEvent, desk: Desk): void {
  if (event.defaultPrevented || event.isComposing || desk.dialogOpen || isTyping(event) || activates(event))
    return;
  for (const { when } of BINDINGS) {
    const act = when(event, desk);
    if (!act) continue;
    event.preventDefault();
    event.stopPropagation();
    act();
    return;
  }
}

/** Keys that a slider or a check box uses itself; all others work on the image there, too. */
const KEYS_OF_CONTROLS = /^(Arrow.*|Home|End|PageUp|PageDown| )$/;

function isTyping({ target, key }: KeyboardEvent): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input[type=range], input[type=checkbox]")) return KEYS_OF_CONTROLS.test(key);
  return target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName);
}

/** Space and Enter belong to a button that was reached with the keyboard. */
function activates(event: KeyboardEvent): boolean {
  if (event.key !== " " && event.key !== "Enter") return false;
  return (
    event.target instanceof Element &&
    event.target.matches("button:focus-visible, summary:focus-visible, a:focus-visible")
  );
}
