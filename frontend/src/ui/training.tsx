/** The training section of the panel: what the trainer does, and how to pause, resume and stop it. */

import type { Desk } from "../desk";
import { controlTraining } from "../training";
import type { PanelState, TrainingAction, TrainingState } from "../wire";
import { ago, figure, trainerProgress, trainingWords } from "../words";
import { useTicking } from "./hooks";
import { Section } from "./side";

export function Training({ desk, panel }: { desk: Desk; panel: PanelState }) {
  useTicking(1_000);
  const progress = trainerProgress(panel.trainer);
  const publishedAt = desk.live?.published_at ?? null;
  return (
    <Section title="Training">
      <p
        class="state"
        data-testid="trainer-state"
        data-state={panel.trainer?.state ?? ""}
        data-training={panel.training}
        role="status"
      >
        {trainingWords(panel)}
      </p>
      {progress !== null && <progress max={1} value={progress} aria-label="Training" />}
      <Controls desk={desk} training={panel.training} />
      <dl class="facts">
        <div>
          <dt>Loss</dt>
          <dd>{panel.trainer?.loss == null ? "–" : figure(panel.trainer.loss)}</dd>
        </div>
        <div>
          <dt>Served model</dt>
          <dd data-testid="version" data-version={panel.version ?? ""}>
            {panel.version === null ? "none yet" : panel.version}
            {publishedAt !== null && panel.version !== null && (
              <span class="quiet"> published {ago(performance.now() - publishedAt)}</span>
            )}
          </dd>
        </div>
      </dl>
    </Section>
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
    title: "Hold training between two steps; it stays paused, also after a restart, until it is resumed",
    when: ["running"],
  },
  {
    action: "resume",
    text: "Resume",
    title: "Go on with training from where it is",
    when: ["paused", "stopped"],
  },
  {
    action: "stop",
    text: "Stop",
    title: "End this round now, publish what it has learned, and train no more until training is resumed",
    when: ["running", "paused"],
  },
];

function Controls({ desk, training }: { desk: Desk; training: TrainingState }) {
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
          onClick={() => void controlTraining(desk, action)}
        >
          {text}
        </button>
      ))}
    </p>
  );
}
