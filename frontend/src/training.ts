/** Controls of the trainer: train now, pause, resume, stop. */

import { api } from "./api";
import type { AppStore } from "./store";
import type { TrainingAction, TrainingState } from "./messages";
import { pluralize, errorMessage } from "./format";

const DONE: { [state in TrainingState]: string } = {
  running: "training is resumed",
  paused: "training is paused",
  stopped: "training is stopped; the round's progress is kept",
};

export async function controlTraining(store: AppStore, action: TrainingAction): Promise<void> {
  try {
    const { training } = await api.training(store.who, action);
    store.notices.show(DONE[training]);
  } catch (error) {
    store.notices.show(`cannot ${action} training: ${errorMessage(error)}`);
  }
}

/** The message after “Train now”. */
export function trainedNow({ delivered, resumed }: { delivered: number; resumed: boolean }): string {
  const answers = pluralize(delivered, "answer");
  if (resumed) return delivered ? `training is resumed and starts with ${answers}` : DONE.running;
  return delivered ? `training starts with ${answers}` : "there are no new answers to train on";
}
