/** Banners about problems, and their effect on the answers. */

import type { AppStore } from "../store";
import { Icon } from "./icons";
import { ShowLog } from "./log";
import { pluralize } from "../format";

export function Banners({ store }: { store: AppStore }) {
  const { outbox, live } = store;
  const waiting = outbox?.waiting.length ?? 0;
  const unreachable = outbox?.trouble?.unreachable || store.queue?.trouble?.unreachable || live?.lost;
  const lines = [
    store.fatal && (
      <Line key="fatal" kind="error">
        {store.fatal}
      </Line>
    ),
    outbox?.blocked && outbox.blocked !== store.fatal && (
      <Line key="blocked" kind="error">
        {pluralize(waiting, "answer is", "answers are")} not saved: {outbox.blocked}. Answering is disabled until the page has
        saved them; it keeps retrying.
        <button type="button" class="plain small" onClick={() => void outbox.flush()}>
          Retry now
        </button>
      </Line>
    ),
    unreachable && !outbox?.blocked && store.project && (
      <Line key="offline" kind="warning">
        {waiting
          ? `Connection lost: ${pluralize(waiting, "answer is", "answers are")} not saved yet. The page keeps them and retries.`
          : "Connection lost. You can annotate the images that are already loaded; the page reconnects by itself."}
      </Line>
    ),
    outbox && !outbox.persisted && waiting > 0 && (
      <Line key="memory" kind="warning">
        This browser cannot store unsaved answers. Leave the page open until they are saved.
      </Line>
    ),
    outbox && outbox.refused.length > 0 && (
      <Line key="refused" kind="error">
        {pluralize(outbox.refused.length, "answer was", "answers were")} refused:{" "}
        {outbox.refused
          .slice(-3)
          .map(({ file, reason }) => `${file}: ${reason}`)
          .join("; ")}
        <button type="button" class="plain small" onClick={() => outbox.dismissRefused()}>
          Dismiss
        </button>
      </Line>
    ),
    live?.panel?.failure && (
      <Line key="failure" kind="warning">
        Training or suggestions failed: {live.panel.failure}. You can continue to annotate.
      </Line>
    ),
  ].filter(Boolean);
  return (
    <div class="banners" data-testid={lines.length ? "banner" : undefined}>
      <div aria-live="assertive">{lines}</div>
      {/* Outside the live region, or screen readers would read a whole opened log. */}
      {live?.panel?.failed && <ShowLog process={live.panel.failed} />}
    </div>
  );
}

function Line({ kind, children }: { kind: "error" | "warning"; children: preact.ComponentChildren }) {
  return (
    <div class={`banner ${kind}`} data-kind={kind}>
      <Icon name="warning" />
      <div>{children}</div>
    </div>
  );
}
