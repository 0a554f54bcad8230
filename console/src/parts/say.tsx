import { signal } from "@preact/signals";

/** The outcome of what somebody did, seen at the foot of the page and heard by those who do not see it. */
const message = signal<{ text: string; bad: boolean } | null>(null);
let timer: ReturnType<typeof setTimeout> | undefined;

export function say(text: string, bad = false): void {
  message.value = { text, bad };
  clearTimeout(timer);
  timer = setTimeout(() => (message.value = null), bad ? 12_000 : 6000);
}

export function Sayings() {
  const told = message.value;
  return (
    <div class="sayings" role="status" aria-live="polite">
      {told ? (
        <p class={told.bad ? "saying bad" : "saying"}>
          {told.text}
          <button type="button" class="plain" onClick={() => (message.value = null)}>
            Dismiss
          </button>
        </p>
      ) : null}
    </div>
  );
}
