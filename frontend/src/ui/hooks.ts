/** How components follow the desk and the clock. */

import { useEffect, useLayoutEffect, useReducer } from "preact/hooks";
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
