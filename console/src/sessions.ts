/** The sessions that this tab started: one for each instance at most, with leases that are renewed while the tab lives. */

import { signal } from "@preact/signals";
import { disconnect, heartbeat, LEASE_SECONDS, Refusal } from "./api";

const KEY = "avatar-console-sessions";

function stored(): Record<string, string> {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Record<string, string>;
  } catch {
    return {};
  }
}

/** Names of sessions (avatar_id) by instance. */
export const held = signal<Record<string, string>>(stored());

function write(next: Record<string, string>): void {
  held.value = next;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    // They run out by themselves.
  }
}

/** A name for a new session. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(4));
  return `console-${[...bytes].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

export function hold(instance: string, avatarId: string): void {
  write({ ...held.value, [instance]: avatarId });
}

function forget(instance: string): void {
  const { [instance]: _, ...rest } = held.value;
  write(rest);
}

/** End a session with an instance. */
export async function leave(instance: string, avatarId: string, keepalive = false): Promise<void> {
  if (held.value[instance] === avatarId) forget(instance);
  await disconnect(avatarId, keepalive);
}

export function keepAlive(): void {
  setInterval(() => {
    for (const [instance, avatarId] of Object.entries(held.value)) {
      heartbeat(avatarId).catch((error: unknown) => {
        // It has ended; whoever talks again starts it again.
        if (error instanceof Refusal && error.code === 404) forget(instance);
      });
    }
  }, (LEASE_SECONDS * 1000) / 3);
}
