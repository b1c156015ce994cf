/** The trainer's states and other figures in plain words. */

import type { Decision, PanelState, Trainer, TrainingState } from "./wire";

export const PAST: { [decision in Decision]: string } = { accept: "accepted", reject: "rejected", ignore: "ignored" };

const DOING: { [state: string]: string } = {
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

export function trainerWords(trainer: Trainer | null): string {
  if (!trainer) return "the trainer has not said anything yet";
  const { state, step, steps, round } = trainer;
  const progress = state === "training" && step != null && steps ? `, step ${step} of ${steps}` : "";
  const which = round && !["waiting", "paused", "stopped"].includes(state) ? ` (round ${round})` : "";
  return doing(trainer) + progress + which;
}

/** The reason says the state again ("training on 12 images") or adds to it ("no answers yet"). */
function doing({ state, reason }: Trainer): string {
  const words = DOING[state] ?? state;
  if (!reason) return words;
  return state === "stopped" || reason.startsWith(state) ? reason : `${words}: ${reason}`;
}

/** What the trainer does, and what it is going to do where it has not come to that yet. */
export function trainingWords({ trainer, training }: PanelState): string {
  const does = trainerWords(trainer);
  if (training === "running" || trainer?.state === training) return does;
  return `training is ${training}; ${does}`;
}

/** How many answers the next round of training has, of how many that begin it. */
export function untilTraining(answers: number, needed: number, training: TrainingState): string {
  if (training !== "running") return `training is ${training}`;
  return `${Math.min(answers, needed)} of ${needed} until training`;
}

/** What a version is called; the server says, so that it has one name everywhere. The number is for tooltips. */
export function versionName(panel: PanelState | null | undefined, version: number): string {
  return panel?.names[version] ?? `version ${version}`;
}

export const versionNumber = (version: number) => `version ${version}`;

/** 0..1 while the trainer trains, else null. */
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

export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** A finger points, and there are no keys. */
export const isCoarse = () => matchMedia("(pointer: coarse)").matches;

/** What takes the last change back: a key, or where there are no keys a button. */
export const takesBack = (key: string) => (isCoarse() ? "the ↶ button" : key);

export const many = (count: number, one: string, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

export const share = (part: number, whole: number) => (whole ? `${Math.round((part / whole) * 100)} %` : "–");

export function figure(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}
