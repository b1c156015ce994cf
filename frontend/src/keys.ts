/** The key bindings: one table that is used for the events and for the help. */

import type { Desk } from "./desk";
import { addBox, chooseLabel, copyBoxes, removeSelected, removeSuggestions, showOffer, takeBack, toggleSuggestions } from "./edits";
import type { Decision } from "./wire";

interface Binding {
  group: string;
  keys: string[];
  does: string;
  /** Returns the action if the event matches, else null. */
  when: (event: KeyboardEvent, desk: Desk) => (() => void) | null;
}

const NUDGE: { [key: string]: [number, number] } = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const FAST_PX = 10;

/** Whether no modifier changes the meaning. AltGr is allowed, because some keyboards need it for brackets. */
function plain(event: KeyboardEvent): boolean {
  return event.getModifierState("AltGraph") || !(event.ctrlKey || event.metaKey || event.altKey);
}

function key(names: string[], act: (desk: Desk) => void, repeats = true): Binding["when"] {
  return (event, desk) => {
    if (!plain(event) || !names.includes(event.key.length === 1 ? event.key.toLowerCase() : event.key)) return null;
    // While the key is held down, its repeats must not answer one image after another.
    return event.repeat && !repeats ? () => {} : () => act(desk);
  };
}

const answer = (name: string, decision: Decision) => key([name], (desk) => desk.answer(decision), false);

/** Moves the selected box or one of its corners by steps in screen pixels, which are visible at any zoom. */
function nudge(grip: "move" | "nw" | "se"): Binding["when"] {
  return (event, desk) => {
    const step = NUDGE[event.key];
    if (!step || heldGrip(event) !== grip) return null;
    // Without a box, plain arrows scroll. With alt, ctrl or cmd they are always handled, or the browser would navigate.
    if (!desk.canvas?.selected) return grip === "move" ? null : () => {};
    const size = (event.shiftKey ? FAST_PX : 1) / (desk.view?.scale ?? 1);
    return () => desk.canvas?.nudge(step[0] * size, step[1] * size, grip);
  };
}

function heldGrip(event: KeyboardEvent): "move" | "nw" | "se" | null {
  const ctrl = event.ctrlKey || event.metaKey;
  if (ctrl && event.altKey) return null;
  return ctrl ? "nw" : event.altKey ? "se" : "move";
}

/** u and ctrl+z undo; ctrl+y and ctrl+shift+z redo. */
function history(step: -1 | 1): Binding["when"] {
  return (event, desk) => {
    const name = event.key.toLowerCase();
    const ctrl = (event.ctrlKey || event.metaKey) && !event.altKey;
    const back = (name === "u" && plain(event)) || (name === "z" && ctrl && !event.shiftKey);
    const forth = ctrl && (name === "y" || (name === "z" && event.shiftKey));
    return (step < 0 ? back : forth) ? () => takeBack(desk, step) : null;
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
    else if (desk.gestures?.busy) desk.gestures.cancel();
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
  // If a corner of a polygon is selected, the canvas removes that corner.
  if (document.querySelector(".a9s-handle-selected")) return null;
  return event.key === "Delete" && plain(event) && desk.canvas?.selected ? () => removeSelected(desk) : null;
}

export const BINDINGS: Binding[] = [
  { group: "Answers", keys: ["a"], does: "accept", when: answer("a", "accept") },
  { group: "Answers", keys: ["x"], does: "reject", when: answer("x", "reject") },
  { group: "Answers", keys: ["space"], does: "ignore", when: answer(" ", "ignore") },
  {
    group: "Answers",
    keys: ["backspace"],
    does: "undo: reopen the previous answer",
    when: key(["Backspace"], (desk) => desk.undo(), false),
  },
  { group: "Answers", keys: ["ctrl + s"], does: "train now on all answers so far", when: save },
  {
    group: "Boxes",
    keys: ["1", "…", "9", "0"],
    does: "set the label of the next box, or of the box selected by click, list or brackets",
    when: digit,
  },
  {
    group: "Boxes",
    keys: ["l", "/"],
    does: "search the labels, assign keys to them",
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
    keys: ["c"],
    does: "copy the boxes of the previous image (frames of a video)",
    when: key(["c"], (desk) => void copyBoxes(desk), false),
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
  {
    group: "Boxes",
    keys: ["arrows"],
    does: "move the selected box by a pixel of the screen (shift: 10)",
    when: nudge("move"),
  },
  { group: "Boxes", keys: ["alt + arrows"], does: "move its right or lower edge (shift: 10)", when: nudge("se") },
  { group: "Boxes", keys: ["ctrl + arrows"], does: "move its left or upper edge (shift: 10)", when: nudge("nw") },
  { group: "Boxes", keys: ["delete"], does: "remove the selected box", when: remove },
  { group: "Boxes", keys: ["esc"], does: "cancel drawing, deselect, close a dialog", when: escape },
  {
    group: "Boxes",
    keys: ["u", "ctrl + z"],
    does: "undo the last change of boxes",
    when: history(-1),
  },
  { group: "Boxes", keys: ["ctrl + y"], does: "redo the last undone change of boxes", when: history(1) },
  {
    group: "Suggestions",
    keys: ["s"],
    does: "hide or show suggestions; hidden ones stay part of the answer",
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
    does: "show newer suggestions for this image; your own boxes are kept",
    when: key(["n"], (desk) => showOffer(desk), false),
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
    keys: ["g"],
    does: "open the gallery of all images",
    when: key(["g"], (desk) => desk.set({ galleryOpen: true }), false),
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
  // Capture phase, because the canvas uses some keys for the corners of polygons.
  window.addEventListener("keydown", (event) => onKey(event, desk), true);
  // A clicked button would keep the focus, and the space bar would press it instead of ignoring the image.
  window.addEventListener("click", (event) => {
    if (event.detail > 0 && !desk.dialogOpen) (event.target as Element).closest("button")?.blur();
  });
}

function onKey(event: KeyboardEvent, desk: Desk): void {
  if (event.defaultPrevented || event.isComposing || desk.dialogOpen || isTyping(event) || activates(event) || scrolls(event))
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

/** Whether the key scrolls the focused text (a log, the news). */
function scrolls({ target, key }: KeyboardEvent): boolean {
  if (!(target instanceof HTMLElement) || target.closest(".stage") || !KEYS_OF_CONTROLS.test(key)) return false;
  return target !== document.body && /auto|scroll/.test(getComputedStyle(target).overflowY);
}

/** Keys that sliders and check boxes use themselves; all other keys act on the image there too. */
const KEYS_OF_CONTROLS = /^(Arrow.*|Home|End|PageUp|PageDown| )$/;

function isTyping({ target, key }: KeyboardEvent): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input[type=range], input[type=checkbox]")) return KEYS_OF_CONTROLS.test(key);
  return target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName);
}

/** Whether the key presses the focused button. Only buttons focused with the keyboard use Space and Enter. */
function activates(event: KeyboardEvent): boolean {
  if (event.key !== " " && event.key !== "Enter") return false;
  return (
    event.target instanceof Element &&
    event.target.matches("button:focus-visible, summary:focus-visible, a:focus-visible")
  );
}
