/** The label bar: all labels if they are few, else those with keys, recently used ones, and a search button. */

import { useEffect, useRef } from "preact/hooks";
import { inkOn } from "../colours";
import type { AppStore } from "../store";
import { chooseLabel, labelTarget } from "../edits";
import { AddLabel } from "./add-label";
import { Icon } from "./icons";

export function Labels({ store }: { store: AppStore }) {
  const book = store.labels;
  const { relabels, label } = labelTarget(store);
  const row = useRef<HTMLDivElement>(null);
  useEffect(() => bringIntoSight(row.current), [label]);
  if (!book) return <div class="labels" />;
  const keyed = book.keys.filter((name) => name !== null);
  const names = book.areFew ? book.labels.map(({ name }) => name) : [...keyed, ...book.beside];
  const elsewhere = !names.includes(label) && book.label(label) !== undefined;
  return (
    <div class={book.areFew ? "label-bar" : "label-bar many"}>
      {!book.areFew && (
        <div class="label-head">
          <SearchButton store={store} count={book.labels.length} />
          <LabelTarget relabels={relabels} />
        </div>
      )}
      <div class="labels" ref={row} role="group" aria-label={`Label of the ${relabels ? "selected" : "next"} box`}>
        {book.areFew && <LabelTarget relabels={relabels} />}
        {elsewhere && <LabelButton key={label} store={store} name={label} pressed />}
        {names.map((name) => (
          <LabelButton key={name} store={store} name={name} pressed={name === label} />
        ))}
        <AddLabel store={store} />
        {book.labels.length > 0 && (
          <button
            type="button"
            class="plain add-label"
            data-testid="edit-labels"
            title="Rename, recolour, merge or retire labels"
            onClick={() => store.set({ labelMenuOpen: true })}
          >
            <Icon name="pencil" />
            <span>edit</span>
          </button>
        )}
      </div>
    </div>
  );
}

/** Scrolls the chosen label into view; on phones the row is scrollable. */
function bringIntoSight(row: HTMLElement | null): void {
  const chosen = row?.querySelector<HTMLElement>('[aria-pressed="true"]');
  if (!row || !chosen) return;
  row.scrollTo({ left: chosen.offsetLeft - row.offsetLeft - (row.clientWidth - chosen.offsetWidth) / 2 });
}

function SearchButton({ store, count }: { store: AppStore; count: number }) {
  return (
    <button
      type="button"
      class="label-search"
      data-testid="label-search"
      aria-keyshortcuts="l /"
      title={`Search ${count} labels (l)`}
      onClick={() => store.set({ labelsOpen: true })}
    >
      <Icon name="search" />
      <span>{count.toLocaleString("en")} labels</span>
      <kbd>l</kbd>
    </button>
  );
}

/** What label keys act on: the box that the user selected, or the next one. Screen readers get it from the group. */
function LabelTarget({ relabels }: { relabels: boolean }) {
  return (
    <span class={relabels ? "label-target relabels" : "label-target"} data-testid="label-target" aria-hidden="true">
      <span class="long">Label of the </span>
      <span>{relabels ? "selected box" : "next box"}</span>
    </span>
  );
}

function LabelButton({ store, name, pressed }: { store: AppStore; name: string; pressed: boolean }) {
  const color = store.labels?.label(name)?.color ?? "";
  const key = store.labels?.keyFor(name) ?? null;
  return (
    <button
      type="button"
      class="label"
      data-testid={`label-${name}`}
      aria-pressed={pressed}
      title={key ? `${name} (key ${key})` : name}
      style={{ "--box": color, "--ink": inkOn(color) }}
      onClick={() => chooseLabel(store, name)}
    >
      <span class="swatch" aria-hidden="true" />
      <span class="name">{name}</span>
      {key && <kbd>{key}</kbd>}
    </button>
  );
}
