/** What the API tells: as operator/avatar_operator/api/scenes.py has it. Times are ISO 8601, memory is in MiB. */

export interface Where {
  node: string;
  index: number | null;
  uuid: string;
  reserved: number;
}

export interface Fact {
  type: string;
  status: string;
  reason: string;
  message: string;
  since: string | null;
}

export interface Media {
  mode: string;
  candidates: string[];
  ports: string;
  reachable: string;
  message: string;
}

export interface Instance {
  name: string;
  avatar: string;
  avatar_id: string;
  pool: string;
  phase: string;
  reason: string;
  message: string;
  serves: boolean;
  port: number | null;
  url: string | null;
  node: string | null;
  pod: string | null;
  gpu: Where | null;
  connections: number;
  observed: number | null;
  max_sessions: number | null;
  idle_deadline: string | null;
  idle_action: string;
  drain_deadline: string | null;
  retry_time: string | null;
  created: string | null;
  ready: string | null;
  restarts: number;
  ended: { time: string | null; reason: string; message: string; exit_code: number | null } | null;
  shared_with: string | null;
  queue_position: number | null;
  engine: string;
  voice: string;
  model: string;
  transport: string;
  media: Media | null;
  conditions: Fact[];
}

export interface Port {
  port: number;
  state: string;
  instance: string;
}

export interface Pool {
  name: string;
  first_port: number;
  last_port: number;
  capacity: number;
  used: number | null;
  free: number | null;
  ports: Port[];
  queue: number;
  queue_most: number;
  network: string;
  gpu: string;
  idle_seconds: number;
  idle_action: string;
  turn: boolean;
  ready: Fact | null;
}

export interface Avatar {
  name: string;
  avatar: string;
  model: string;
  engine: string;
  voice: string;
  max_sessions: number | null;
  keep_warm: boolean;
}

export interface Memory {
  total: number;
  used: number;
  reserved: number;
  external: number;
  free: number;
}

export interface Gpu {
  node: string;
  index: number;
  uuid: string;
  product: string;
  healthy: boolean;
  memory: Memory | null;
  utilization: number | null;
  temperature: number | null;
  power: number | null;
  power_limit: number | null;
  cordoned: boolean;
  alerts: { type: string; message: string; since: string | null }[];
  reported: string | null;
  stale: string | null;
}

export interface Engine {
  name: string;
  phase: string;
  reason: string;
  message: string;
  protocol: string;
  users: number;
  replicas: number;
  ready: number;
  most: number;
  fallback: string | null;
  gpu: Where | null;
  idle_deadline: string | null;
  created: string | null;
}

export interface Happening {
  at: string | null;
  type: string;
  reason: string;
  message: string;
  kind: string;
  name: string;
  count: number;
  /** Of two in the same second the greater came later. */
  order: number;
}

/** Everything, by section and key. */
export interface Scene {
  instances: Record<string, Instance>;
  pools: Record<string, Pool>;
  avatars: Record<string, Avatar>;
  gpus: Record<string, Gpu>;
  engines: Record<string, Engine>;
  events: Record<string, Happening>;
}

export interface Hello {
  version: string;
  namespace: string;
  pool: string;
  subject: string;
  role: Role;
  open: boolean;
  beat_seconds: number;
}

export interface Change {
  now: string;
  trouble: string;
  set: Partial<{ [S in keyof Scene]: Scene[S] }>;
  gone: Partial<Record<keyof Scene, string[]>>;
}

export type Role = "viewer" | "user" | "admin";
const RANK: Record<Role, number> = { viewer: 1, user: 2, admin: 3 };

/** Whether a role is enough where `least` is asked for. */
export function may(role: Role | undefined, least: Role): boolean {
  return role !== undefined && RANK[role] >= RANK[least];
}

export const SECTIONS = ["instances", "pools", "avatars", "gpus", "engines", "events"] as const;

export function nothing(): Scene {
  return { instances: {}, pools: {}, avatars: {}, gpus: {}, engines: {}, events: {} };
}

/** The scene after a change; sections that did not change are the same objects. `whole`: whatever was before is void. */
export function applied(before: Scene, change: Change, whole: boolean): Scene {
  const after: Scene = whole ? nothing() : { ...before };
  for (const section of SECTIONS) {
    const set = change.set[section];
    const gone = change.gone[section];
    if (!set && !gone) continue;
    const items: Record<string, unknown> = { ...after[section], ...set };
    for (const key of gone ?? []) delete items[key];
    (after as unknown as Record<string, unknown>)[section] = items;
  }
  return after;
}

const ATTENTION = ["Failed", "Draining", "Starting", "Running", "Shared", "Stopped"];

/** Who needs attention comes first, then who is used most. */
export function byAttention(a: Instance, b: Instance): number {
  const rank = (item: Instance) => {
    const found = ATTENTION.indexOf(item.phase);
    return found < 0 ? ATTENTION.length : found;
  };
  return (
    rank(a) - rank(b) ||
    b.connections - a.connections ||
    a.avatar.localeCompare(b.avatar) ||
    a.name.localeCompare(b.name)
  );
}

/** Whether an instance waits for a place. */
export function waits(item: Instance): boolean {
  return item.phase === "Pending";
}

/** Instances that match what was typed and the phase that was chosen ("" = all). */
export function filtered(items: Instance[], typed: string, phase: string): Instance[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  return items.filter((item) => {
    if (phase && item.phase !== phase) return false;
    const text = [item.avatar, item.name, item.avatar_id, item.pool, item.node ?? "", String(item.port ?? "")]
      .join(" ")
      .toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
