/** Hooks for the page's state, the clock and dialogs. */

import { useEffect, useLayoutEffect, useReducer, useRef } from "preact/hooks";
import type { AppStore } from "../store";

export function useAppStore(store: AppStore): void {
  const [, render] = useReducer((count: number) => count + 1, 0);
  // A layout effect, so that it subscribes before the components' effects change the state.
  useLayoutEffect(() => store.subscribe(() => render(undefined)), [store]);
}

/** Renders again at an interval, for texts such as "12 s ago". */
export function useTicking(interval_ms: number): void {
  const [, render] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => render(undefined), interval_ms);
    return () => clearInterval(timer);
  }, [interval_ms]);
}

/** The attributes of a modal dialog that opens and closes with `open`. A click outside closes it. */
export function useDialog(open: boolean, close: () => void, onOpen: (dialog: HTMLDialogElement) => void = () => {}) {
  const ref = useRef<HTMLDialogElement>(null);
  // A layout effect, so that the dialog is closed before the next key event.
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
    // The close event is asynchronous: the dialog may be open again by then.
    onClose: () => !ref.current?.open && close(),
    onClick: (event: MouseEvent) => event.target === ref.current && isBeside(event, event.currentTarget as HTMLElement) && close(),
  };
}

function isBeside({ clientX, clientY }: MouseEvent, element: HTMLElement): boolean {
  const { left, top, right, bottom } = element.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}
