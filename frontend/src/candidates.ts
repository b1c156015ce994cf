/** Candidates: objects that the model detected and that are not shown. A person picks one with a click, or draws
 * roughly around it. */

import type { Box, Rect } from "./boxes";
import { iou, isCovered, SAME_FROM } from "./checks";
import { contains } from "./grips";
import type { Candidate, Point } from "./messages";

/** Minimum IoU of a drawn box and the candidate that it snaps to. */
const SNAPS_FROM = 0.5;

/** How far from its middle people point at an object, as a share of its size; the same as in odkeras/metrics.py. */
const POINTING_SPREAD = 0.25;

export function toRect({ rect: [x, y, width, height] }: Candidate): Rect {
  return { x, y, width, height };
}

/** The candidates that contain a point, best first. Left out are those that are on the canvas as a box already, and
 * those that are nearly the same as a better one. */
export function candidatesAt(candidates: Candidate[], boxes: Rect[], at: Point): Candidate[] {
  const under = candidates.filter((candidate) => contains(toRect(candidate), at));
  const rankHere = (candidate: Candidate) => rank(candidate) * pointing(candidate, at);
  return distinct(under.sort((a, b) => rankHere(b) - rankHere(a)), boxes);
}

/** The candidates that are worth a look, by score. Left out are also those that overlap a box of their own label or of
 * `label`, which a picked box gets. */
export function openCandidates(candidates: Candidate[], boxes: Box[], label: string): Candidate[] {
  const free = candidates.filter((candidate) => {
    const rect = toRect(candidate);
    return !isCovered(rect, candidate.label, boxes) && !isCovered(rect, label, boxes);
  });
  return distinct(byScore(free), boxes);
}

/** The open candidate after (1) or before (-1) another one in the order of the scores, or the first one after null;
 * null if there is none. */
export function nextOpen(
  candidates: Candidate[],
  open: Candidate[],
  from: Candidate | null,
  step: 1 | -1,
): Candidate | null {
  const order = byScore(candidates);
  const at = from ? order.indexOf(from) : -1;
  const isBeyond = (candidate: Candidate) => (order.indexOf(candidate) - at) * step > 0;
  return (step > 0 ? open : [...open].reverse()).find((candidate) => isBeyond(candidate)) ?? null;
}

/** The candidate that a drawn box stands for; null if there is none. */
export function snapTarget(candidates: Candidate[], boxes: Rect[], drawn: Rect): Candidate | null {
  const near = candidates.filter((candidate) => overlap(candidate, drawn) >= SNAPS_FROM);
  const match = (candidate: Candidate) => candidate.score * overlap(candidate, drawn);
  return near.filter((candidate) => !isTaken(toRect(candidate), boxes)).sort((a, b) => match(b) - match(a))[0] ?? null;
}

/** High for a high score. Small objects come before large ones behind them, unless their score is much lower. */
const rank = ({ score, rect: [, , width, height] }: Candidate) => score / Math.max(1, width * height) ** 0.25;

/** 1 if the pointer is in the middle of a candidate, less farther out: people point at the middle of an object. */
function pointing({ rect: [left, top, width, height] }: Candidate, [x, y]: Point): number {
  const off = Math.hypot((x - left) / width - 0.5, (y - top) / height - 0.5);
  return Math.exp(-0.5 * (off / POINTING_SPREAD) ** 2);
}

const byScore = (candidates: Candidate[]) => [...candidates].sort((a, b) => b.score - a.score);

/** Those that are neither on the canvas as a box nor nearly the same as one before them. */
function distinct(candidates: Candidate[], boxes: Rect[]): Candidate[] {
  const taken = [...boxes];
  return candidates.filter((candidate) => {
    const rect = toRect(candidate);
    return !isTaken(rect, taken) && taken.push(rect);
  });
}

const overlap = (candidate: Candidate, drawn: Rect) => iou(toRect(candidate), drawn);

const isTaken = (rect: Rect, boxes: Rect[]) => boxes.some((box) => iou(rect, box) > SAME_FROM);
