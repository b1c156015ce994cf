/** The end of a process's log, fetched on demand. */

import { useState } from "preact/hooks";
import { api } from "../api";
import { errorMessage } from "../format";
import type { ProcessName } from "../messages";

export function ShowLog({ process }: { process: ProcessName }) {
  const [text, setText] = useState("");
  const [path, setPath] = useState("");
  const [open, setOpen] = useState(false);
  const show = async () => {
    setOpen(!open);
    if (open) return;
    try {
      const log = await api.log(process);
      setPath(log.path);
      setText(log.text);
    } catch (error) {
      setPath("");
      setText(errorMessage(error));
    }
  };
  return (
    <div class="log">
      <button
        type="button"
        class="plain small"
        data-testid="show-log"
        aria-expanded={open}
        title={`The last lines of the ${process}'s log`}
        onClick={() => void show()}
      >
        {open ? "Hide log" : "Show log"}
      </button>
      {open && (
        <>
          {path && <p class="quiet">The end of {path}</p>}
          <pre key={text} tabindex={0} data-testid="log" aria-label={`Log of the ${process}`} ref={toEnd}>
            {text}
          </pre>
        </>
      )}
    </div>
  );
}

/** Scrolls to the last lines, which are the relevant ones. */
function toEnd(element: HTMLElement | null): void {
  if (element) element.scrollTop = element.scrollHeight;
}
