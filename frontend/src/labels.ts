/** The labels of a dataset in the page: ten with keys, the recently used ones, and a search. */

import type { Label, Span, Task } from "./messages";
import { loadJson, save } from "./storage";

/** In keyboard order. */
export const LABEL_KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"] as const;
export type LabelKey = (typeof LABEL_KEYS)[number];

const PREFIX = "odkeras:labels:";
const RECENT_KEPT = 20;
/** Number of recently used labels without a key that stay in the bar. */
const RECENT_IN_BAR = 4;

interface Stored {
  keys: (string | null)[];
  recent: string[];
}

export class LabelBook {
  /** The label names of the ten keys; null for a free key. */
  keys: (string | null)[];
  /** Label names, most recently used first. */
  recent: string[];
  /** Recent labels without a key. Each keeps its position as long as it is among them. */
  beside: string[] = [];

  private readonly places = new Map<string, number>();
  private readonly renamed: Map<string, string>;
  private readonly folded: string[];
  private readonly storageKey: string;

  /** renamed: earlier names of labels, and the labels that they are now. */
  constructor(
    readonly labels: Label[],
    dataset: string,
    renamed: Record<string, string> = {},
  ) {
    this.renamed = new Map(Object.entries(renamed));
    labels.forEach(({ name }, index) => this.places.set(name, index));
    this.folded = labels.map(({ name }) => fold(name));
    this.storageKey = PREFIX + encodeURIComponent(dataset);
    const stored = read(this.storageKey);
    this.keys = this.filled(stored.keys.map((name) => name && this.today(name)));
    const recent = stored.recent.map((name) => this.today(name)).filter((name) => name !== null);
    this.recent = [...new Set(recent)];
    this.placeBeside();
  }

  /** Whether all labels fit into the bar. */
  get areFew(): boolean {
    return this.labels.length <= LABEL_KEYS.length;
  }

  label(name: string): Label | undefined {
    return this.labels[this.places.get(name) ?? -1];
  }

  named(key: string): string | null {
    return this.keys[LABEL_KEYS.indexOf(key as LabelKey)] ?? null;
  }

  keyFor(name: string): LabelKey | null {
    return LABEL_KEYS[this.keys.indexOf(name)] ?? null;
  }

  /** Assigns a key to a label. If the label already has a key, the two labels swap keys. */
  assign(name: string, key: LabelKey): void {
    const to = LABEL_KEYS.indexOf(key);
    const from = this.keys.indexOf(name);
    if (from >= 0) this.keys[from] = this.keys[to] ?? null;
    this.keys[to] = name;
    this.placeBeside();
    this.write();
  }

  resetKeys(): void {
    this.keys = this.filled([]);
    this.placeBeside();
    this.write();
  }

  /** The label that one is now: itself, or what it was renamed to; null if there is no such label. */
  today(name: string): string | null {
    if (this.places.has(name)) return name;
    const now = this.renamed.get(name);
    return now !== undefined && this.places.has(now) ? now : null;
  }

  /** Objects under the names that their labels have now; the same array if none changes. */
  translate<T extends { label: string }>(objects: T[]): T[] {
    const labels = objects.map(({ label }) => this.today(label) ?? label);
    if (labels.every((label, index) => label === objects[index]!.label)) return objects;
    return objects.map((object, index) => ({ ...object, label: labels[index]! }));
  }

  /** Boxes under the names that their labels have now, without suggestions whose label is gone; the same array if
   * nothing changes. answered: the boxes are those of an answer, which stay. */
  translateSpans(spans: Span[], answered: boolean): Span[] {
    const isGone = ({ label, score }: Span) => !answered && score !== undefined && this.today(label) === null;
    return this.translate(spans.some(isGone) ? spans.filter((span) => !isGone(span)) : spans);
  }

  /** A task with such boxes; the same if nothing changes. */
  translateTask(task: Task, answered: boolean): Task {
    const spans = this.translateSpans(task.spans, answered);
    const candidates = this.translate(task.candidates);
    return spans === task.spans && candidates === task.candidates ? task : { ...task, spans, candidates };
  }

  /** Records that a label was chosen. */
  use(name: string): void {
    if (!this.places.has(name) || this.recent[0] === name) return;
    this.recent = [name, ...this.recent.filter((other) => other !== name)].slice(0, RECENT_KEPT);
    this.placeBeside();
    this.write();
  }

  /** Labels whose names contain all words of the text, best match first. Without text: all, recently used first. */
  search(text: string): Label[] {
    const words = fold(text).split(/\s+/).filter(Boolean);
    const recent = new Map(this.recent.map((name, index) => [name, index]));
    return this.labels
      .map((label, index) => ({ label, index, rank: rank(this.folded[index]!, words) }))
      .filter(({ rank }) => rank < NO_MATCH)
      .map((match) => ({ ...match, used: recent.get(match.label.name) ?? RECENT_KEPT }))
      .sort((a, b) => a.rank - b.rank || a.used - b.used || a.index - b.index)
      .map(({ label }) => label);
  }

  /** Keeps labels at their assigned keys and assigns the free keys to the remaining labels, in order. */
  private filled(keys: (string | null)[]): (string | null)[] {
    const assigned = LABEL_KEYS.map((_, index) => {
      const name = keys[index] ?? null;
      return name !== null && this.places.has(name) && keys.indexOf(name) === index ? name : null;
    });
    const others = this.labels.map(({ name }) => name).filter((name) => !assigned.includes(name));
    return assigned.map((name) => name ?? others.shift() ?? null);
  }

  private placeBeside(): void {
    const now = this.recent.filter((name) => !this.keys.includes(name)).slice(0, RECENT_IN_BAR);
    const kept = this.beside.map((name) => (now.includes(name) ? name : null));
    const fresh = now.filter((name) => !kept.includes(name));
    const placed = kept.map((name) => name ?? fresh.shift() ?? null);
    this.beside = [...placed, ...fresh].filter((name) => name !== null);
  }

  private write(): void {
    // Without storage, the next page starts with the first ten labels again.
    save(this.storageKey, JSON.stringify({ keys: this.keys, recent: this.recent } satisfies Stored));
  }
}

const NO_MATCH = 4;

function rank(name: string, words: string[]): number {
  if (!words.length) return 0;
  if (!words.every((word) => name.includes(word))) return NO_MATCH;
  const text = words.join(" ");
  if (name === text) return 0;
  if (name.startsWith(text)) return 1;
  return name.split(/[^\p{L}\p{N}]+/u).some((part) => part.startsWith(words[0]!)) ? 2 : 3;
}

/** Removes case and accents. */
const fold = (text: string) =>
  text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .trim();

function read(key: string): Stored {
  const stored = loadJson(key) as Partial<Stored> | null;
  return { keys: texts(stored?.keys), recent: texts(stored?.recent).filter((name) => name !== null) };
}

const texts = (value: unknown): (string | null)[] =>
  Array.isArray(value) ? value.map((entry) => (typeof entry === "string" ? entry : null)) : [];
