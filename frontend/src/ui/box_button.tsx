/** On touch screens, a button beside the selected box that removes it, because there is no Delete key. */

import { useEffect, useState } from "preact/hooks";
import type { AppStore } from "../store";
import { removeSelected } from "../edits";
import { besideBox, isSeen } from "../place";
import { Icon } from "./icons";

/** The same value as in stage.css. */
const SIDE_PX = 44;
const GAP_PX = 14;

export function BoxButton({ store }: { store: AppStore }) {
  useScrolling(store);
  const { canvas, view, elements } = store;
  const box = canvas?.boxes.find(({ id }) => id === canvas.selected);
  if (!box || !view || !elements) return null;
  const stage = elements.stage.getBoundingClientRect();
  const [place, seen] = [view.toStage(box, stage), { x: 0, y: 0, width: stage.width, height: stage.height }];
  if (!isSeen(place, seen)) return null;
  const [left, top] = besideBox(place, seen, SIDE_PX, GAP_PX);
  return (
    <button
      type="button"
      class="box-button"
      data-testid="box-button"
      aria-label={`Remove the selected box: ${box.label}`}
      style={{ left: `${left}px`, top: `${top}px` }}
      onClick={() => removeSelected(store)}
    >
      <Icon name="trash" />
    </button>
  );
}

/** Renders again while the image scrolls, so that the button stays beside its box. */
function useScrolling({ elements }: AppStore): void {
  const [, render] = useState(0);
  useEffect(() => {
    const scroll = elements?.scroll;
    const onScroll = () => render((count) => count + 1);
    scroll?.addEventListener("scroll", onScroll, { passive: true });
    return () => scroll?.removeEventListener("scroll", onScroll);
  }, [elements]);
}
