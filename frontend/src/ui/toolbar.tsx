/** Labels to choose from, and the tools of the stage. */

import { inkOn } from "../colours";
import type { Desk } from "../desk";
import { chooseLabel, labelTarget, removeSuggestions, toggleSuggestions } from "../edits";
import { Icon, type IconName } from "./icons";

export function Labels({ desk }: { desk: Desk }) {
  const labels = desk.project?.labels ?? [];
  const { relabels, label } = labelTarget(desk);
  return (
    <div class="labels" role="group" aria-label={`Label of the ${relabels ? "selected" : "next"} box`}>
      <LabelTarget relabels={relabels} />
      {labels.map(({ name, color }, index) => (
        <button
          key={name}
          type="button"
          class="label"
          data-testid={`label-${name}`}
          aria-pressed={label === name}
          title={labelTitle(name, index)}
          style={{ "--box": color, "--ink": inkOn(color) }}
          onClick={() => chooseLabel(desk, name)}
        >
          <span class="swatch" aria-hidden="true" />
          <span class="name">{name}</span>
          {index < 10 && <kbd>{(index + 1) % 10}</kbd>}
        </button>
      ))}
    </div>
  );
}

/** What the label keys act on: the box that the person selected, or the next one. Read to screen readers by the group. */
function LabelTarget({ relabels }: { relabels: boolean }) {
  return (
    <span class={relabels ? "label-target relabels" : "label-target"} data-testid="label-target" aria-hidden="true">
      <span class="long">Label of the </span>
      <span>{relabels ? "selected box" : "next box"}</span>
    </span>
  );
}

const labelTitle = (name: string, index: number) => (index < 10 ? `${name} (key ${(index + 1) % 10})` : name);

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

export function Tools({ desk }: { desk: Desk }) {
  const { canvas, view, ready } = desk;
  const hidden = canvas?.suggestionsHidden ?? false;
  const suggestions = canvas?.suggestions.length ?? 0;
  const zoom = view && ready ? `${Math.round(view.scale * 100)} %` : "–";
  return (
    <div class="tools" role="group" aria-label="Tools">
      <Tool icon="box" label="Draw boxes" pressed={!desk.hand} onClick={() => desk.set({ hand: false })} />
      <Tool
        icon="hand"
        label="Move the image by dragging"
        keys="m"
        pressed={desk.hand}
        onClick={() => desk.set({ hand: !desk.hand })}
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
        label={hidden ? "Show suggestions again" : "Hide suggestions while looking"}
        keys="s"
        testid="toggle-suggestions"
        pressed={hidden}
        disabled={!ready || (!suggestions && !hidden)}
        onClick={() => toggleSuggestions(desk)}
      />
      <Tool
        icon="broom"
        label="Remove all suggestions"
        keys="d"
        testid="remove-suggestions"
        disabled={!ready || !suggestions}
        onClick={() => removeSuggestions(desk)}
      />
      <span class="gap" />
      <Tool
        icon="sliders"
        label="Display: boxes, image, theme"
        keys="v"
        testid="display-button"
        pressed={desk.displayOpen}
        onClick={() => desk.set({ displayOpen: !desk.displayOpen })}
      />
    </div>
  );
}
