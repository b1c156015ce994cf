/** Mean average precision, whatever a metric set calls it. */

import type { Evaluation } from "./wire";

const MAP = /(^|\/)mAP$/i;
const MAP50 = /(^|\/)mAP(50|@0?\.50?(IOU)?)$/i;

export interface Precision {
  /** Averaged over IoU 0.5 to 0.95, the strict one; undefined where the metric set has none. */
  map?: number;
  /** At IoU 0.5. */
  map50?: number;
}

export function precisionOf({ metrics }: Evaluation): Precision {
  const find = (pattern: RegExp) => Object.entries(metrics).find(([name]) => pattern.test(name))?.[1];
  return { map: find(MAP), map50: find(MAP50) };
}
