/** The key bindings: one table that is used for the events and for the help. */

import type { AppStore } from "./store";
import { isOnImage } from "./walk";
import { addBox, chooseLabel, confirmKeypoints, copyBoxes, cycleKeypoint, focusKeypoint, removeSelected, removeSuggestions, showOffer, takeBack, tighten, toggleSuggestions } from "./edits";
import { percent } from "./format";
import type { Decision } from "./messages";

interface Binding {
  group: string;
  keys: string[];
  description: string;
  /** Returns the action if the event matches, else null. */
  when: (event: KeyboardEvent, store: AppStore) => (() => void) | null;
}

const NUDGE: { [key: string]: [number, number] } = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const FAST_PX = 10;
/** Step while a key is held down, after so many repeats. */
const HELD_PX = 5;
const HELD_REPEATS = 6;

/** Whether no modifier changes the meaning. AltGr is allowed, because some keyboards need it for brackets. */
function plain(event: KeyboardEvent): boolean {
  return event.getModifierState("AltGraph") || !(event.ctrlKey || event.metaKey || event.altKey);
}

function key(names: string[], act: (store: AppStore) => void, repeats = true): Binding["when"] {
  return (event, store) => {
    if (!plain(event) || !names.includes(event.key.length === 1 ? event.key.toLowerCase() : event.key)) return null;
    // While the key is held down, its repeats must not answer one image after another.
    return event.repeat && !repeats ? () => {} : () => act(store);
  };
}

const answer = (name: string, decision: Decision) => key([name], (store) => store.answer(decision), false);

/** Moves the selected box or one of its corners by steps in screen pixels, which are visible at any zoom. */
function nudge(grip: "move" | "nw" | "se"): Binding["when"] {
  let repeats = 0;
  return (event, store) => {
    const step = NUDGE[event.key];
    if (!step || heldGrip(event) !== grip || (grip === "move" && store.canvas?.points.focused)) return null;
    // Without a box, plain arrows scroll. With alt, ctrl or cmd they are always handled, or the browser would navigate.
    if (!store.canvas?.selected) return grip === "move" ? null : () => {};
    repeats = event.repeat ? repeats + 1 : 0;
    const size = stepSize(event, store, repeats);
    return () => store.canvas?.nudge(step[0] * size, step[1] * size, grip);
  };
}

/** In image pixels. */
function stepSize(event: KeyboardEvent, store: AppStore, repeats: number): number {
  return (event.shiftKey ? FAST_PX : repeats > HELD_REPEATS ? HELD_PX : 1) / (store.view?.scale ?? 1);
}

/** Moves the focused keypoint by steps in screen pixels. */
function nudgeKeypoint(): Binding["when"] {
  let repeats = 0;
  return (event, store) => {
    const step = NUDGE[event.key];
    if (!step || heldGrip(event) !== "move" || !store.canvas?.points.focused) return null;
    repeats = event.repeat ? repeats + 1 : 0;
    const size = stepSize(event, store, repeats);
    return () => store.canvas?.points.nudge(step[0] * size, step[1] * size);
  };
}

/** A key that acts on the keypoints of the selected box. Without labels that have keypoints it does nothing. */
function keypointKey(name: string, act: (store: AppStore, event: KeyboardEvent) => void): Binding["when"] {
  return (event, store) => {
    if (event.key.toLowerCase() !== name || !plain(event) || !store.ready || !store.skeletons.any) return null;
    return () => act(store, event);
  };
}

function heldGrip(event: KeyboardEvent): "move" | "nw" | "se" | null {
  const ctrl = event.ctrlKey || event.metaKey;
  if (ctrl && event.altKey) return null;
  return ctrl ? "nw" : event.altKey ? "se" : "move";
}

/** u and ctrl+z undo; ctrl+y and ctrl+shift+z redo. */
function history(step: -1 | 1): Binding["when"] {
  return (event, store) => {
    const name = event.key.toLowerCase();
    const ctrl = (event.ctrlKey || event.metaKey) && !event.altKey;
    const back = (name === "u" && plain(event)) || (name === "z" && ctrl && !event.shiftKey);
    const forth = ctrl && (name === "y" || (name === "z" && event.shiftKey));
    return (step < 0 ? back : forth) ? () => takeBack(store, step) : null;
  };
}

function digit(event: KeyboardEvent, store: AppStore): (() => void) | null {
  const number = /^[0-9]$/.test(event.key) ? event.key : event.shiftKey ? null : /^Digit([0-9])$/.exec(event.code)?.[1];
  const label = number && plain(event) && store.labels?.named(number);
  return label ? () => useLabel(store, label) : null;
}

/** Chooses a label, with which a candidate that keys have shown becomes a box. */
function useLabel(store: AppStore, label: string): void {
  const picks = store.walk?.shows;
  chooseLabel(store, label);
  if (picks) store.gestures?.pickCandidate();
}

function escape(event: KeyboardEvent, store: AppStore): (() => void) | null {
  if (event.key !== "Escape") return null;
  return () => {
    if ((event.target as Element).closest?.("#display")) store.set({ displayOpen: false });
    else if (store.gestures?.busy) store.gestures.cancel();
    else if (store.canvas?.points.focused) store.canvas.points.blur();
    else if (store.canvas?.selected) store.canvas.select(null);
    else if (store.displayOpen && !store.gestures?.ghost.shown) store.set({ displayOpen: false });
    else if (store.hand) store.set({ hand: false });
    else dismissCandidate(store);
  };
}

/** Hides the candidate until the pointer moves, and lets the next Tab leave the image. */
function dismissCandidate({ gestures, walk }: AppStore): void {
  gestures?.dismissCandidate();
  walk?.release();
}

/** Tab shows the next candidate under the pointer; if the pointer is over none, the next one of the image. */
function tab(event: KeyboardEvent, { gestures, walk, notices }: AppStore): (() => void) | null {
  if (event.key !== "Tab" || !plain(event) || !isOnImage(event.target)) return null;
  const step = event.shiftKey ? -1 : 1;
  if (gestures?.points && !walk?.shows) return () => gestures.ghost.cycle(step);
  const next = walk?.next(step);
  if (!next) return null;
  return () => {
    walk?.show(next);
    notices.announce(`candidate: ${next.label}, ${percent(next.score)}`);
  };
}

function enter(event: KeyboardEvent, { gestures }: AppStore): (() => void) | null {
  if (event.key !== "Enter" || !plain(event) || !isOnImage(event.target)) return null;
  return gestures?.ghost.shown ? () => gestures.pickCandidate() : null;
}

function save(event: KeyboardEvent, store: AppStore): (() => void) | null {
  const isSave =
    event.key.toLowerCase() === "s" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  return isSave ? () => !event.repeat && void store.save() : null;
}

function remove(event: KeyboardEvent, store: AppStore): (() => void) | null {
  // If a corner of a polygon is selected, the canvas removes that corner.
  if (document.querySelector(".a9s-handle-selected")) return null;
  if (event.key !== "Delete" || !plain(event) || !store.canvas?.selected) return null;
  const { points } = store.canvas;
  return () => (points.focused ? void points.markNotThere(points.focused) : removeSelected(store));
}

/** The group of the bindings that need labels with keypoints. */
export const KEYPOINTS = "Keypoints";

export const BINDINGS: Binding[] = [
  { group: "Answers", keys: ["a"], description: "accept", when: answer("a", "accept") },
  { group: "Answers", keys: ["x"], description: "reject", when: answer("x", "reject") },
  { group: "Answers", keys: ["space"], description: "ignore", when: answer(" ", "ignore") },
  {
    group: "Answers",
    keys: ["backspace"],
    description: "undo: reopen the previous answer",
    when: key(["Backspace"], (store) => store.undo(), false),
  },
  { group: "Answers", keys: ["ctrl + s"], description: "train now on all answers so far", when: save },
  {
    group: "Boxes",
    keys: ["1", "…", "9", "0"],
    description: "set the label of the next box, or of the box selected by click, list or brackets",
    when: digit,
  },
  {
    group: "Boxes",
    keys: ["l", "/"],
    description: "search the labels, assign keys to them",
    when: key(["l", "/"], (store) => store.set({ labelsOpen: true }), false),
  },
  {
    group: "Boxes",
    keys: ["b"],
    description: "add a box in the middle of the view",
    when: key(["b"], (store) => addBox(store), false),
  },
  {
    group: "Boxes",
    keys: ["c"],
    description: "copy the boxes of the previous image (frames of a video)",
    when: key(["c"], (store) => void copyBoxes(store), false),
  },
  {
    group: "Boxes",
    keys: ["["],
    description: "select the previous box",
    when: key(["[", ","], (store) => store.canvas?.selectNext(-1)),
  },
  {
    group: "Boxes",
    keys: ["]"],
    description: "select the next box",
    when: key(["]", "."], (store) => store.canvas?.selectNext(1)),
  },
  {
    group: "Boxes",
    keys: ["arrows"],
    description: "move the selected box by a pixel of the screen (held down: 5, shift: 10)",
    when: nudge("move"),
  },
  { group: "Boxes", keys: ["alt + arrows"], description: "move its right or lower edge (held down: 5, shift: 10)", when: nudge("se") },
  { group: "Boxes", keys: ["ctrl + arrows"], description: "move its left or upper edge (held down: 5, shift: 10)", when: nudge("nw") },
  {
    group: "Boxes",
    keys: ["t"],
    description: "tighten: move each edge of the selected box to the strongest edge of the image nearby",
    when: (event, store) => (store.canvas?.selectedRect ? key(["t"], tighten, false)(event, store) : null),
  },
  { group: "Boxes", keys: ["delete"], description: "remove the selected box", when: remove },
  { group: "Boxes", keys: ["esc"], description: "cancel drawing, deselect, close a dialog", when: escape },
  {
    group: "Boxes",
    keys: ["u", "ctrl + z"],
    description: "undo the last change of boxes",
    when: history(-1),
  },
  { group: "Boxes", keys: ["ctrl + y"], description: "redo the last undone change of boxes", when: history(1) },
  {
    group: KEYPOINTS,
    keys: ["k"],
    description: "go to the next keypoint of the selected box (shift: the previous one; esc: back to the box)",
    when: keypointKey("k", (store, { shiftKey }) => focusKeypoint(store, shiftKey ? -1 : 1)),
  },
  {
    group: KEYPOINTS,
    keys: ["arrows"],
    description: "move the keypoint by a pixel of the screen (held down: 5, shift: 10)",
    when: nudgeKeypoint(),
  },
  {
    group: KEYPOINTS,
    keys: ["o"],
    description: "change the keypoint: visible, hidden, not there (delete: not there)",
    when: keypointKey("o", (store, { repeat }) => !repeat && cycleKeypoint(store)),
  },
  {
    group: KEYPOINTS,
    keys: ["e"],
    description: "confirm all keypoints of the selected box that are not there, where they are",
    when: keypointKey("e", (store, { repeat }) => !repeat && confirmKeypoints(store)),
  },
  {
    group: "Suggestions",
    keys: ["s"],
    description: "hide or show suggestions; hidden ones stay part of the answer",
    when: key(["s"], (store) => toggleSuggestions(store), false),
  },
  {
    group: "Suggestions",
    keys: ["d"],
    description: "remove all suggestions",
    when: key(["d"], (store) => removeSuggestions(store), false),
  },
  {
    group: "Suggestions",
    keys: ["enter"],
    description: "add the candidate with the white outline as a box, as a click does (label keys: with that label, after tab)",
    when: enter,
  },
  {
    group: "Suggestions",
    keys: ["tab"],
    description:
      "show the next candidate (shift: the previous one): of those under the pointer, also over a box, or else of the whole image, best first",
    when: tab,
  },
  {
    group: "Suggestions",
    keys: ["n"],
    description: "show newer suggestions for this image; your own boxes are kept",
    when: key(["n"], (store) => showOffer(store), false),
  },
  { group: "View", keys: ["+"], description: "zoom in", when: key(["+", "="], (store) => store.view?.zoomBy(1.25)) },
  { group: "View", keys: ["-"], description: "zoom out", when: key(["-", "_"], (store) => store.view?.zoomBy(1 / 1.25)) },
  { group: "View", keys: ["z"], description: "fit the image into the view", when: key(["z"], (store) => store.view?.fit()) },
  {
    group: "View",
    keys: ["m"],
    description: "hand tool: move the image by dragging",
    when: key(["m"], (store) => store.set({ hand: !store.hand }), false),
  },
  {
    group: "View",
    keys: ["v"],
    description: "display: boxes, candidates, brightness, lines through the pointer, theme",
    when: key(["v"], (store) => store.set({ displayOpen: !store.displayOpen }), false),
  },
  {
    group: "View",
    keys: ["g"],
    description: "open the gallery of all images",
    when: key(["g"], (store) => store.set({ galleryOpen: true }), false),
  },
  {
    group: "View",
    keys: ["p"],
    description: "open or close the live panel",
    when: key(["p"], (store) => store.set({ panelOpen: !store.panelOpen }), false),
  },
  {
    group: "View",
    keys: ["h", "?"],
    description: "this list",
    when: key(["h", "?"], (store) => store.set({ helpOpen: true }), false),
  },
];

export function listen(store: AppStore): void {
  // Capture phase, because the canvas uses some keys for the corners of polygons.
  window.addEventListener("keydown", (event) => onKey(event, store), true);
  // A clicked button would keep the focus, and the space bar would press it instead of ignoring the image.
  window.addEventListener("click", (event) => {
    if (event.detail > 0 && !store.dialogOpen) (event.target as Element).closest("button")?.blur();
  });
}

function onKey(event: KeyboardEvent, store: AppStore): void {
  // At once: the browser closes the dialog too, but tells so later, and the keys until then would be lost.
  if (event.key === "Escape" && !event.isComposing && store.dialogOpen) {
    event.preventDefault();
    store.set({ helpOpen: false, labelsOpen: false, labelMenuOpen: false, galleryOpen: false });
    return;
  }
  if (event.defaultPrevented || event.isComposing || store.dialogOpen || isTyping(event) || activates(event) || scrolls(event))
    return;
  for (const { when } of BINDINGS) {
    const act = when(event, store);
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
