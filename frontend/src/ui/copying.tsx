/** A text to copy, with a copy button. */

import { useEffect, useState } from "preact/hooks";
import { copy } from "../clipboard";

const MESSAGE_MS = 4_000;

export function CopyButton({ text, label, testid }: { text: string; label: string; testid?: string }) {
  const [message, setMessage] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setMessage(""), MESSAGE_MS);
    return () => clearTimeout(timer);
  }, [message]);
  const onClick = async () => setMessage((await copy(text)) ? "Copied" : "Select it and copy it by hand");
  return (
    <>
      <button type="button" class="plain small" data-testid={testid} aria-label={label} onClick={() => void onClick()}>
        Copy
      </button>
      <span class="copied quiet" role="status">
        {message}
      </span>
    </>
  );
}
