/** Controls of the trainer: train now, pause, resume, stop. */

import { api } from "./api";
import type { Desk } from "./desk";
import type { TrainingAction, TrainingState } from "./wire";
import { many, messageOf } from "./words";

const DONE: { [state in TrainingState]: string } = {
  running: "training is resumed",
  paused: "training is paused",
  stopped: "training is stopped; the round's progress is kept",
};

export async function controlTraining(desk: Desk, action: TrainingAction): Promise<void> {
  try {
    const { training } = await api.training(desk.who, action);
    desk.notices.say(DONE[training]);
  } catch (error) {
    desk.notices.say(`cannot ${action} training: ${messageOf(error)}`);
  }
}

/** The message after “Train now”. */
export function trainedNow({ delivered, resumed }: { delivered: number; resumed: boolean }): string {
  const answers = many(delivered, "answer");
  if (resumed) return delivered ? `training is resumed and starts with ${answers}` : DONE.running;
  return delivered ? `training starts with ${answers}` : "there are no new answers to train on";
}
