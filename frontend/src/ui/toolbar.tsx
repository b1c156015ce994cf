/** The toolbar of the stage. */

import type { AppStore } from "../store";
import { copyBoxes, removeSelected, removeSuggestions, takeBack, toggleSuggestions } from "../edits";
import { percent } from "../format";
import { Icon, type IconName } from "./icons";

interface ToolProps {
  icon: IconName;
  label: string;
  keys?: string;
  testid?: string;
  pressed?: boolean;
  disabled?: boolean;
  onClick: () => void;
}

export function Tool({ icon, label, keys, testid, pressed, disabled, onClick }: ToolProps) {
  return (
    <button
      type="button"
      class="tool"
      data-testid={testid}
      aria-label={label}
      aria-pressed={pressed}
      aria-keyshortcuts={keys}
      title={keys ? `${label} (${keys})` : label}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}

export function Tools({ store }: { store: AppStore }) {
  const { canvas, view, ready } = store;
  const hidden = canvas?.suggestionsHidden ?? false;
  const suggestions = canvas?.suggestions.length ?? 0;
  const zoom = view && ready ? percent(view.scale) : "–";
  return (
    <div class="tools" role="group" aria-label="Tools">
      <Tool icon="box" label="Draw boxes" pressed={!store.hand} onClick={() => store.set({ hand: false })} />
      <Tool
        icon="hand"
        label="Move the image by dragging"
        keys="m"
        pressed={store.hand}
        onClick={() => store.set({ hand: !store.hand })}
      />
      <span class="gap" />
      <Tool
        icon="minus"
        label="Zoom out"
        keys="-"
        testid="zoom-out"
        disabled={!ready}
        onClick={() => view?.zoomBy(1 / 1.25)}
      />
      <button
        type="button"
        class="tool zoom"
        data-testid="zoom-fit"
        aria-label={`Fit the image into the view; now ${zoom}`}
        title="Fit the image into the view (z)"
        disabled={!ready}
        onClick={() => view?.fit()}
      >
        {zoom}
      </button>
      <Tool
        icon="plus"
        label="Zoom in"
        keys="+"
        testid="zoom-in"
        disabled={!ready}
        onClick={() => view?.zoomBy(1.25)}
      />
      <span class="gap" />
      <Tool
        icon={hidden ? "hidden" : "eye"}
        label={hidden ? "Show suggestions" : "Hide suggestions"}
        keys="s"
        testid="toggle-suggestions"
        pressed={hidden}
        disabled={!ready || (!suggestions && !hidden)}
        onClick={() => toggleSuggestions(store)}
      />
      <Tool
        icon="clear"
        label="Remove all suggestions"
        keys="d"
        testid="remove-suggestions"
        disabled={!ready || !suggestions}
        onClick={() => removeSuggestions(store)}
      />
      <Tool
        icon="copy"
        label="Copy the boxes of the previous image"
        keys="c"
        testid="copy-boxes"
        disabled={!ready}
        onClick={() => void copyBoxes(store)}
      />
      <span class="gap" />
      <Tool
        icon="trash"
        label="Remove the selected box"
        keys="Delete"
        testid="remove-selected"
        disabled={!ready || !canvas?.selected}
        onClick={() => removeSelected(store)}
      />
      <Tool
        icon="back"
        label="Undo the last box change"
        keys="u"
        testid="take-back"
        disabled={!ready || !canvas?.canGo(-1)}
        onClick={() => takeBack(store, -1)}
      />
      <Tool
        icon="forth"
        label="Redo the last box change"
        keys="Control+y"
        testid="repeat"
        disabled={!ready || !canvas?.canGo(1)}
        onClick={() => takeBack(store, 1)}
      />
      <span class="gap" />
      <Tool
        icon="sliders"
        label="Display: boxes, image, theme"
        keys="v"
        testid="display-button"
        pressed={store.displayOpen}
        onClick={() => store.set({ displayOpen: !store.displayOpen })}
      />
    </div>
  );
}
