/** What a client shows of its account. */

import type { Problem } from "./closing.js";
import type { Line } from "./line.js";
import type { AccountInfo, Order, Position, Status } from "./messages.js";

/** `degraded`: connected to a replica that cannot follow the account just now. */
export type Phase = "connecting" | "live" | "degraded" | "reconnecting" | "ended";

/** What is known of the account. Immutable; parts that did not change keep their identity. */
export interface StreamState {
  readonly phase: Phase;
  /** Null before the first snapshot. */
  readonly account: AccountInfo | null;
  readonly positions: readonly Position[];
  readonly orders: readonly Order[];
  readonly status: Status | null;
  /** Of the last message that the figures show; 0 before the first. */
  readonly epoch: number;
  readonly seq: number;
  /** When the terminal saw the last change, ISO-8601 UTC; empty before the first. */
  readonly ts: string;
  /** Figures are shown that nothing vouches for: no connection, or a snapshot is awaited. */
  readonly stale: boolean;
  /** What went wrong last, until it is well again. */
  readonly error: Problem | null;
}

/** How the client does, beside what the line has told. */
export interface Standing {
  readonly phase: Phase;
  readonly connected: boolean;
  readonly error: Problem | null;
}

/** The state after `before`: the same object if nothing has changed. */
export function nextState(
  before: StreamState | null,
  line: Line,
  { phase, connected, error }: Standing,
): StreamState {
  const { account, positions, orders, status, ts } = line;
  const { epoch, seq } = line.applied ?? { epoch: 0, seq: 0 };
  const stale = account !== null && !(connected && line.based && !line.broken);
  const next = { phase, account, positions, orders, status, epoch, seq, ts, stale, error };
  const names = Object.keys(next) as (keyof StreamState)[];
  const same = before && names.every((name) => next[name] === before[name]);
  return same ? before : Object.freeze(next);
}
