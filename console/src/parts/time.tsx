import { at, clock, countdown, span, spoken } from "../format";
import { now } from "../store";

/** How long ago. */
export function Ago({ since }: { since: string | null }) {
  const then = at(since);
  if (then === null) return <span class="soft">–</span>;
  const passed = now.value - then;
  return (
    <time dateTime={since ?? ""} title={new Date(then).toLocaleString()} class="num">
      <span aria-hidden="true">{span(passed)}</span>
      <span class="sr">{spoken(passed)}</span>
    </time>
  );
}

/** How long until. */
export function Until({ time }: { time: string | null }) {
  const then = at(time);
  if (then === null) return <span class="soft">–</span>;
  const left = then - now.value;
  return (
    <time dateTime={time ?? ""} title={new Date(then).toLocaleString()} class="num">
      <span aria-hidden="true">{countdown(left)}</span>
      <span class="sr">{left > 0 ? spoken(left) : "now"}</span>
    </time>
  );
}

/** When, by the clock of who looks. */
export function Moment({ time }: { time: string | null }) {
  const then = at(time);
  if (then === null) return <span class="soft">–</span>;
  return (
    <time dateTime={time ?? ""} class="num">
      {clock(then, now.value)}
    </time>
  );
}
