/** Mean average precision under the names of the different metric sets. */

import type { Evaluation } from "./messages";

const MAP = /(^|\/)mAP$/i;
const MAP50 = /(^|\/)mAP(50|@0?\.50?(IOU)?)$/i;

export interface Precision {
  /** Averaged over IoU 0.5 to 0.95; undefined if the metric set does not have it. */
  map?: number;
  /** At IoU 0.5; undefined if the metric set does not have it. */
  map50?: number;
}

export function readPrecision({ metrics }: Evaluation): Precision {
  const find = (pattern: RegExp) => Object.entries(metrics).find(([name]) => pattern.test(name))?.[1];
  return { map: find(MAP), map50: find(MAP50) };
}
