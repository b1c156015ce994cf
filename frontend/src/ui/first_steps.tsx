/** Explanations at the place where they matter: beside the answers, over the image, in the panel. */

import { useEffect } from "preact/hooks";
import type { AppStore } from "../store";
import { pluralize } from "../format";

/** Explains the effect of the answers on training, during the first images. */
export function AnswersExplained({ store }: { store: AppStore }) {
  const { project, firstSteps } = store;
  const nothingLeft = store.queue?.done && !store.shown;
  if (!project || !firstSteps?.explainsAnswers || nothingLeft) return null;
  return (
    <div class="first-steps" role="note" aria-label="First steps" data-testid="first-steps">
      <ul>
        <li>
          <strong class="accept">Accept</strong>: all boxes are correct, and the model learns from them. Without boxes, it learns
          that the image has no objects.
        </li>
        <li>
          <strong class="reject">Reject</strong> and <strong>ignore</strong>: the image is excluded from training.
        </li>
        <li>
          Training starts after {pluralize(project.batch_size, "answer")}.
          {project.random_weights &&
            " From random weights, good suggestions take hundreds of images."}
        </li>
      </ul>
      <button
        type="button"
        class="plain small"
        data-testid="first-steps-close"
        onClick={() => firstSteps.closeAnswers()}
      >
        Got it
      </button>
    </div>
  );
}

/** Shown after the first image that was accepted without boxes, which may have been a mistake. */
export function EmptyExplained({ store }: { store: AppStore }) {
  const { firstSteps } = store;
  const explains = firstSteps?.explainsEmpty ?? false;
  useEffect(() => {
    if (explains) firstSteps?.noteEmptySeen();
  }, [explains]);
  if (!firstSteps || !explains) return null;
  return (
    <div class="hint" data-testid="empty-accepted" role="status">
      <span>Accepted without boxes: the model learns that the image has no objects.</span>
      <button type="button" class="plain small" data-testid="empty-undo" onClick={() => store.undo()}>
        Undo <kbd>bksp</kbd>
      </button>
      <button type="button" class="plain small" data-testid="empty-close" onClick={() => firstSteps.closeEmpty()}>
        Got it
      </button>
    </div>
  );
}

/** Shown from the first image with candidates until the first one is picked. */
export function PickingExplained({ store }: { store: AppStore }) {
  const { firstSteps, canvas, display } = store;
  if (!firstSteps?.explainsPicking || !display.settings.candidates || !canvas?.candidates.length) return null;
  return (
    <div class="hint" data-testid="picking" role="status">
      <span>The model also detected objects that it is less sure of.</span>
      <span class="with-mouse">
        Click on one to add it, or press <kbd>tab</kbd> and <kbd>enter</kbd>.
      </span>
      <span class="without-mouse">Tap on one to add it.</span>
      <button type="button" class="plain small" onClick={() => firstSteps.closePicking()}>
        Got it
      </button>
    </div>
  );
}

export function RandomWeights() {
  return (
    <p class="random-weights quiet" data-testid="random-weights">
      The model started from random weights: good suggestions take hundreds of images. With trained weights a few
      dozen images are enough: <code>odkeras init FOLDER --label NAME --weights NAME</code>
    </p>
  );
}
