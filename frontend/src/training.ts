/** Controls of the trainer: train now, pause, resume, stop. */

import { api } from "./api";
import type { Desk } from "./desk";
import type { TrainingAction, TrainingState } from "./wire";
import { many, messageOf } from "./words";

const DONE: { [state in TrainingState]: string } = {
  running: "training is resumed",
  paused: "training is paused",
  stopped: "training is stopped; what the round has learned is kept",
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
export function trainedNow({ handed_on, resumed }: { handed_on: number; resumed: boolean }): string {
  const answers = many(handed_on, "answer");
  if (resumed) return handed_on ? `training is resumed, and starts with ${answers}` : DONE.running;
  return handed_on ? `training starts with ${answers}` : "no answer is waiting for training";
}
