/** A scripted server, and a clock that is turned by hand. */

import type { Assigned, ByToken } from "../src/access.js";
import { StreamClient, type StreamOptions } from "../src/client.js";
import type { SocketLike } from "../src/connection.js";
import type { AccountInfo, DataOf, Order, Position } from "../src/messages.js";
import type { Timers } from "../src/timing.js";

export const EPOCH = 1_795_175_637_479_486;
export const ACCOUNT = "demo-1";

/** Time that only passes when told to. */
export class Clock implements Timers {
  ms = 1_000_000;
  #next = 1;
  readonly due = new Map<number, { at: number; run: () => void }>();

  readonly now = (): number => this.ms;

  setTimeout(run: () => void, ms: number): number {
    this.due.set(this.#next, { at: this.ms + ms, run });
    return this.#next++;
  }

  clearTimeout(timer: unknown): void {
    this.due.delete(timer as number);
  }

  /** Lets time pass: every call that falls due is made at its own instant. */
  async pass(ms: number): Promise<void> {
    const until = this.ms + ms;
    for (;;) {
      await settled();
      const [first] = [...this.due].sort(([, one], [, other]) => one.at - other.at);
      if (!first || first[1].at > until) break;
      this.due.delete(first[0]);
      this.ms = first[1].at;
      first[1].run();
    }
    this.ms = until;
    await settled();
  }
}

/** Lets everything that is ready happen. */
export const settled = (): Promise<void> => new Promise((done) => setImmediate(done));

type Handler = ((event: never) => unknown) | null;

export class FakeSocket implements SocketLike {
  onopen: Handler = null;
  onmessage: Handler = null;
  onerror: Handler = null;
  onclose: Handler = null;
  readonly sent: string[] = [];
  closed: number | null = null;
  seq = 0;
  epoch = EPOCH;

  constructor(readonly url: string) {}

  get query(): URLSearchParams {
    return new URL(this.url).searchParams;
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(code?: number): void {
    this.closed = code ?? 1005;
  }

  open(): void {
    this.onopen?.({} as never);
  }

  say(text: unknown): void {
    this.onmessage?.({ data: text } as never);
  }

  /** The server's close. */
  end(code: number, reason = ""): void {
    this.onclose?.({ code, reason } as never);
  }

  fail(): void {
    this.onerror?.({} as never);
  }

  /** A message at the present place, or at another. */
  tell<K extends keyof DataOf>(
    type: K,
    data: DataOf[K],
    place: { epoch?: number; seq?: number; account_id?: string } = {},
  ): void {
    const { epoch = this.epoch, seq = this.seq, account_id = ACCOUNT } = place;
    const ts = `2026-11-20T11:53:${String(seq % 60).padStart(2, "0")}.000Z`;
    this.say(JSON.stringify({ type, account_id, epoch, seq, ts, data }));
  }

  /** A numbered message. */
  next<K extends keyof DataOf>(type: K, data: DataOf[K]): void {
    this.seq += 1;
    this.tell(type, data);
  }

  greet(more: Partial<DataOf["connected"]> = {}): void {
    const resume_ticket = `resume-${this.url.length}-${this.seq}`;
    this.tell("connected", { heartbeat_s: 15, resumed: false, resume_ticket, ...more });
  }

  /** Opens, greets, and tells everything. */
  serve(more: Partial<DataOf["snapshot"]> = {}): void {
    this.open();
    this.greet();
    this.tell("snapshot", { ...SNAPSHOT, ...more });
  }
}

export function position(ticket: number, more: Partial<Position> = {}): Position {
  return { ticket, symbol: "EURUSD", volume: 0.1, profit: 0, ...more } as Position;
}

export const order = (ticket: number): Order => ({ ticket, symbol: "XAUUSD" }) as Order;

export const INFO = { login: 5_000_001, balance: 1000, equity: 1000 } as AccountInfo;

export const SNAPSHOT: DataOf["snapshot"] = {
  account: INFO,
  positions: [position(1), position(2)],
  orders: [order(9)],
  status: { state: "connected", reason: null },
};

/** One client, every socket it opened, and what it was told. */
export class World {
  readonly clock = new Clock();
  readonly sockets: FakeSocket[] = [];
  readonly events: [string, unknown][] = [];
  assigned = 0;
  /** What `random` gives: 1 would be the whole wait. */
  chance = 0.5;
  refusal: unknown = null;
  readonly client: StreamClient;

  constructor(options: Partial<StreamOptions> | ByToken = {}) {
    const { sockets } = this;
    const WebSocket = class extends FakeSocket {
      constructor(url: string) {
        super(url);
        sockets.push(this);
      }
    };
    const byToken = "getToken" in options;
    this.client = new StreamClient({
      ...(byToken ? {} : { assign: () => this.#assign() }),
      WebSocket,
      random: () => this.chance,
      now: this.clock.now,
      timers: this.clock,
      ...options,
    } as StreamOptions);
    const told = ["opened", "closed", "modified", "placed", "removed", "order_modified"] as const;
    for (const event of [...told, "replaced", "problem"] as const) {
      this.client.on(event, (what) => this.events.push([event, what]));
    }
  }

  get state(): ReturnType<StreamClient["getSnapshot"]> {
    return this.client.getSnapshot();
  }

  /** The newest socket. */
  get socket(): FakeSocket {
    const newest = this.sockets.at(-1);
    if (!newest) throw new Error("there is no socket yet");
    return newest;
  }

  /** Started, and its first socket made. */
  async started(): Promise<this> {
    this.client.start();
    await settled();
    return this;
  }

  /** Started, and live. */
  async live(): Promise<this> {
    await this.started();
    this.socket.serve();
    return this;
  }

  async #assign(): Promise<Assigned> {
    this.assigned += 1;
    if (this.refusal !== null) throw this.refusal;
    const ticket = `ticket-${this.assigned}`;
    return { websocket_url: `wss://stream.example/ws/account/${ACCOUNT}?ticket=${ticket}` };
  }
}
