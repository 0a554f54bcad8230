/** Seconds until the next try: doubling, bounded, and spread, so that a thousand pages do not come back at once. */
export function backoff(failures: number, random: number, first = 0.5, most = 20): number {
  const ceiling = Math.min(most, first * 2 ** Math.min(Math.max(0, failures - 1), 20));
  return ceiling * (0.5 + random / 2);
}
