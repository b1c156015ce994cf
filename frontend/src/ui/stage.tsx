/** The stage. The canvas controls the image inside it; this component renders only the messages over it. */

import { useEffect, useRef } from "preact/hooks";
import type { AppStore } from "../store";
import { confirmKeypoints, hiddenSuggestions, removeSuggestions, showHiddenSuggestions, showOffer, takeBack, toggleSuggestions } from "../edits";
import { bootstrap } from "../bootstrap";
import { isThere } from "../keypoints";
import type { Task } from "../messages";
import { percent, pluralize, PAST, versionName, versionNumber } from "../format";
import { BoxButton } from "./box_button";
import { DisplaySettings } from "./display";
import { Done } from "./done";
import { EmptyExplained, PickingExplained } from "./first_steps";
import { NameForm } from "./people";

export function Stage({ store }: { store: AppStore }) {
  const stage = useRef<HTMLElement>(null);
  const scroll = useRef<HTMLDivElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const tags = useRef<HTMLDivElement>(null);
  const guides = useRef<HTMLDivElement>(null);
  const handles = useRef<HTMLDivElement>(null);
  const keypoints = useRef<HTMLDivElement>(null);
  const rubber = useRef<HTMLDivElement>(null);
  const ghost = useRef<HTMLDivElement>(null);
  useEffect(() => {
    void bootstrap(store, {
      stage: stage.current!,
      scroll: scroll.current!,
      frame: frame.current!,
      tags: tags.current!,
      guides: guides.current!,
      handles: handles.current!,
      keypoints: keypoints.current!,
      rubber: rubber.current!,
      ghost: ghost.current!,
    });
  }, [store]);
  return (
    <section class={store.hand ? "stage hand" : "stage"} data-testid="stage" aria-label="Image" ref={stage}>
      <div class="scroll" ref={scroll}>
        <div class={store.ready ? "frame" : "frame empty"} ref={frame}>
          <div class="tags" ref={tags} />
          <div class="handles" ref={handles} />
          <div class="keypoints" ref={keypoints} role="group" aria-label="Keypoints of the selected box" hidden />
          <div class="ghost" ref={ghost} aria-hidden="true" data-testid="ghost" hidden />
          <div class="rubber" ref={rubber} hidden />
        </div>
      </div>
      <div class="guides" ref={guides} aria-hidden="true" data-testid="guides" hidden />
      <Over store={store} />
      {store.ready && <Hints store={store} />}
      {store.ready && <BoxButton store={store} />}
      {store.displayOpen && <DisplaySettings store={store} />}
    </section>
  );
}

/** Shown instead of an image. */
function Over({ store }: { store: AppStore }) {
  const { fatal, starting, project, shown, queue } = store;
  if (store.ready) return null;
  if (store.asksName) return <NameForm store={store} />;
  if (fatal) return <Message title="Not signed in" text={fatal} />;
  if (!project) return starting ? <Message title="No connection" text={`${starting}. Retrying…`} /> : <Skeleton />;
  if (shown?.failed) return <Broken store={store} reason={shown.failed} />;
  if (shown) return <Skeleton />;
  if (queue?.trouble)
    return <Message title="No image available" text={`${queue.trouble.message}. Retrying…`} testid="waiting" />;
  if (queue?.done) return <Done store={store} />;
  if (queue?.waiting) return <Message title="No image available" text={queue.waiting} testid="waiting" busy />;
  return <Skeleton />;
}

function Skeleton() {
  return (
    <div class="over" role="status">
      <div class="skeleton" aria-hidden="true" />
      <span class="sr-only">Loading…</span>
    </div>
  );
}

function Message({ title, text, testid, busy }: { title: string; text: string; testid?: string; busy?: boolean }) {
  return (
    <div class="over" data-testid={testid} role="status">
      <div class="message">
        <h2>{title}</h2>
        <p>{text}</p>
        {busy && <div class="pulse" aria-hidden="true" />}
      </div>
    </div>
  );
}

function Broken({ store, reason }: { store: AppStore; reason: string }) {
  return (
    <div class="over" role="status">
      <div class="message">
        <h2>{store.shown?.task.file} cannot be shown</h2>
        <p>{reason}.</p>
        <p class="buttons">
          <button type="button" class="plain" onClick={() => store.retryImage()}>
            Try again
          </button>
          <button type="button" class="plain" onClick={() => store.skipImage()}>
            Later
          </button>
          <button type="button" class="plain" onClick={() => store.answer("ignore")}>
            Ignore it
          </button>
        </p>
      </div>
    </div>
  );
}

function Hints({ store }: { store: AppStore }) {
  const { canvas, shown } = store;
  const hidden = canvas?.suggestionsHidden ? canvas.suggestions.length : 0;
  const unseen = hiddenSuggestions(store).length;
  return (
    <div class="hints">
      <EmptyExplained store={store} />
      <PickingExplained store={store} />
      {hidden > 0 && (
        <div class="hint" data-testid="suggestions-hidden" role="status">
          <span>{pluralize(hidden, "suggested box is", "suggested boxes are")} hidden but still part of the answer.</span>
          <button type="button" class="plain small" onClick={() => toggleSuggestions(store)}>
            Show <kbd>s</kbd>
          </button>
          <button type="button" class="plain small" onClick={() => removeSuggestions(store)}>
            Remove <kbd>d</kbd>
          </button>
        </div>
      )}
      {unseen > 0 && (
        <div class="hint" data-testid="not-worth-it" role="status">
          <span>Suggestions are hidden: so far, they would cost you more time than they save.</span>
          <button type="button" class="plain small" onClick={() => showHiddenSuggestions(store)}>
            Show {pluralize(unseen, "box", "boxes")}
          </button>
        </div>
      )}
      <KeypointHint store={store} />
      {shown?.beforeDraft && (
        <div class="hint" data-testid="restored">
          <span>Your unsaved boxes were restored.</span>
          <button type="button" class="plain small" data-testid="keep-draft" onClick={() => store.keepDraft()}>
            Keep
          </button>
          <button type="button" class="plain small" data-testid="start-over" onClick={() => store.startOver()}>
            {shown.beforeDraft.spans.length ? "Start over from the suggestions" : "Start over"}
          </button>
        </div>
      )}
      {canvas?.warning && (
        <div class="hint warning" data-testid="box-warning" role="status">
          <span>{canvas.warning}</span>
          <button type="button" class="plain small" onClick={() => takeBack(store, -1)}>
            Undo <kbd>u</kbd>
          </button>
          <button type="button" class="plain small" onClick={() => canvas.dismissWarning()}>
            Keep
          </button>
        </div>
      )}
      {shown?.offer && (
        <div class="hint" role="status">
          <span title={shown.offer.version === null ? undefined : versionNumber(shown.offer.version)}>
            {offerText(store, shown.offer)}
          </span>
          <button type="button" class="plain small" data-testid="show-offer" onClick={() => showOffer(store)}>
            Show {pluralize(shown.offer.spans.length, "box", "boxes")} <kbd>n</kbd>
          </button>
        </div>
      )}
    </div>
  );
}

function offerText({ canvas, live }: AppStore, { version }: Task): string {
  const name = version === null ? "" : ` by the model of ${versionName(live?.panel, version)}`;
  return `Newer suggestions${name} are available.${canvas?.touched ? " Your own boxes are kept." : ""}`;
}

// With a threshold of 1 or more nothing is suggested, as by a model that has not learned yet.
const scoreText = ({ threshold }: Task) =>
  threshold === null || threshold >= 1 ? "" : `; score ${percent(threshold)} or more`;

/** A line below the stage that describes the shown image. */
export function Caption({ store }: { store: AppStore }) {
  const { shown, ready, canvas } = store;
  if (!shown || !ready) return <p class="caption">&nbsp;</p>;
  const { task } = shown;
  const suggested = canvas?.suggestions.length ?? 0;
  const origin = shown.reopened
    ? `answered before: ${PAST[shown.reopened]}`
    : task.version !== null
      ? `${pluralize(suggested, "suggestion")} by the model of ${versionName(store.live?.panel, task.version)}${scoreText(task)}`
      : "no model yet";
  return (
    <p class="caption">
      <strong>{task.file}</strong>
      <span>
        {task.width} × {task.height}
      </span>
      <span data-testid="origin" title={task.version === null ? undefined : versionNumber(task.version)}>
        {origin}
      </span>
      <span>{pluralize(canvas?.boxes.length ?? 0, "box", "boxes")}</span>
    </p>
  );
}

/** Says how to place the keypoints of the selected box that are not there, and confirms them without a keyboard. */
function KeypointHint({ store }: { store: AppStore }) {
  const { canvas } = store;
  const points = canvas?.boxes.find(({ id }) => id === canvas.selected)?.keypoints ?? [];
  const missing = points.filter((point) => !isThere(point)).length;
  if (!missing) return null;
  return (
    <div class="hint see-through" data-testid="keypoint-hint">
      <span>
        {missing} of {pluralize(points.length, "keypoint is", "keypoints are")} not there: drag them to their places.
      </span>
      <button type="button" class="plain small" data-testid="confirm-keypoints" onClick={() => confirmKeypoints(store)}>
        They are right <kbd>e</kbd>
      </button>
    </div>
  );
}
