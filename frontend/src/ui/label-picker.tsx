/** The dialog for finding a label by name and for assigning keys to labels. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { AppStore } from "../store";
import { chooseLabel, labelTarget } from "../edits";
import { LABEL_KEYS, type LabelBook, type LabelKey } from "../labels";
import type { Label } from "../messages";
import { pluralize } from "../format";
import { useDialog } from "./hooks";
import { Icon } from "./icons";

/** Number of labels rendered at first, more than a screenful; scrolling down adds as many. */
const PAGE_SIZE = 100;

export function LabelPicker({ store }: { store: AppStore }) {
  const { labelsOpen, labels } = store;
  const dialog = useDialog(labelsOpen, () => store.set({ labelsOpen: false }));
  return (
    <dialog
      {...dialog}
      class="picker"
      data-testid="label-picker"
      aria-label="Labels"
    >
      {labelsOpen && labels && <Search store={store} book={labels} />}
    </dialog>
  );
}

function Search({ store, book }: { store: AppStore; book: LabelBook }) {
  const [text, setText] = useState("");
  const [active, setActive] = useState(0);
  const [assigning, setAssigning] = useState(false);
  const matches = useMemo(() => book.search(text), [book, text]);
  const label = matches[active];
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);

  const choose = (chosen: Label, index: number) => {
    setActive(index);
    if (assigning) return;
    chooseLabel(store, chosen.name);
    store.set({ labelsOpen: false });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (event.isComposing || (!step && event.key !== "Enter")) return;
    event.preventDefault();
    if (step) setActive(Math.max(0, Math.min(matches.length - 1, active + step)));
    else if (label) choose(label, active);
  };

  return (
    <>
      <header>
        <Icon name="search" />
        <input
          ref={input}
          type="text"
          inputmode="search"
          role="combobox"
          data-testid="label-query"
          aria-label="Search labels"
          aria-expanded="true"
          aria-controls="label-options"
          aria-autocomplete="list"
          aria-activedescendant={label && `label-option-${active}`}
          placeholder={`Search ${pluralize(book.labels.length, "label")}`}
          autocomplete="off"
          spellcheck={false}
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setActive(0);
          }}
          onKeyDown={onKeyDown}
        />
        <button type="button" class="plain small" onClick={() => store.set({ labelsOpen: false })}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      <Options store={store} book={book} matches={matches} active={active} onChoose={choose} />
      <p class="sr-only" role="status">
        {pluralize(matches.length, "label")}
      </p>
      <Keys
        book={book}
        label={label}
        assigning={assigning}
        onToggle={() => setAssigning(!assigning)}
        onChange={() => store.changed()}
        onEdit={() => store.set({ labelsOpen: false, labelMenuOpen: true })}
      />
    </>
  );
}

interface OptionsProps {
  store: AppStore;
  book: LabelBook;
  matches: Label[];
  active: number;
  onChoose: (label: Label, index: number) => void;
}

function Options({ store, book, matches, active, onChoose }: OptionsProps) {
  const [count, setCount] = useState(PAGE_SIZE);
  const list = useRef<HTMLUListElement>(null);
  useEffect(() => {
    setCount(PAGE_SIZE);
    list.current?.scrollTo(0, 0);
  }, [matches]);
  useEffect(() => list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" }), [active]);
  const chosen = labelTarget(store).label;
  const shown = Math.max(count, active + 10);
  const onScroll = ({ currentTarget: { scrollTop, clientHeight, scrollHeight } }: { currentTarget: HTMLElement }) => {
    if (scrollTop + 2 * clientHeight > scrollHeight && shown < matches.length) setCount(shown + PAGE_SIZE);
  };
  if (!matches.length) return <p class="nothing">No label matches.</p>;
  return (
    <ul ref={list} id="label-options" role="listbox" aria-label="Labels" onScroll={onScroll}>
      {matches.slice(0, shown).map((label, index) => (
        <li
          key={label.name}
          id={`label-option-${index}`}
          role="option"
          data-testid="label-option"
          aria-selected={index === active}
          aria-setsize={matches.length}
          aria-posinset={index + 1}
          style={{ "--box": label.color }}
          onClick={() => onChoose(label, index)}
        >
          <span class="swatch" aria-hidden="true" />
          <span class="name">{label.name}</span>
          {label.name === chosen && <span class="quiet">chosen</span>}
          {book.keyFor(label.name) && <kbd>{book.keyFor(label.name)}</kbd>}
        </li>
      ))}
    </ul>
  );
}

interface KeysProps {
  book: LabelBook;
  label: Label | undefined;
  assigning: boolean;
  onToggle: () => void;
  onChange: () => void;
  onEdit: () => void;
}

/** While keys are being assigned, choosing a label only selects the one that gets the key. */
function Keys({ book, label, assigning, onToggle, onChange, onEdit }: KeysProps) {
  const [message, setMessage] = useState("");
  const assign = (key: LabelKey) => {
    if (!label) return;
    book.assign(label.name, key);
    setMessage(`key ${key} chooses ${label.name}`);
    onChange();
  };
  const reset = () => {
    book.resetKeys();
    setMessage("the keys choose the first ten labels");
    onChange();
  };
  return (
    <footer>
      <button type="button" class="plain small" data-testid="assign-keys" aria-pressed={assigning} onClick={onToggle}>
        {assigning ? "Done" : "Assign keys"}
      </button>
      {!assigning && (
        <button type="button" class="plain small" data-testid="open-label-menu" onClick={onEdit}>
          Edit labels
        </button>
      )}
      {assigning && (
        <>
          <div class="key-choice" role="group" aria-label={`Key of ${label?.name ?? "the label"}`}>
            {LABEL_KEYS.map((key) => (
              <button
                key={key}
                type="button"
                class="plain small"
                data-testid={`assign-${key}`}
                disabled={!label}
                aria-pressed={book.named(key) === label?.name}
                aria-label={`Key ${key}, now ${book.named(key) ?? "free"}`}
                title={book.named(key) ?? "free"}
                onClick={() => assign(key)}
              >
                {key}
              </button>
            ))}
          </div>
          <button type="button" class="plain small" data-testid="reset-keys" onClick={reset}>
            Reset
          </button>
          <p role="status">{message || (label && `Choose a label, then its key. Label: ${label.name}`)}</p>
        </>
      )}
    </footer>
  );
}
