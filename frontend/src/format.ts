/** Texts for the trainer's states and for figures. */

import type { Decision, PanelState, Trainer, TrainingState } from "./messages";

export const PAST: { [decision in Decision]: string } = { accept: "accepted", reject: "rejected", ignore: "ignored" };

const STATES: { [state: string]: string } = {
  starting: "starting",
  building: "building the model",
  training: "training",
  evaluating: "evaluating",
  publishing: "publishing a new version",
  exporting: "publishing a new version",
  waiting: "waiting",
  paused: "paused",
  stopped: "stopped",
  failed: "failed",
};

function trainerText(trainer: Trainer | null): string {
  if (!trainer) return "no status from the trainer yet";
  const { state, step, steps, round } = trainer;
  const progress = state === "training" && step != null && steps ? `, step ${step} of ${steps}` : "";
  const which = round && !["waiting", "paused", "stopped"].includes(state) ? ` (round ${round})` : "";
  return stateText(trainer) + progress + which;
}

/** The reason either repeats the state ("training on 12 images") or adds to it ("no answers yet"). */
function stateText({ state, reason }: Trainer): string {
  const words = STATES[state] ?? state;
  if (!reason) return words;
  return state === "stopped" || reason.startsWith(state) ? reason : `${words}: ${reason}`;
}

/** The trainer's state, and the requested state if the trainer has not reached it yet. */
export function trainingText({ trainer, training }: PanelState): string {
  const text = trainerText(trainer);
  if (training === "running" || trainer?.state === training) return text;
  return `training is ${training}; ${text}`;
}

/** The number of answers for the next round, out of the number that starts it. */
export function untilTraining(answers: number, needed: number, training: TrainingState): string {
  if (training !== "running") return `training is ${training}`;
  return `${Math.min(answers, needed)} of ${needed} until training`;
}

/** A version's display name. It comes from the server, so that it is the same everywhere; tooltips show the number. */
export function versionName(panel: PanelState | null | undefined, version: number): string {
  return panel?.names[version] ?? `version ${version}`;
}

export const versionNumber = (version: number) => `version ${version}`;

/** Progress of the round, 0..1; null unless the trainer is training. */
export function trainerProgress(trainer: Trainer | null): number | null {
  if (trainer?.state !== "training" || trainer.step == null || !trainer.steps) return null;
  return Math.min(1, trainer.step / trainer.steps);
}

export function ago(elapsed_ms: number): string {
  const seconds = Math.max(0, Math.round(elapsed_ms / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min ago`;
}

export function clock(at_s: number): string {
  return new Date(at_s * 1000).toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
  });
}

export const errorMessage = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** Whether the primary pointer is a finger, so that there is probably no keyboard. */
export const isCoarse = () => matchMedia("(pointer: coarse)").matches;

/** How to undo the last change: the key or, on touch screens, the button. */
export const undoHint = (key: string) => (isCoarse() ? "the ↶ button" : key);

export const pluralize = (count: number, one: string, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

export const percent = (share: number) => `${Math.round(share * 100)} %`;

/** A part of a whole in percent; “–” if the whole is 0. */
export const share = (part: number, whole: number) => (whole ? percent(part / whole) : "–");

export function figure(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}
