/** Adds a label to the project: a button in the label bar that opens a field. */

import { useEffect, useRef, useState } from "preact/hooks";
import { addLabel } from "../project_labels";
import type { AppStore } from "../store";
import { errorMessage } from "../format";
import { Icon } from "./icons";

export function AddLabel({ store }: { store: AppStore }) {
  const [asked, setOpen] = useState(false);
  // Nothing can be drawn without a label, so that the field for the first one is there at once.
  const open = asked || store.labels?.labels.length === 0;
  if (open) return <Form store={store} onClose={() => setOpen(false)} />;
  return (
    <button type="button" class="plain add-label" data-testid="add-label" title="Add a label" onClick={() => setOpen(true)}>
      <Icon name="plus" />
      <span>label</span>
    </button>
  );
}

function Form({ store, onClose }: { store: AppStore; onClose: () => void }) {
  const [name, setName] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const onSubmit = async (event: Event) => {
    event.preventDefault();
    if (!name.trim() || busy) return;
    setBusy(true);
    try {
      await addLabel(store, name);
      onClose();
    } catch (error) {
      setProblem(errorMessage(error));
      setBusy(false);
    }
  };
  return (
    <form class="add-label" data-testid="add-label-form" onSubmit={(event) => void onSubmit(event)}>
      <input
        ref={field}
        data-testid="new-label"
        aria-label="Name of the new label"
        aria-describedby="new-label-problem"
        aria-invalid={problem !== ""}
        placeholder={store.labels?.labels.length ? "new label" : "type the first label"}
        maxLength={100}
        autocomplete="off"
        spellcheck={false}
        value={name}
        onInput={(event) => setName(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Escape" && onClose()}
      />
      <button type="submit" class="plain small" data-testid="save-label" disabled={busy || !name.trim()}>
        Add
      </button>
      <button type="button" class="plain small" onClick={onClose}>
        Cancel
      </button>
      {problem && (
        <p id="new-label-problem" role="alert">
          {problem}
        </p>
      )}
    </form>
  );
}
