/** The menu in which the labels of the project are renamed, recoloured, merged and retired. */

import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api";
import { errorMessage, pluralize } from "../format";
import type { LabelBook } from "../labels";
import type { Label, LabelAction } from "../messages";
import { editLabel } from "../project_labels";
import type { AppStore } from "../store";
import { useDialog } from "./hooks";
import { Icon } from "./icons";

/** Number of labels that are listed; the search finds the others. */
const LISTED = 100;

type Action = Exclude<LabelAction, "recolour">;
const TITLES: { [action in Action]: string } = { rename: "Rename", merge: "Merge", retire: "Retire" };

interface Edit {
  name: string;
  action: Action;
}

export function LabelMenu({ store }: { store: AppStore }) {
  const { labelMenuOpen, labels } = store;
  const close = () => store.set({ labelMenuOpen: false });
  const dialog = useDialog(labelMenuOpen, close);
  return (
    <dialog {...dialog} class="picker label-menu" data-testid="label-menu" aria-labelledby="label-menu-title">
      {labelMenuOpen && labels && <Menu store={store} book={labels} onClose={close} />}
    </dialog>
  );
}

function Menu({ store, book, onClose }: { store: AppStore; book: LabelBook; onClose: () => void }) {
  const [text, setText] = useState("");
  const [edit, setEdit] = useState<Edit | null>(null);
  const [message, setMessage] = useState("");
  const [problem, setProblem] = useState("");
  const images = useImages(store, book);
  const closer = useRef<HTMLButtonElement>(null);
  const opener = useRef<Element | null>(null);
  const matches = text ? book.search(text) : book.labels;

  // The label of the form is gone: it was edited here, or by someone else meanwhile.
  useEffect(() => {
    if (!edit || book.label(edit.name)) return;
    const now = book.today(edit.name);
    setMessage(now === null ? `“${edit.name}” is retired` : `“${edit.name}” is “${now}” now`);
    setEdit(null);
    closer.current?.focus();
  }, [book]);

  const onEdit = (next: Edit) => {
    opener.current = document.activeElement;
    setEdit(next);
    setMessage("");
    setProblem("");
  };
  const onCancel = () => {
    setEdit(null);
    if (opener.current instanceof HTMLElement) opener.current.focus();
  };
  const onColour = (name: string, colour: string) =>
    editLabel(store, "recolour", name, colour).then(
      () => setProblem(""),
      (error: unknown) => setProblem(errorMessage(error)),
    );

  return (
    <>
      <header>
        <h2 id="label-menu-title">Labels</h2>
        <button ref={closer} type="button" class="plain small" onClick={onClose}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      {!book.areFew && <Search count={book.labels.length} text={text} onText={setText} />}
      <ul aria-label="Labels">
        {matches.slice(0, LISTED).map((label) => (
          <Row
            key={label.name}
            store={store}
            book={book}
            label={label}
            images={images[label.name] ?? 0}
            edit={edit?.name === label.name ? edit.action : null}
            onEdit={(action) => onEdit({ name: label.name, action })}
            onCancel={onCancel}
            onColour={(colour) => void onColour(label.name, colour)}
          />
        ))}
        {matches.length > LISTED && <li class="quiet">{matches.length - LISTED} more: search for them.</li>}
        {!matches.length && <li class="quiet">No label matches.</li>}
      </ul>
      <footer>
        <p role="status" data-testid="label-menu-message">
          {message}
        </p>
        {problem && (
          <p role="alert" class="problem">
            {problem}
          </p>
        )}
        <p>Changes are for everyone who labels in this project. The trainer starts again with them.</p>
      </footer>
    </>
  );
}

/** The number of answered images that have boxes of each label. */
function useImages(store: AppStore, book: LabelBook): Record<string, number> {
  const [images, setImages] = useState<Record<string, number>>({});
  useEffect(() => {
    let current = true;
    // Without the numbers, the labels can be edited all the same.
    api.labelUse(store.who).then(
      (use) => current && setImages(use.images),
      () => {},
    );
    return () => {
      current = false;
    };
  }, [book]);
  return images;
}

function Search({ count, text, onText }: { count: number; text: string; onText: (text: string) => void }) {
  return (
    <div class="search">
      <Icon name="search" />
      <input
        type="text"
        inputmode="search"
        data-testid="label-menu-query"
        aria-label="Search labels"
        placeholder={`Search ${pluralize(count, "label")}`}
        autocomplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => onText(event.currentTarget.value)}
      />
    </div>
  );
}

interface RowProps {
  store: AppStore;
  book: LabelBook;
  label: Label;
  images: number;
  edit: Action | null;
  onEdit: (action: Action) => void;
  onCancel: () => void;
  onColour: (colour: string) => void;
}

function Row({ store, book, label, images, edit, onEdit, onCancel, onColour }: RowProps) {
  const { name, color } = label;
  const isOnly = book.labels.length < 2;
  return (
    <li data-testid="label-menu-row">
      <input
        type="color"
        data-testid={`colour-${name}`}
        aria-label={`Colour of ${name}`}
        title={`Colour of ${name}`}
        value={color}
        onChange={(event) => onColour(event.currentTarget.value)}
      />
      <span class="name">{name}</span>
      <span class="quiet">{images > 0 && pluralize(images, "image")}</span>
      <span class="edits">
        {(Object.keys(TITLES) as Action[]).map((action) => (
          <button
            key={action}
            type="button"
            class="plain small"
            data-testid={`${action}-${name}`}
            aria-label={`${TITLES[action]} ${name}`}
            aria-expanded={edit === action}
            disabled={isOnly && action !== "rename"}
            onClick={() => (edit === action ? onCancel() : onEdit(action))}
          >
            {TITLES[action]}
          </button>
        ))}
      </span>
      {edit && <Form key={edit} store={store} book={book} name={name} images={images} action={edit} onCancel={onCancel} />}
    </li>
  );
}

interface FormProps {
  store: AppStore;
  book: LabelBook;
  name: string;
  images: number;
  action: Action;
  onCancel: () => void;
}

function Form({ store, book, name, images, action, onCancel }: FormProps) {
  const [value, setValue] = useState(action === "rename" ? name : "");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => {
    const field = form.current?.querySelector<HTMLElement>("input, select, button");
    field?.focus();
    if (field instanceof HTMLInputElement) field.select();
  }, []);
  const ready = action === "retire" || (value.trim() !== "" && value.trim() !== name);
  const onSubmit = async (event: Event) => {
    event.preventDefault();
    if (!ready || busy) return;
    setBusy(true);
    try {
      await editLabel(store, action, name, value);
    } catch (error) {
      setProblem(errorMessage(error));
      setBusy(false);
    }
  };
  return (
    <form ref={form} data-testid="label-form" onSubmit={(event) => void onSubmit(event)}>
      {action === "rename" && (
        <input
          type="text"
          data-testid="label-value"
          aria-label={`New name of ${name}`}
          aria-describedby="label-edit-effect"
          aria-invalid={problem !== ""}
          maxLength={100}
          autocomplete="off"
          spellcheck={false}
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      )}
      {action === "merge" && (
        <select
          data-testid="label-value"
          aria-label={`Label that ${name} becomes`}
          aria-describedby="label-edit-effect"
          value={value}
          onChange={(event) => setValue(event.currentTarget.value)}
        >
          <option value="">into …</option>
          {book.labels
            .filter((label) => label.name !== name)
            .map((label) => (
              <option key={label.name} value={label.name}>
                {label.name}
              </option>
            ))}
        </select>
      )}
      <button type="submit" class="plain small" data-testid="apply-label-edit" aria-describedby="label-edit-effect" disabled={busy || !ready}>
        {TITLES[action]}
        {action === "retire" && ` “${name}”`}
      </button>
      <button type="button" class="plain small" onClick={onCancel}>
        Cancel
      </button>
      <p id="label-edit-effect" data-testid="label-edit-effect">
        {effect(action, name, value, images)}
      </p>
      {problem && (
        <p role="alert" class="problem">
          {problem}
        </p>
      )}
    </form>
  );
}

/** What an edit does, before it is done. */
function effect(action: Action, name: string, value: string, images: number): string {
  const where = pluralize(images, "answered image");
  if (action === "rename")
    return `${images ? `The boxes of “${name}” in ${where} get the new name. ` : ""}The model keeps what it has learned. You can rename it back.`;
  if (action === "merge" && !images)
    return `No answered image has boxes of “${name}”. It is removed; this cannot be undone.`;
  if (action === "merge")
    return `The boxes of “${name}” in ${where} become “${value || "the other label"}”, and “${name}” is removed. This cannot be undone.`;
  const stay = images ? `Its boxes in ${where} stay in the answers, but the model is not trained on them any more. ` : "";
  return `“${name}” can no longer be chosen and is not suggested. ${stay}If you add a label of this name later, the model learns it from the start.`;
}
