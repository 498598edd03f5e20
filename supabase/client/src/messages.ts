/** The wire of `WS /ws/account/<id>`: what the server says. Field names are MetaTrader's. */

/** MetaTrader's AccountInfo. Money is in `currency`; `margin_level` is in percent. */
export interface AccountInfo {
  readonly login: number;
  readonly trade_mode: number;
  readonly leverage: number;
  readonly limit_orders: number;
  readonly margin_so_mode: number;
  readonly trade_allowed: boolean;
  readonly trade_expert: boolean;
  readonly margin_mode: number;
  readonly currency_digits: number;
  readonly fifo_close: boolean;
  readonly balance: number;
  readonly credit: number;
  readonly profit: number;
  readonly equity: number;
  readonly margin: number;
  readonly margin_free: number;
  readonly margin_level: number;
  readonly margin_so_call: number;
  readonly margin_so_so: number;
  readonly margin_initial: number;
  readonly margin_maintenance: number;
  readonly assets: number;
  readonly liabilities: number;
  readonly commission_blocked: number;
  readonly name: string;
  readonly server: string;
  readonly currency: string;
  readonly company: string;
}

/** An open position. `time*` are the broker's wall clock as an epoch; `*_utc` are ISO-8601. */
export interface Position {
  readonly ticket: number;
  readonly time: number;
  readonly time_msc: number;
  readonly time_update: number;
  readonly time_update_msc: number;
  readonly type: number;
  readonly magic: number;
  readonly identifier: number;
  readonly reason: number;
  readonly volume: number;
  readonly price_open: number;
  readonly sl: number;
  readonly tp: number;
  readonly price_current: number;
  readonly swap: number;
  readonly profit: number;
  readonly symbol: string;
  readonly comment: string;
  readonly external_id: string;
  readonly time_utc: string | null;
  readonly time_update_utc: string | null;
}

/** A pending order; times as in `Position`. */
export interface Order {
  readonly ticket: number;
  readonly time_setup: number;
  readonly time_setup_msc: number;
  readonly time_done: number;
  readonly time_done_msc: number;
  readonly time_expiration: number;
  readonly type: number;
  readonly type_time: number;
  readonly type_filling: number;
  readonly state: number;
  readonly magic: number;
  readonly position_id: number;
  readonly position_by_id: number;
  readonly reason: number;
  readonly volume_initial: number;
  readonly volume_current: number;
  readonly price_open: number;
  readonly sl: number;
  readonly tp: number;
  readonly price_current: number;
  readonly price_stoplimit: number;
  readonly symbol: string;
  readonly comment: string;
  readonly external_id: string;
  readonly time_setup_utc: string | null;
  readonly time_done_utc: string | null;
  readonly time_expiration_utc: string | null;
}

/** How the account's stream does: `connected`, `degraded`, ... and why. */
export interface Status {
  readonly state: string;
  readonly reason: string | null;
}

export interface ConnectedData {
  readonly instance_id?: string;
  readonly heartbeat_s?: number;
  readonly resumed: boolean;
  readonly resume_ticket?: string;
  readonly status?: Status;
}

export interface SnapshotData {
  readonly account: AccountInfo;
  readonly positions: readonly Position[];
  readonly orders: readonly Order[];
  readonly status?: Status;
  readonly conflated?: boolean;
}

export interface PositionUpdateData {
  readonly positions: readonly Position[];
  readonly opened?: readonly Position[];
  readonly closed?: readonly Position[];
  readonly modified?: readonly Position[];
}

export interface OrderUpdateData {
  readonly orders: readonly Order[];
  readonly placed?: readonly Order[];
  readonly removed?: readonly Order[];
  readonly modified?: readonly Order[];
}

export interface ErrorData {
  readonly code: string;
  readonly message: string;
  readonly retry_after_s: number | null;
}

/** What every message has. `epoch` and `seq` say where in the account's line it stands. */
export interface Envelope {
  readonly account_id: string;
  readonly epoch: number;
  readonly seq: number;
  readonly ts: string;
}

/** Each type's `data`. */
export interface DataOf {
  connected: ConnectedData;
  snapshot: SnapshotData;
  position_update: PositionUpdateData;
  account_update: { readonly account: Partial<AccountInfo> };
  order_update: OrderUpdateData;
  status: Status;
  heartbeat: { readonly resume_ticket?: string };
  error: ErrorData;
}

export type MessageOf<K extends keyof DataOf> = {
  [T in K]: Envelope & { readonly type: T; readonly data: DataOf[T] };
}[K];

export type ServerMessage = MessageOf<keyof DataOf>;

/** The server has said something that is not of the contract. */
export class NotUnderstood extends Error {}

type Fields = Record<string, unknown>;

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isStatus = (value: unknown): boolean => isFields(value) && typeof value.state === "string";

const maybe = (value: unknown, holds: (value: unknown) => boolean): boolean =>
  value === undefined || value === null || holds(value);

const isText = (value: unknown): boolean => typeof value === "string";

const isAmount = (value: unknown): boolean => typeof value === "number" && value >= 0;

const isRows = (value: unknown): boolean =>
  Array.isArray(value) && value.every((row) => isFields(row) && typeof row.ticket === "number");

/** What is relied on; the fields of rows are the server's word. */
const CHECKS: { readonly [K in keyof DataOf]: (data: Fields) => boolean } = {
  connected: (data) =>
    typeof data.resumed === "boolean" &&
    maybe(data.resume_ticket, isText) &&
    maybe(data.heartbeat_s, isAmount) &&
    maybe(data.status, isStatus),
  snapshot: (data) =>
    isFields(data.account) &&
    isRows(data.positions) &&
    isRows(data.orders) &&
    maybe(data.status, isStatus),
  position_update: (data) =>
    isRows(data.positions) &&
    [data.opened, data.closed, data.modified].every((rows) => maybe(rows, isRows)),
  account_update: (data) => isFields(data.account),
  order_update: (data) =>
    isRows(data.orders) &&
    [data.placed, data.removed, data.modified].every((rows) => maybe(rows, isRows)),
  status: isStatus,
  heartbeat: (data) => maybe(data.resume_ticket, isText),
  error: (data) => isText(data.code) && isText(data.message) && maybe(data.retry_after_s, isAmount),
};

/**
 * One message; null for a type that this client does not know, or needs nothing of (`pong`).
 *
 * @throws NotUnderstood It is no message of the contract.
 */
export function parse(text: unknown): ServerMessage | null {
  const message = decoded(text);
  const { type, data } = message;
  if (typeof type !== "string") throw new NotUnderstood("a message without a type");
  if (!Object.hasOwn(CHECKS, type)) return null;
  const kind = type as keyof DataOf;
  const placed =
    isText(message.account_id) &&
    Number.isSafeInteger(message.epoch) &&
    Number.isSafeInteger(message.seq);
  if (!placed || !isFields(data) || !CHECKS[kind](data)) {
    throw new NotUnderstood(`a ${kind} that is not of the contract`);
  }
  return message as unknown as ServerMessage;
}

function decoded(text: unknown): Fields {
  if (typeof text !== "string") throw new NotUnderstood("a message that is not text");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text, and with it perhaps a ticket.
    throw new NotUnderstood("a message that is not JSON");
  }
  if (!isFields(value)) throw new NotUnderstood("a message that is no object");
  return value;
}
