import { useSignal } from "@preact/signals";
import { scene } from "../store";
import { Empty } from "../parts/empty";
import { Happenings, newestFirst } from "../parts/happenings";
import { Title } from "../parts/title";

const PAGE = 100;

export function Events() {
  const typed = useSignal("");
  const warnings = useSignal(false);
  const most = useSignal(PAGE);
  const all = newestFirst(scene.value.events);
  const words = typed.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.filter(([, item]) => {
    if (warnings.value && item.type !== "Warning") return false;
    const text = `${item.reason} ${item.kind} ${item.name} ${item.message}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return (
    <>
      <Title name="Events" />
      {all.length ? (
        <section aria-label="Events, the newest first">
          <div class="section-head">
            <div class="filters">
              <label class="sr" for="search">
                Search events
              </label>
              <input
                id="search"
                type="search"
                placeholder="Reason, name, message"
                value={typed.value}
                onInput={(event) => (typed.value = event.currentTarget.value)}
              />
              <label class="check">
                <input
                  type="checkbox"
                  checked={warnings.value}
                  onChange={(event) => (warnings.value = event.currentTarget.checked)}
                />
                Warnings only
              </label>
            </div>
            <p class="soft num">
              {found.length} of {all.length}
            </p>
          </div>
          {found.length ? (
            <Happenings items={found.slice(0, most.value)} />
          ) : (
            <Empty title="Nothing matches">
              <button
                type="button"
                onClick={() => {
                  typed.value = "";
                  warnings.value = false;
                }}
              >
                Show all
              </button>
            </Empty>
          )}
          {found.length > most.value ? (
            <button type="button" onClick={() => (most.value += PAGE)}>
              Show {Math.min(PAGE, found.length - most.value)} more
            </button>
          ) : null}
        </section>
      ) : (
        <Empty title="Nothing has happened">
          <p>
            Kubernetes keeps events for an hour or so. If avatars run and none come, the API may not be allowed to read
            them: the chart's value api.console.enabled gives it the right.
          </p>
        </Empty>
      )}
    </>
  );
}
