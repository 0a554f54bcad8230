import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

let first = true;

/** The heading of a view. Whoever comes to it by a link finds the focus there, and the window's title changed. */
export function Title({ name, action, above }: { name: string; action?: ComponentChildren; above?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    document.title = `${name} · Avatars`;
    if (!first) heading.current?.focus();
    first = false;
  }, [name]);
  return (
    <header class="title">
      <div>
        {above}
        <h1 key={name} ref={heading} tabIndex={-1}>
          {name}
        </h1>
      </div>
      {action ? <div class="title-actions">{action}</div> : null}
    </header>
  );
}
