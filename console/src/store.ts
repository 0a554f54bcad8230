/** What the page knows, and how it comes to know it: one stream for all views. */

import { computed, signal } from "@preact/signals";
import { headers, keep, token } from "./account";
import { BASE } from "./api";
import { backoff } from "./backoff";
import { at } from "./format";
import { applied, nothing, type Change, type Hello, type Scene } from "./model";
import { SseParser } from "./sse";

export type Link =
  | "connecting" // for the first time
  | "live"
  | "stale" // what is shown was true once
  | "login" // a token is needed
  | "entering" // one was given, and nobody has said yet whether it is good
  | "refused"; // the token is good, and its role is not enough

export const link = signal<Link>("connecting");
const EMPTY = nothing();
export const scene = signal<Scene>(EMPTY);
export const hello = signal<Hello | null>(null);
/** Why the last try failed, for people. */
export const problem = signal("");
/** When the API was heard of last, by this machine's clock. */
export const heard = signal(0);
/** What the API says of its own sources; empty = they are up to date. */
export const trouble = signal("");
/** The API's clock, once a second. */
export const now = signal(Date.now());

export const role = computed(() => hello.value?.role);
export const stale = computed(() => link.value === "stale" || trouble.value !== "");

// A break shorter than this is nobody's business (milliseconds).
const GRACE = 4000;
let skew = 0;
let failures = 0;
let stream: AbortController | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

setInterval(() => {
  now.value = Date.now() + skew;
  if (link.value === "live" && Date.now() - heard.value > silence()) link.value = "stale";
}, 1000);

function silence(): number {
  return 1000 * (hello.value?.beat_seconds ?? 5) * 2 + GRACE;
}

/** Connect, or connect anew at once. */
export function connect(): void {
  clearTimeout(timer);
  stream?.abort();
  stream = new AbortController();
  void follow(stream);
}

export function signIn(value: string): void {
  keep(value);
  failures = 0;
  problem.value = "";
  link.value = "entering";
  connect();
}

export function signOut(): void {
  keep("");
  stream?.abort();
  clearTimeout(timer);
  scene.value = EMPTY;
  hello.value = null;
  problem.value = "";
  link.value = "login";
}

async function follow(mine: AbortController): Promise<void> {
  // A half-open connection never ends by itself.
  let dog: ReturnType<typeof setTimeout> | undefined;
  const feed = () => {
    clearTimeout(dog);
    dog = setTimeout(() => mine.abort(), silence());
  };
  let retry: number | null = null;
  try {
    feed();
    const answer = await fetch(new URL("console/live", BASE), {
      headers: { ...headers(), Accept: "text/event-stream" },
      cache: "no-store",
      credentials: "omit",
      signal: mine.signal,
    });
    if (!answer.ok || !answer.body) {
      retry = Number(answer.headers.get("Retry-After")) || null;
      const message = await answer.json().then((body: { message?: string }) => body.message, () => undefined);
      if (answer.status === 401) return demand(message);
      if (answer.status === 403) return refuse(message);
      throw new Error(message ?? `the API answered ${answer.status}`);
    }
    await read(answer.body, feed);
    // The API ends a stream now and then; that is no failure.
    failures = Date.now() - heard.value < 2000 ? 0 : failures + 1;
    problem.value = "the stream ended";
  } catch (error) {
    if (stream !== mine) return;
    failures += 1;
    problem.value = mine.signal.aborted
      ? "the API has not been heard of for a while"
      : error instanceof TypeError
        ? "the API cannot be reached"
        : String((error as Error).message);
  } finally {
    clearTimeout(dog);
  }
  if (stream !== mine) return;
  mine.abort();
  if (failures > 1 || Date.now() - heard.value > GRACE) link.value = scene.value === EMPTY ? "connecting" : "stale";
  const seconds = Math.max(failures ? backoff(failures, Math.random()) : Math.random(), retry ?? 0);
  timer = setTimeout(connect, Math.min(seconds, 60) * 1000);
}

async function read(body: ReadableStream<Uint8Array>, fed: () => void): Promise<void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    fed();
    for (const message of parser.push(decoder.decode(value, { stream: true }))) take(message.event, message.data);
  }
}

function take(event: string, data: string): void {
  heard.value = Date.now();
  if (event === "hello") {
    hello.value = JSON.parse(data) as Hello;
    return;
  }
  if (event !== "snapshot" && event !== "change") return;
  const change = JSON.parse(data) as Change;
  const server = at(change.now);
  if (server !== null) skew = server - Date.now();
  trouble.value = change.trouble;
  scene.value = applied(scene.value, change, event === "snapshot");
  failures = 0;
  problem.value = "";
  link.value = "live";
}

function demand(message: string | undefined): void {
  problem.value = token.value ? (message ?? "the token is not valid") : "";
  if (token.value) keep("");
  link.value = "login";
}

function refuse(message: string | undefined): void {
  problem.value = message ?? "the role of this token is not enough";
  link.value = "refused";
}

export function begin(): void {
  addEventListener("online", () => link.value === "stale" && connect());
  document.addEventListener("visibilitychange", () => {
    // Timers of hidden pages sleep; what is looked at must be true at once.
    if (!document.hidden && link.value === "stale") connect();
  });
  connect();
}
