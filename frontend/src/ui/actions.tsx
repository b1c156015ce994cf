/** The buttons for the three answers and for undo, large enough for touch. */

import type { AppStore } from "../store";
import { AnswersExplained } from "./first_steps";
import { Icon, type IconName } from "./icons";

interface ActionProps {
  icon: IconName;
  name: string;
  keyName: string;
  keyShortcut: string;
  disabled: boolean;
  reason: string;
  onClick: () => void;
}

function Action({ icon, name, keyName, keyShortcut, disabled, reason, onClick }: ActionProps) {
  const text = name[0]!.toUpperCase() + name.slice(1);
  return (
    <button
      type="button"
      class={`action ${name}`}
      data-testid={name}
      title={reason ? `${text}: ${reason}` : `${text} (${keyName})`}
      aria-keyshortcuts={keyShortcut}
      aria-describedby={reason ? "closed-reason" : undefined}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
      <span>{text}</span>
      <kbd aria-hidden="true">{keyName}</kbd>
    </button>
  );
}

export function Actions({ store }: { store: AppStore }) {
  const closed = store.closed !== "";
  const reason = store.outbox?.blocked ?? "";
  return (
    <div class="actions" role="group" aria-label="Answer">
      <AnswersExplained store={store} />
      <Action
        icon="accept"
        name="accept"
        keyName="a"
        keyShortcut="a"
        disabled={closed}
        reason={reason}
        onClick={() => store.answer("accept")}
      />
      <Action
        icon="reject"
        name="reject"
        keyName="x"
        keyShortcut="x"
        disabled={closed}
        reason={reason}
        onClick={() => store.answer("reject")}
      />
      <Action
        icon="ignore"
        name="ignore"
        keyName="space"
        keyShortcut="Space"
        disabled={closed && !(store.shown?.failed && !reason)}
        reason={reason}
        onClick={() => store.answer("ignore")}
      />
      <Action
        icon="undo"
        name="undo"
        keyName="bksp"
        keyShortcut="Backspace"
        disabled={!store.project}
        reason=""
        onClick={() => store.undo()}
      />
      {reason && <span id="closed-reason" class="sr-only">{`Answering is disabled: ${reason}`}</span>}
    </div>
  );
}
