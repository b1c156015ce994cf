/** Shown instead of the image when all are answered: what to do with the answers and the model. */

import { useEffect, useState } from "preact/hooks";
import { api } from "../api";
import type { AppStore } from "../store";
import type { NextStep } from "../messages";
import { CopyButton } from "./copying";
import { pluralize } from "../format";

export function Done({ store }: { store: AppStore }) {
  const counts = store.live?.panel?.answers;
  const waiting = store.outbox?.waiting.length ?? 0;
  return (
    <div class="over done" data-testid="done">
      <div class="message">
        <div role="status">
          <h2>All images are answered</h2>
          {counts && (
            <p>
              {counts.accept} accepted, {counts.reject} rejected, {counts.ignore} ignored.
              {waiting > 0 && ` ${pluralize(waiting, "answer is", "answers are")} not saved yet.`}
            </p>
          )}
        </div>
        <p class="buttons">
          <Download format="jsonl" words="Download labels (JSON lines)" />
          <Download format="coco" words="Download labels (COCO)" />
        </p>
        <NextSteps />
        <p class="quiet">
          To review an answer, select it under “Recent answers” or press backspace.
        </p>
      </div>
    </div>
  );
}

function Download({ format, words }: { format: string; words: string }) {
  return (
    <a class="plain" href={`/api/export/${format}`} download data-testid={`download-${format}`}>
      {words}
    </a>
  );
}

function NextSteps() {
  const [steps, setSteps] = useState<NextStep[]>([]);
  useEffect(() => {
    // Without the server there are no next steps to show; the download buttons are shown anyway.
    void api.nextSteps().then((reply) => setSteps(reply.steps), () => {});
  }, []);
  if (!steps.length) return null;
  return (
    <section class="steps" aria-label="What to do next">
      <h3>Next, in a terminal on the machine where odkeras runs</h3>
      <ul>
        {steps.map(({ title, command, remark }) => (
          <li key={title} data-testid="next-step">
            <h4>{title}</h4>
            <div class="command">
              <code>{command}</code>
              <CopyButton text={command} label={`Copy the command: ${title}`} />
            </div>
            {remark && <p class="quiet">{remark}</p>}
          </li>
        ))}
      </ul>
    </section>
  );
}
