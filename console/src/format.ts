/** Times and sizes as people read them. Pure: the time is passed in, in milliseconds since the epoch. */

/** A duration as kubectl shows ages: 95s, 12m, 5h, 3d; never negative. */
export function span(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 120 * 60) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

/** The same in words, for those who hear it. */
export function spoken(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const units: [number, string][] = [
    [86400, "day"],
    [3600, "hour"],
    [60, "minute"],
    [1, "second"],
  ];
  for (const [length, name] of units) {
    if (seconds >= length || length === 1) return counted(Math.floor(seconds / length), name);
  }
  return "";
}

/** A countdown: 29:05, 1:02:03; "now" when it is over. */
export function countdown(ms: number): string {
  if (ms <= 0) return "now";
  const seconds = Math.ceil(ms / 1000);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), seconds % 60];
  if (h >= 48) return `${Math.floor(h / 24)}d`;
  const two = (n: number) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export function at(text: string | null): number | null {
  const found = text ? Date.parse(text) : NaN;
  return Number.isNaN(found) ? null : found;
}

/** `1 person`, `2 people`. */
export function counted(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

/** MiB as GiB with one decimal. */
export function gib(mib: number): string {
  return (mib / 1024).toFixed(1);
}

/** A number of milliseconds as a person would say it. */
export function millis(ms: number | null): string {
  if (ms === null || !Number.isFinite(ms)) return "–";
  return Math.abs(ms) >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`;
}

/** The clock of a moment in the viewer's own time. */
export function clock(ms: number, now: number): string {
  const [then, today] = [new Date(ms), new Date(now)];
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  if (then.toDateString() === today.toDateString()) return time;
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}
