/** Where the next connection goes, and what opens the door there. */

import type { Place } from "./line.js";
import type { Problem } from "./closing.js";

/** What the issuer gives: an address of `/ws/account/<id>` with a single-use ticket in it. */
export interface Assigned {
  readonly websocket_url: string;
}

/** By ticket: asks the caller's own edge function, which asks `POST /api/ws/assign`. */
export interface ByTicket {
  readonly assign: () => Promise<Assigned>;
}

/** By token: the address of `/ws/account/<id>`; the user's Supabase JWT is the first message. */
export interface ByToken {
  readonly address: () => string | Promise<string>;
  readonly getToken: () => Promise<string>;
}

export type Access = ByTicket | ByToken;

/** To be thrown by `assign`, `address` or `getToken`; what else they throw is tried again. */
export class AccessRefused extends Error {
  readonly code: string;
  readonly retryAfterS: number;
  readonly final: boolean;

  /**
   * @param message For a person; shown as it is, so let no ticket be in it.
   * @param code To look it up by, like `SERVICE_OVERLOADED`.
   * @param retryAfterS Seconds before which asking again makes no sense.
   * @param final Asking again changes nothing: the stream ends.
   */
  constructor(
    message: string,
    { code = "REFUSED", retryAfterS = 0, final = false }: {
      code?: string;
      retryAfterS?: number;
      final?: boolean;
    } = {},
  ) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
    this.final = final;
  }

  get problem(): Problem {
    return { code: this.code, message: this.message };
  }
}

/** How to open one connection. Holds secrets: not to be logged. */
export interface Opening {
  readonly url: string;
  readonly accountId: string;
  /** The first message, where the address holds no ticket. */
  readonly first: string | null;
}

/** The server's resume tickets live two minutes; an older one would only cost a refusal. */
export const RESUME_TICKET_MS = 110_000;

interface ResumeTicket {
  readonly value: string;
  readonly until: number;
}

/** Keeps the resume ticket, and asks for fresh credentials without one. */
export class Credentials {
  #address = "";
  #ticket: ResumeTicket | null = null;
  #offered: ResumeTicket | null = null;

  constructor(
    private readonly access: Access,
    private readonly now: () => number,
  ) {}

  /** A ticket for the connection after this one. */
  keep(ticket: string | undefined): void {
    if (ticket) this.#ticket = { value: ticket, until: this.now() + RESUME_TICKET_MS };
  }

  /** The ticket last offered has opened nothing, and may again. */
  putBack(): void {
    this.#ticket ??= this.#offered;
  }

  /** Only fresh credentials will do. */
  drop(): void {
    this.#ticket = null;
    this.#offered = null;
  }

  /**
   * The next opening.
   *
   * @param since The last message applied, to go on from.
   * @throws AccessRefused The issuer has said so, or its address cannot be used.
   */
  async next(since: Place | null): Promise<Opening> {
    const ticket = this.#ticket;
    // Single-use: whatever comes of the connection, it is spent unless it is put back.
    this.drop();
    if (ticket && this.now() < ticket.until) {
      this.#offered = ticket;
      const url = parsed(this.#address);
      url.searchParams.set("ticket", ticket.value);
      return opening(url, since, null);
    }
    if ("assign" in this.access) {
      return opening(this.#remembered((await this.access.assign()).websocket_url), since, null);
    }
    const address = this.#remembered(await this.access.address());
    const token = await this.access.getToken();
    return opening(address, since, JSON.stringify({ type: "auth", token }));
  }

  #remembered(address: string): URL {
    const url = parsed(address);
    this.#address = url.origin + url.pathname;
    return url;
  }
}

function parsed(address: string): URL {
  try {
    return new URL(address);
  } catch {
    // The parser's own error holds the address, and with it the ticket.
    throw new AccessRefused("The stream's address cannot be used.", { code: "BAD_ADDRESS" });
  }
}

function opening(url: URL, since: Place | null, first: string | null): Opening {
  if (since) url.searchParams.set("since", `${since.epoch}:${since.seq}`);
  const accountId = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf("/") + 1));
  return { url: url.href, accountId, first };
}
