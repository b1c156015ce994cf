/** Banners about problems, and their effect on the answers. */

import type { Desk } from "../desk";
import { Icon } from "./icons";
import { ShowLog } from "./log";
import { many } from "../words";

export function Banners({ desk }: { desk: Desk }) {
  const { outbox, live } = desk;
  const waiting = outbox?.waiting.length ?? 0;
  const unreachable = outbox?.trouble?.unreachable || desk.queue?.trouble?.unreachable || live?.lost;
  const lines = [
    desk.fatal && (
      <Line key="fatal" kind="error">
        {desk.fatal}
      </Line>
    ),
    outbox?.blocked && outbox.blocked !== desk.fatal && (
      <Line key="blocked" kind="error">
        {many(waiting, "answer waits", "answers wait")}: {outbox.blocked}. Further answers can be given when this works
        again; it is tried again and again.
        <button type="button" class="plain small" onClick={() => void outbox.flush()}>
          Try now
        </button>
      </Line>
    ),
    unreachable && !outbox?.blocked && desk.project && (
      <Line key="offline" kind="warning">
        {waiting
          ? `${many(waiting, "answer waits", "answers wait")}: the server cannot be reached; nothing is lost.`
          : "The server cannot be reached; what is here can be annotated, and the page goes on when it is back."}
      </Line>
    ),
    outbox && !outbox.persisted && waiting > 0 && (
      <Line key="memory" kind="warning">
        This browser does not keep answers that wait: leave the page open until they are saved.
      </Line>
    ),
    outbox && outbox.refused.length > 0 && (
      <Line key="refused" kind="error">
        {many(outbox.refused.length, "answer was", "answers were")} refused:{" "}
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
        Training or suggestions do not work: {live.panel.failure}. Annotating goes on.
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
