/** Candidates: objects that the model detected and that are not shown. A person picks one with a click, or draws
 * roughly around it. */

import type { Rect } from "./boxes";
import { iou, SAME_FROM } from "./checks";
import { contains } from "./grips";
import type { Candidate, Point } from "./messages";

/** Minimum IoU of a drawn box and the candidate that it snaps to. */
const SNAPS_FROM = 0.5;

export function toRect({ rect: [x, y, width, height] }: Candidate): Rect {
  return { x, y, width, height };
}

/** The candidates that contain a point, best first. Left out are those that are on the canvas as a box already, and
 * those that are nearly the same as a better one. */
export function candidatesAt(candidates: Candidate[], boxes: Rect[], at: Point): Candidate[] {
  const taken = [...boxes];
  const under = candidates.filter((candidate) => contains(toRect(candidate), at));
  return under
    .sort((a, b) => rank(b) - rank(a))
    .filter((candidate) => {
      const rect = toRect(candidate);
      return !isTaken(rect, taken) && taken.push(rect);
    });
}

/** The candidate that a drawn box stands for; null if there is none. */
export function snapTarget(candidates: Candidate[], boxes: Rect[], drawn: Rect): Candidate | null {
  const near = candidates.filter((candidate) => overlap(candidate, drawn) >= SNAPS_FROM);
  const match = (candidate: Candidate) => candidate.score * overlap(candidate, drawn);
  return near.filter((candidate) => !isTaken(toRect(candidate), boxes)).sort((a, b) => match(b) - match(a))[0] ?? null;
}

/** High for a high score. Small objects come before large ones behind them, unless their score is much lower. */
const rank = ({ score, rect: [, , width, height] }: Candidate) => score / Math.max(1, width * height) ** 0.25;

const overlap = (candidate: Candidate, drawn: Rect) => iou(toRect(candidate), drawn);

const isTaken = (rect: Rect, boxes: Rect[]) => boxes.some((box) => iou(rect, box) > SAME_FROM);
