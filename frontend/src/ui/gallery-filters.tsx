/** The filters of the gallery. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { AppStore } from "../store";
import { NO_FILTER, type Filter } from "../gallery";

const TYPED_AFTER_MS = 200;

interface FiltersProps {
  store: AppStore;
  filter: Filter;
  narrowed: boolean;
  onChange: (values: Partial<Filter>) => void;
}

export function GalleryFilters({ store, filter, narrowed, onChange }: FiltersProps) {
  const labels = store.project?.labels ?? [];
  const annotators = (store.live?.panel?.sessions ?? []).filter(({ answers }) => answers > 0).map(({ name }) => name);
  return (
    <form class="filters" role="search" aria-label="Filter images" onSubmit={(event) => event.preventDefault()}>
      <Typed
        name="File name"
        testid="filter-name"
        value={filter.name}
        onChange={(name) => onChange({ name })}
      />
      <Choice
        name="State"
        testid="filter-state"
        value={filter.state}
        options={[
          ["all", "all"],
          ["answered", "answered"],
          ["unanswered", "not answered"],
        ]}
        onChange={(state) => onChange({ state: state as Filter["state"] })}
      />
      <Choice
        name="Decision"
        testid="filter-decision"
        value={filter.decision}
        options={[
          ["", "any"],
          ["accept", "accepted"],
          ["reject", "rejected"],
          ["ignore", "ignored"],
        ]}
        onChange={(decision) => onChange({ decision: decision as Filter["decision"] })}
      />
      <Choice
        name="Label"
        testid="filter-label"
        value={filter.label}
        options={[["", "any"], ...labels.map(({ name }) => [name, name] as [string, string])]}
        onChange={(label) => onChange({ label })}
      />
      <Choice
        name="Annotator"
        testid="filter-annotator"
        value={filter.annotator}
        options={[["", "any"], ...annotators.map((name) => [name, name] as [string, string])]}
        onChange={(annotator) => onChange({ annotator })}
      />
      <fieldset title="Score of the least certain suggested box">
        <legend>Lowest score, %</legend>
        <Percent name="from" value={filter.min_score} onChange={(min_score) => onChange({ min_score })} />
        <Percent name="to" value={filter.max_score} onChange={(max_score) => onChange({ max_score })} />
      </fieldset>
      {narrowed && (
        <button type="button" class="plain small" data-testid="filter-clear" onClick={() => onChange(NO_FILTER)}>
          Clear
        </button>
      )}
    </form>
  );
}

interface ChoiceProps {
  name: string;
  testid: string;
  value: string;
  options: [string, string][];
  onChange: (value: string) => void;
}

function Choice({ name, testid, value, options, onChange }: ChoiceProps) {
  return (
    <label>
      <span>{name}</span>
      <select data-testid={testid} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([option, text]) => (
          <option key={option} value={option}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

interface TypedProps {
  name: string;
  testid: string;
  value: string;
  number?: boolean;
  onChange: (value: string) => void;
}

/** A text field that calls onChange when the user stops typing for a moment. */
function Typed({ name, testid, value, number = false, onChange }: TypedProps) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  const input = useRef<HTMLInputElement>(null);
  // Not while the user is typing: the trimmed value would remove a trailing space, or the "." of an unfinished "7.5".
  useEffect(() => {
    if (document.activeElement !== input.current) setText(value);
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const ask = (typed: string) => {
    clearTimeout(timer.current);
    timer.current = 0;
    onChange(typed.trim());
  };
  const onInput = (typed: string) => {
    setText(typed);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => ask(typed), TYPED_AFTER_MS);
  };
  return (
    <label>
      <span>{name}</span>
      <input
        ref={input}
        type="text"
        inputMode={number ? "decimal" : "search"}
        data-testid={testid}
        autocomplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => onInput(event.currentTarget.value)}
        onBlur={(event) => timer.current && ask(event.currentTarget.value)}
      />
    </label>
  );
}

interface PercentProps {
  name: string;
  value: number | null;
  onChange: (share: number | null) => void;
}

function Percent({ name, value, onChange }: PercentProps) {
  return (
    <Typed
      name={name}
      testid={`filter-score-${name}`}
      number
      value={value === null ? "" : String(Number((value * 100).toFixed(4)))}
      onChange={(typed) => onChange(parsePercent(typed))}
    />
  );
}

/** Converts percent to a share of 0..1; null if it is not a number. */
function parsePercent(percent: string): number | null {
  const value = percent === "" ? NaN : Number(percent);
  return Number.isFinite(value) ? Math.max(0, Math.min(100, value)) / 100 : null;
}
