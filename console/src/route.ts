/** Which view: by the part of the address after #, so that the server needs to know none of them. */

import { signal } from "@preact/signals";

export type Route =
  | { view: "overview" }
  | { view: "gpus" }
  | { view: "engines" }
  | { view: "events" }
  | { view: "avatar"; name: string }
  | { view: "unknown" };

export function parse(hash: string): Route {
  const path = hash.replace(/^#\/?/, "").replace(/\/+$/, "");
  if (path === "") return { view: "overview" };
  if (path === "gpus" || path === "engines" || path === "events") return { view: path };
  const match = /^avatars\/([^/]+)$/.exec(path);
  if (!match?.[1]) return { view: "unknown" };
  try {
    return { view: "avatar", name: decodeURIComponent(match[1]) };
  } catch {
    return { view: "unknown" };
  }
}

export function pathTo(name: string): string {
  return `#/avatars/${encodeURIComponent(name)}`;
}

export const route = signal<Route>(typeof location === "undefined" ? { view: "overview" } : parse(location.hash));

export function go(hash: string): void {
  location.hash = hash;
}

export function followAddress(): void {
  addEventListener("hashchange", () => (route.value = parse(location.hash)));
}
