/** The API's routes. Every call ends: with its data, or with a Refusal that says what to do. */

import { headers } from "./account";

// The page is at …/console/, the API one level above it.
export const BASE = new URL("..", new URL(".", document.baseURI));

export class Refusal extends Error {
  constructor(
    readonly code: number,
    message: string,
    /** Seconds, as Retry-After says; null: it does not. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

export interface Call {
  method?: "GET" | "POST";
  body?: unknown;
  form?: FormData;
  headers?: Record<string, string>;
  /** Milliseconds; a start may take as long as an avatar does. */
  timeout?: number;
  signal?: AbortSignal;
  keepalive?: boolean;
}

export async function call<T>(path: string, options: Call = {}): Promise<T> {
  const aborts = [AbortSignal.timeout(options.timeout ?? 15_000), ...(options.signal ? [options.signal] : [])];
  const json = options.body === undefined ? {} : { "Content-Type": "application/json" };
  let answer: Response;
  try {
    answer = await fetch(new URL(path, BASE), {
      method: options.method ?? (options.body === undefined && !options.form ? "GET" : "POST"),
      headers: { ...headers(), ...json, ...options.headers },
      body: options.form ?? (options.body === undefined ? null : JSON.stringify(options.body)),
      cache: "no-store",
      credentials: "omit",
      keepalive: options.keepalive ?? false,
      signal: AbortSignal.any ? AbortSignal.any(aborts) : (aborts[0] as AbortSignal),
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const late = error instanceof DOMException && error.name === "TimeoutError";
    throw new Refusal(0, late ? "The API did not answer in time." : "The API cannot be reached.");
  }
  const text = await answer.text();
  let data: unknown = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    // A proxy's own page: the code says enough.
  }
  if (!answer.ok) {
    const told = (data as { message?: unknown } | null)?.message;
    const after = Number(answer.headers.get("Retry-After"));
    const message = typeof told === "string" ? sentence(told) : `The API answered ${answer.status}.`;
    throw new Refusal(answer.status, message, after > 0 ? after : null);
  }
  return data as T;
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** What to show for whatever was thrown. */
export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export interface Started {
  avatar_id: string;
  instance: string;
  real_avatar_name: string;
  phase: string;
  connections: number;
  ice_servers?: RTCIceServer[];
  expires: string | null;
}

/** Seconds that a session of this page outlives it at most. */
export const LEASE_SECONDS = 60;

interface Data<T> {
  data: T;
}

export async function start(avatar: string, avatarId: string, pool: string, wait: boolean): Promise<Started> {
  const body = { avatar_name: avatar, avatar_id: avatarId, pool, ttl_seconds: LEASE_SECONDS };
  const prefer: Record<string, string> = wait ? {} : { Prefer: "respond-async" };
  return (await call<Data<Started>>("avatar/start", { body, headers: prefer, timeout: 60_000 })).data;
}

export async function disconnect(avatarId: string, keepalive = false): Promise<void> {
  await call("avatar/disconnect", { body: { avatar_id: avatarId }, keepalive });
}

export async function heartbeat(avatarId: string): Promise<void> {
  await call("avatar/heartbeat", { body: { avatar_id: avatarId } });
}

export async function stop(instance: string, force: boolean): Promise<void> {
  await call("avatar/stop", { body: { avatar_id: instance, force } });
}

export async function restart(instance: string): Promise<void> {
  // What becomes of it is seen live.
  await call("avatar/restart", { body: { avatar_id: instance, wait_seconds: 0 } }).catch((error: unknown) => {
    if (!(error instanceof Refusal) || error.code !== 503) throw error;
  });
}

export interface SessionView {
  avatar_id: string;
  user: string | null;
  since: string | null;
  expires: string | null;
}

export async function sessions(instance: string, signal: AbortSignal): Promise<SessionView[]> {
  const path = `avatar/info/${encodeURIComponent(instance)}`;
  return (await call<Data<{ sessions: SessionView[] | null }>>(path, { signal })).data.sessions ?? [];
}

/** What a connection to a running instance needs before it makes its offer. */
export async function iceServers(instance: string): Promise<RTCIceServer[]> {
  return (await call<{ ice_servers: RTCIceServer[] }>(`console/ice/${encodeURIComponent(instance)}`)).ice_servers;
}

export interface Answer {
  sdp: string;
  type: RTCSdpType;
  sessionid: string;
  avatar_id: string;
  ice_servers?: RTCIceServer[];
}

function to(instance: string, what: string): string {
  return `avatar/${encodeURIComponent(instance)}/${what}`;
}

export async function offer(instance: string, sdp: string, avatarId: string, signal: AbortSignal): Promise<Answer> {
  const body = { sdp, type: "offer", avatar_id: avatarId };
  return call<Answer>(to(instance, "offer"), { body, timeout: 30_000, signal });
}

export async function human(instance: string, sessionid: string, text: string, kind: "echo" | "chat"): Promise<void> {
  await call(to(instance, "human"), { body: { sessionid, text, type: kind, interrupt: false } });
}

export async function interrupt(instance: string, sessionid: string): Promise<void> {
  await call(to(instance, "interrupt_talk"), { body: { sessionid } });
}

export async function audio(instance: string, sessionid: string, file: Blob): Promise<void> {
  const form = new FormData();
  form.set("sessionid", sessionid);
  form.set("file", file, "speech.wav");
  await call(to(instance, "humanaudio"), { form, timeout: 30_000 });
}
