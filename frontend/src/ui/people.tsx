/** Several annotators in one project: the link for a colleague, and the form that it opens. */

import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api";
import type { AppStore } from "../store";
import { sessionName } from "../identity";
import type { SharedLink } from "../messages";
import { CopyButton } from "./copying";
import { Section } from "./side";
import { errorMessage } from "../format";

/** Asks for a name before anything else is shown. */
export function NameForm({ store }: { store: AppStore }) {
  const asking = store.asksName!;
  const field = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(asking.known);
  const [problem, setProblem] = useState("");
  const name = sessionName(text);
  useEffect(() => field.current?.focus(), []);
  const onSubmit = (event: Event) => {
    event.preventDefault();
    if (name) return asking.answer(name);
    setProblem("Use letters from a to z or digits, and a name other than “default”.");
    field.current?.focus();
  };
  return (
    <div class="over">
      <form class="message" data-testid="name-form" onSubmit={onSubmit}>
        <h2>Who is labelling?</h2>
        <p>Your answers are stored under your name.</p>
        <label>
          <span>Your name</span>
          <input
            ref={field}
            data-testid="name"
            autocomplete="nickname"
            maxLength={64}
            value={text}
            aria-invalid={problem !== ""}
            aria-describedby="name-problem"
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <p id="name-problem" role="alert">
          {problem && !name ? problem : ""}
        </p>
        {name && name !== text && <p class="quiet">The others will see “{name}”.</p>}
        <button type="submit" class="plain">
          Start
        </button>
      </form>
    </div>
  );
}

/** The panel's section with the link for a colleague. */
export function Invite() {
  const [link, setLink] = useState<SharedLink | null>(null);
  const [problem, setProblem] = useState("");
  const onClick = async () => {
    try {
      setLink(await api.link());
      setProblem("");
    } catch (error) {
      setProblem(errorMessage(error));
    }
  };
  return (
    <Section title="Work together" open={false}>
      <div class="invite">
        <button type="button" class="plain small" data-testid="invite" onClick={() => void onClick()}>
          Link for a colleague
        </button>
        {problem && <p role="alert">{problem}</p>}
        {link && (
          <>
            <p class="command">
              <code data-testid="shared-link">{link.url}</code>
              <CopyButton text={link.url} label="Copy the link" testid="copy-link" />
            </p>
            <p class="quiet">
              {link.works_elsewhere
                ? "It asks for a name. Anyone with this link can label: do not publish it."
                : "It asks for a name and works on this machine only. For other machines, start odkeras annotate with --host 0.0.0.0."}
            </p>
          </>
        )}
      </div>
    </Section>
  );
}
