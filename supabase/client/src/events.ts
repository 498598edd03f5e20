/** What happens to an account, told as it happens. */

import type { Problem } from "./closing.js";
import type { Envelope, Order, Position, ServerMessage } from "./messages.js";

export interface StreamEvents {
  /** A position was opened; told once, and not of those a snapshot brings. */
  opened: Position;
  /** A position was closed, as it was last seen. */
  closed: Position;
  /** Volume, sl, tp, open price or comment of a position changed. */
  modified: Position;
  /** A pending order was placed. */
  placed: Order;
  /** A pending order was filled, cancelled or has expired, as it was last seen. */
  removed: Order;
  /** The terms of a pending order changed. */
  order_modified: Order;
  /** Everything was replaced: what happened in between is not told. */
  replaced: { readonly conflated: boolean };
  /** Something went wrong. */
  problem: Problem;
  /** Any message that is understood, without its data. */
  message: Envelope & { readonly type: ServerMessage["type"] };
}

type Listener<T> = (told: T) => void;

/** Listeners by event. One that throws stops neither the others nor the stream. */
export class Emitter<E extends object> {
  readonly #listeners = new Map<keyof E, Set<Listener<never>>>();

  /** Listens; the function returned ends it. */
  on<K extends keyof E>(event: K, listener: Listener<E[K]>): () => void {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners);
    // Each call its own: the same function may listen twice and leave once.
    const own: Listener<E[K]> = (told) => listener(told);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  emit<K extends keyof E>(event: K, told: E[K]): void {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      guarded(() => (listener as Listener<E[K]>)(told));
    }
  }
}

/** Runs what is not ours; its fault is reported by the host as one of nobody's call. */
function guarded(run: () => void): void {
  try {
    run();
  } catch (fault) {
    queueMicrotask(() => {
      throw fault;
    });
  }
}

/**
 * Tells what one message brings.
 *
 * @param applied Whether the state shows it; what was told before is not told again.
 */
export function tell(
  events: Emitter<StreamEvents>,
  message: ServerMessage,
  applied: boolean,
): void {
  const { type, account_id, epoch, seq, ts } = message;
  events.emit("message", { type, account_id, epoch, seq, ts });
  if (message.type === "error") {
    events.emit("problem", { code: message.data.code, message: message.data.message });
  }
  if (!applied) return;
  if (message.type === "snapshot") {
    events.emit("replaced", { conflated: message.data.conflated === true });
  } else if (message.type === "position_update") {
    for (const row of message.data.opened ?? []) events.emit("opened", row);
    for (const row of message.data.closed ?? []) events.emit("closed", row);
    for (const row of message.data.modified ?? []) events.emit("modified", row);
  } else if (message.type === "order_update") {
    for (const row of message.data.placed ?? []) events.emit("placed", row);
    for (const row of message.data.removed ?? []) events.emit("removed", row);
    for (const row of message.data.modified ?? []) events.emit("order_modified", row);
  }
}
