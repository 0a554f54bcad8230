/** Who is signed in: a token, which lives as long as the tab and is written nowhere else. */

import { signal } from "@preact/signals";

const KEY = "avatar-console-token";

function stored(): string {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export const token = signal(stored());

export function keep(value: string): void {
  token.value = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing: the token lives until the page is loaded anew.
  }
}

/** What somebody pasted, without what often comes along. */
export function tidied(pasted: string): string {
  return pasted.trim().replace(/^(authorization:\s*)?bearer\s+/i, "").replace(/^["']|["']$/g, "").trim();
}

/** Seconds since the epoch at which a JWT ends; null: it does not say, or is none. */
export function endOf(jwt: string): number | null {
  const part = jwt.split(".")[1];
  if (!part) return null;
  try {
    const claims = JSON.parse(atob(part.replace(/-/g, "+").replace(/_/g, "/"))) as { exp?: unknown };
    return typeof claims.exp === "number" ? claims.exp : null;
  } catch {
    return null;
  }
}

export function headers(): Record<string, string> {
  return token.value ? { Authorization: `Bearer ${token.value}` } : {};
}
