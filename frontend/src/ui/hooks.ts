/** How components follow the desk and the clock. */

import { useEffect, useLayoutEffect, useReducer, useRef } from "preact/hooks";
import type { Desk } from "../desk";

export function useDesk(desk: Desk): void {
  const [, render] = useReducer((count: number) => count + 1, 0);
  // Before the effects of the components, which change the desk.
  useLayoutEffect(() => desk.subscribe(() => render(undefined)), [desk]);
}

/** Renders again every so often, for "12 s ago". */
export function useTicking(interval_ms: number): void {
  const [, render] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => render(undefined), interval_ms);
    return () => clearInterval(timer);
  }, [interval_ms]);
}

/** A modal dialog: the attributes that make it open and close. A click beside it closes it. */
export function useDialog(open: boolean, close: () => void, onOpen: (dialog: HTMLDialogElement) => void = () => {}) {
  const ref = useRef<HTMLDialogElement>(null);
  // At once: the next key must not go to a dialog that is about to close.
  useLayoutEffect(() => {
    const dialog = ref.current!;
    if (open && !dialog.open) {
      dialog.showModal();
      onOpen(dialog);
    }
    if (!open && dialog.open) dialog.close();
  }, [open]);
  return {
    ref,
    // The event comes later: the dialog may be open again.
    onClose: () => !ref.current?.open && close(),
    onClick: (event: MouseEvent) => event.target === ref.current && isBeside(event, event.currentTarget as HTMLElement) && close(),
  };
}

function isBeside({ clientX, clientY }: MouseEvent, element: HTMLElement): boolean {
  const { left, top, right, bottom } = element.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}
