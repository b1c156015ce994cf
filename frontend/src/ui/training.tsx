/** The panel's training section: the trainer's state, and buttons to pause, resume and stop. */

import type { AppStore } from "../store";
import { controlTraining } from "../training";
import type { PanelState, TrainingAction, TrainingState } from "../messages";
import { readPrecision } from "../precision";
import { ago, figure, trainerProgress, trainingText, versionName, versionNumber } from "../format";
import { useTicking } from "./hooks";
import { ShowLog } from "./log";
import { Section } from "./side";

export function Training({ store, panel }: { store: AppStore; panel: PanelState }) {
  useTicking(1_000);
  const progress = trainerProgress(panel.trainer);
  const publishedAt = store.live?.published_at ?? null;
  return (
    <Section title="Training">
      <p
        class="state"
        data-testid="trainer-state"
        data-state={panel.trainer?.state ?? ""}
        data-training={panel.training}
        role="status"
      >
        {trainingText(panel)}
      </p>
      {progress !== null && <progress max={1} value={progress} aria-label="Training" />}
      <Controls store={store} training={panel.training} />
      {panel.trainer?.state === "failed" && !panel.failed && <ShowLog process="trainer" />}
      <dl class="facts">
        <div>
          <dt>Served model</dt>
          <dd
            data-testid="version"
            data-version={panel.version ?? ""}
            title={panel.version === null ? undefined : versionNumber(panel.version)}
          >
            {panel.version === null ? "none yet" : versionName(panel, panel.version)}
            {publishedAt !== null && panel.version !== null && (
              <span class="quiet"> published {ago(performance.now() - publishedAt)}</span>
            )}
          </dd>
        </div>
        <Precision panel={panel} />
        <Loss panel={panel} />
      </dl>
    </Section>
  );
}

/** mAP of the newest evaluation that has one. */
function Precision({ panel }: { panel: PanelState }) {
  const latest = panel.evaluations
    .map((evaluation) => ({ round: evaluation.round, ...readPrecision(evaluation) }))
    .filter(({ map, map50 }) => map !== undefined || map50 !== undefined)
    .slice(-1)[0];
  if (!latest) return null;
  return (
    <div title="Mean average precision on held-out images, 0 to 1, higher is better. mAP50 counts a detection as correct from IoU 0.5; mAP averages over IoU 0.5 to 0.95">
      <dt>mAP · mAP50</dt>
      <dd data-testid="precision">
        {latest.map === undefined ? "–" : figure(latest.map)} · {latest.map50 === undefined ? "–" : figure(latest.map50)}
        <span class="quiet">after round {latest.round}</span>
      </dd>
    </div>
  );
}

/** The loss, beside that of the project's first round: without a comparison, its value means nothing. */
function Loss({ panel }: { panel: PanelState }) {
  const loss = panel.trainer?.loss;
  if (loss == null) return null;
  return (
    <div title="Training loss: how far predictions are from the answers. It should decrease. It has no unit and is not comparable between projects.">
      <dt>Loss</dt>
      <dd data-testid="loss">
        {figure(loss)}
        <span class="quiet">
          lower is better{panel.first_loss !== null && `; ${figure(panel.first_loss)} after round 1`}
        </span>
      </dd>
    </div>
  );
}

interface Choice {
  action: TrainingAction;
  text: string;
  title: string;
  when: TrainingState[];
}

const CHOICES: Choice[] = [
  {
    action: "pause",
    text: "Pause",
    title: "Pause training after the current step. It stays paused until resumed, even after a restart",
    when: ["running"],
  },
  {
    action: "resume",
    text: "Resume",
    title: "Continue training from the current step",
    when: ["paused", "stopped"],
  },
  {
    action: "stop",
    text: "Stop",
    title: "End this round now, publish the model, and do not train until resumed",
    when: ["running", "paused"],
  },
];

function Controls({ store, training }: { store: AppStore; training: TrainingState }) {
  return (
    <p class="training-controls" role="group" aria-label="Training">
      {CHOICES.filter(({ when }) => when.includes(training)).map(({ action, text, title }) => (
        <button
          key={action}
          type="button"
          class="plain small"
          data-testid={`training-${action}`}
          title={title}
          aria-label={`${text} training`}
          onClick={() => void controlTraining(store, action)}
        >
          {text}
        </button>
      ))}
    </p>
  );
}
