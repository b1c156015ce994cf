/** The column beside the image: progress, boxes, latest answers. */

import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Box } from "../boxes";
import type { AppStore } from "../store";
import type { PastRecord } from "../records";
import { isThere } from "../keypoints";
import { useTicking } from "./hooks";
import { Icon } from "./icons";
import { ago, isCoarse, percent, pluralize, PAST } from "../format";

export function Section({
  title,
  open = true,
  extra,
  children,
}: {
  title: string;
  open?: boolean;
  extra?: preact.ComponentChildren;
  children: preact.ComponentChildren;
}) {
  return (
    <details class="section" open={open}>
      <summary>
        <h2>{title}</h2>
        {extra && <span class="extra">{extra}</span>}
      </summary>
      <div class="body">{children}</div>
    </details>
  );
}

export function Progress({ store }: { store: AppStore }) {
  const panel = store.live?.panel;
  const counts = panel?.answers ?? { accept: 0, reject: 0, ignore: 0 };
  const answered = counts.accept + counts.reject + counts.ignore;
  const total = panel?.total ?? null;
  const left = panel?.left ?? null;
  const waiting = store.outbox?.waiting.length ?? 0;
  return (
    <div class="progress" data-testid="progress">
      <p class="headline">
        <strong>{answered}</strong> answered
        {left !== null && (
          <span class="quiet" data-testid="left" title="Images that are not answered yet, without unreadable ones">
            {left} of {total} left
          </span>
        )}
      </p>
      {left !== null && total ? (
        <progress max={total} value={Math.max(0, total - left)} aria-label={`${left} of ${total} images left`} />
      ) : null}
      <p class="counts">
        <span class="accept">{counts.accept} accepted</span>
        <span class="reject">{counts.reject} rejected</span>
        <span class="ignore">{counts.ignore} ignored</span>
      </p>
      <p class="quiet">
        {waiting ? `saving ${pluralize(waiting, "answer")}` : "all answers are saved"}
        {panel && panel.pending > 0 && `, ${panel.pending} not sent to the trainer yet`}
      </p>
    </div>
  );
}

function originText(box: Box): string {
  if (box.origin === "suggested") return box.score === undefined ? "suggested" : `suggested ${percent(box.score)}`;
  if (box.origin === "given") return "from the source";
  return box.origin;
}

/** The origin of a box, and how many of its keypoints are there if its label has any. */
function facts(box: Box): string {
  const points = box.keypoints ?? [];
  const text = originText(box);
  return points.length ? `${text} · ${points.filter(isThere).length} of ${points.length} keypoints` : text;
}

export function Boxes({ store }: { store: AppStore }) {
  const { canvas } = store;
  const boxes = store.ready ? (canvas?.boxes ?? []) : [];
  const list = useRef<HTMLUListElement>(null);
  const keeping = useFocusKept(list, store.shown?.id, boxes.length);
  if (!store.ready) return <p class="quiet">No image is shown.</p>;
  if (!boxes.length) return <p class="quiet">No boxes. Drag over the image{!isCoarse() && ", or press b for one in the middle"}.</p>;
  return (
    <ul class="boxes" ref={list}>
      {boxes.map((box, index) => (
        <li
          key={box.id}
          class={box.id === canvas?.selected ? "selected" : ""}
          style={{ "--box": store.colours?.of(box.label) }}
        >
          <button
            type="button"
            class="box"
            data-testid="box-item"
            data-box-id={box.id}
            data-origin={box.origin}
            aria-pressed={box.id === canvas?.selected}
            data-rect={[box.x, box.y, box.width, box.height].join(",")}
            aria-label={`${box.label} ${facts(box)}, box ${index + 1}, ${Math.round(box.width)} by ${Math.round(box.height)} pixels at ${Math.round(box.x)}, ${Math.round(box.y)}`}
            onFocus={() => (keeping.current ? canvas?.activate(box.id) : canvas?.chosen !== box.id && canvas?.select(box.id))}
            onClick={() => canvas?.select(box.id)}
          >
            <span class={`swatch ${box.origin}`} aria-hidden="true" />
            <span class="name">{box.label}</span> <span class="origin">{facts(box)}</span>
          </button>
          <button
            type="button"
            class="tool small"
            data-testid="box-delete"
            aria-label={`Delete box ${index + 1}: ${box.label}`}
            title="Delete (Delete)"
            onClick={() => canvas?.remove(box.id)}
          >
            <Icon name="reject" />
          </button>
        </li>
      ))}
    </ul>
  );
}

/** When the focused box is deleted with the keyboard, moves the focus to the box of this image that takes its place.
 * Returns a ref that is true meanwhile: this focus activates the box, but does not select it for label keys. */
function useFocusKept(list: RefObject<HTMLUListElement | null>, image_id: string | undefined, count: number) {
  const keeping = useRef(false);
  const image = useRef(image_id);
  // During this render, the deleted item is still in the document.
  const focused = [...(list.current?.children ?? [])].findIndex((item) => item.querySelector(":focus-visible"));
  useLayoutEffect(() => {
    const sameImage = image.current === image_id;
    image.current = image_id;
    const items = [...(list.current?.querySelectorAll<HTMLElement>(".box") ?? [])];
    if (focused < 0 || !sameImage || document.activeElement !== document.body) return;
    keeping.current = true;
    items[Math.min(focused, items.length - 1)]?.focus();
    keeping.current = false;
  }, [image_id, count]);
  return keeping;
}

export function History({ store }: { store: AppStore }) {
  useTicking(10_000);
  const records = store.history;
  if (!records.length) return <p class="quiet">None yet.</p>;
  return (
    <ul class="history">
      {records.map((record) => (
        <li key={record.image_id}>
          <button
            type="button"
            data-testid="history-item"
            data-image-id={record.image_id}
            data-answer={record.answer}
            data-state={record.state}
            aria-current={store.shown?.id === record.image_id}
            title="Reopen"
            onClick={() => void store.reopen(record.image_id)}
          >
            <span class={`decision ${record.answer}`}>
              <Icon name={record.answer} />
            </span>
            <span class="file">{record.file}</span>
            <span class="quiet">{details(record)}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

function details({ answer, boxes, state, answered_at_ms }: PastRecord): string {
  return [PAST[answer], pluralize(boxes, "box", "boxes"), state, ago(Date.now() - answered_at_ms)].join(" · ");
}
