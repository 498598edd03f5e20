/** Lets a stream keep pace with the page that shows it. */

import type { StreamClient } from "./client.js";
import { Alarm, HOST_TIMERS, type Timers } from "./timing.js";

/** What is needed of `document` and `window`. */
export interface PageEvents {
  readonly document: Pick<EventTarget, "addEventListener" | "removeEventListener"> & {
    readonly visibilityState: string;
  };
  readonly window: Pick<EventTarget, "addEventListener" | "removeEventListener">;
  readonly timers?: Timers;
  /** How long a hidden page keeps its stream; default a minute. */
  readonly hiddenMs?: number;
}

/**
 * Stops a stream whose page stays hidden, starts it again when it is seen, and does not let it wait
 * once the network is back.
 *
 * @returns Undoes it; the stream stays as it is.
 */
export function followPage(client: StreamClient, page: PageEvents): () => void {
  const hidden = new Alarm(page.timers ?? HOST_TIMERS);
  let stoppedHere = false;
  const onVisibility = (): void => {
    if (page.document.visibilityState === "hidden") {
      hidden.after(page.hiddenMs ?? 60_000, () => {
        stoppedHere = client.getSnapshot().phase !== "ended";
        client.stop();
      });
      return;
    }
    hidden.clear();
    if (stoppedHere) client.start();
    else client.nudge();
    stoppedHere = false;
  };
  const onOnline = (): void => client.nudge();
  page.document.addEventListener("visibilitychange", onVisibility);
  page.window.addEventListener("online", onOnline);
  return () => {
    hidden.clear();
    page.document.removeEventListener("visibilitychange", onVisibility);
    page.window.removeEventListener("online", onOnline);
  };
}
