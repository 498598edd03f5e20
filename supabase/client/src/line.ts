/** What the stream has told of one account. Pure: a message in, a new line out. */

import type {
  AccountInfo,
  Envelope,
  MessageOf,
  Order,
  Position,
  ServerMessage,
  Status,
} from "./messages.js";
import { shareFields, shareRows } from "./sharing.js";

/** A place in the account's numbered line. */
export interface Place {
  readonly epoch: number;
  readonly seq: number;
}

/** The account as far as the messages have told. Parts that did not change keep their identity. */
export interface Line {
  readonly account: AccountInfo | null;
  readonly positions: readonly Position[];
  readonly orders: readonly Order[];
  readonly status: Status | null;
  /** When the terminal saw the last change. */
  readonly ts: string;
  /** Of the last message that account, positions and orders show; null before any snapshot. */
  readonly applied: Place | null;
  /** Where this connection's line stands: the next number is one above. */
  readonly told: Place;
  /** A snapshot, or a good resume, of this connection stands under the changes. */
  readonly based: boolean;
  /** Messages are missing: only a snapshot mends it. */
  readonly broken: boolean;
}

export const EMPTY: Line = Object.freeze({
  account: null,
  positions: Object.freeze([]),
  orders: Object.freeze([]),
  status: null,
  ts: "",
  applied: null,
  told: Object.freeze({ epoch: 0, seq: 0 }),
  based: false,
  broken: false,
});

/** The state of a replica that cannot follow the account: about the connection, not the account. */
export const DEGRADED = "degraded";

type Numbered = MessageOf<"position_update" | "account_update" | "order_update" | "status">;

/**
 * The line after one more message, the same one if that told nothing new.
 *
 * What was heard before changes nothing. What does not follow the last number makes the line
 * `broken`, and it then waits for a snapshot, which replaces everything whatever its place.
 */
export function apply(line: Line, message: ServerMessage): Line {
  switch (message.type) {
    case "connected":
      return begun(line, message);
    case "snapshot":
      return replaced(line, message);
    case "heartbeat":
      return line.based && isAhead(message, line.told) ? gap(line) : line;
    case "position_update":
    case "account_update":
    case "order_update":
    case "status":
      return advanced(line, message);
    case "error":
      return line;
  }
}

function begun(line: Line, message: MessageOf<"connected">): Line {
  const known = line.status?.state === DEGRADED ? null : line.status;
  const status = shareFields(line.status, message.data.status ?? known);
  if (!message.data.resumed) {
    return { ...line, status, told: placeOf(message), based: false, broken: false };
  }
  const { applied } = line;
  const whole = applied?.epoch === message.epoch && applied.seq <= message.seq;
  // A resume of what was never told here can only be mended by a snapshot.
  return { ...line, status, told: applied ?? placeOf(message), based: whole, broken: !whole };
}

function replaced(line: Line, message: MessageOf<"snapshot">): Line {
  const { data } = message;
  const place = placeOf(message);
  return {
    account: shareFields(line.account, data.account),
    positions: shareRows(line.positions, data.positions),
    orders: shareRows(line.orders, data.orders),
    status: shareFields(line.status, data.status ?? line.status),
    ts: message.ts,
    applied: place,
    told: place,
    based: true,
    broken: false,
  };
}

function advanced(line: Line, message: Numbered): Line {
  const here = message.epoch === line.told.epoch;
  if (message.type === "status" && (!here || line.broken || message.seq === line.told.seq)) {
    // About this connection, or of a line that has nothing else to tell yet: shown, not counted.
    const shown = showing(line, message.data);
    return here ? shown : gap(shown);
  }
  if (line.broken || (here && message.seq <= line.told.seq)) return line;
  if (!follows(message, line.told, 1)) return gap(line);
  const told = placeOf(message);
  if (!line.based) {
    // Before its first look a line can only tell of itself.
    return message.type === "status" ? { ...showing(line, message.data), told } : gap(line);
  }
  return { ...changed(line, message), ts: message.ts, applied: told, told };
}

function changed(line: Line, message: Numbered): Line {
  switch (message.type) {
    case "status":
      return showing(line, message.data);
    case "position_update":
      return { ...line, positions: shareRows(line.positions, message.data.positions) };
    case "order_update":
      return { ...line, orders: shareRows(line.orders, message.data.orders) };
    case "account_update":
      return { ...line, account: merged(line.account, message.data.account) };
  }
}

function merged(account: AccountInfo | null, changes: Partial<AccountInfo>): AccountInfo | null {
  return account && shareFields(account, { ...account, ...changes });
}

function showing(line: Line, told: Status): Line {
  const status = shareFields(line.status, told);
  return status === line.status ? line : { ...line, status };
}

const gap = (line: Line): Line => (line.broken ? line : { ...line, broken: true });

const follows = (message: Envelope, place: Place, by: number): boolean =>
  message.epoch === place.epoch && message.seq === place.seq + by;

const isAhead = (message: Envelope, place: Place): boolean =>
  message.epoch !== place.epoch || message.seq > place.seq;

const placeOf = (message: Envelope): Place => ({ epoch: message.epoch, seq: message.seq });
