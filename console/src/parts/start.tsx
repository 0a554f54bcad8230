/** The form that starts an avatar. */

import { useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import * as api from "../api";
import { go, pathTo } from "../route";
import { hold, newId } from "../sessions";
import { hello, scene } from "../store";
import { Dialog } from "./dialog";
import { say } from "./say";

export function StartDialog({ onClose }: { onClose: () => void }) {
  const ids = { avatar: useId(), pool: useId(), session: useId(), hint: useId() };
  const avatars = Object.values(scene.value.avatars).sort((a, b) => a.avatar.localeCompare(b.avatar));
  const pools = Object.values(scene.value.pools).sort((a, b) => a.name.localeCompare(b.name));
  const avatar = useSignal(avatars[0]?.avatar ?? "");
  const pool = useSignal(hello.value?.pool ?? "default");
  const session = useSignal(newId());
  const busy = useSignal(false);
  const problem = useSignal("");

  const chosen = avatars.find((one) => one.avatar === avatar.value);
  const running = Object.values(scene.value.instances).find(
    (one) => one.avatar === avatar.value && one.pool === pool.value && !one.shared_with,
  );
  const place = scene.value.pools[pool.value];
  const full = place !== undefined && !running && (place.free ?? 1) <= 0;

  if (!avatars.length) {
    return (
      <Dialog title="Start an avatar" onClose={onClose}>
        <p>No avatar is known in this namespace. An Avatar resource makes one known:</p>
        <pre>kubectl apply -f manifests/samples/avatar-ada.yaml</pre>
        <div class="buttons">
          <button type="button" class="primary" onClick={onClose}>
            Close
          </button>
        </div>
      </Dialog>
    );
  }

  const submit = async (event: Event) => {
    event.preventDefault();
    if (!session.value.trim()) {
      problem.value = "Give the session a name.";
      return;
    }
    busy.value = true;
    problem.value = "";
    try {
      const started = await api.start(avatar.value, session.value.trim(), pool.value, false);
      hold(started.instance, started.avatar_id);
      say(started.phase === "Running" ? `You joined ${avatar.value}.` : `${avatar.value} is starting.`);
      onClose();
      go(pathTo(started.instance));
    } catch (error) {
      problem.value = api.told(error);
      busy.value = false;
    }
  };

  return (
    <Dialog title="Start an avatar" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <label for={ids.avatar}>Avatar</label>
        <select id={ids.avatar} value={avatar.value} onChange={(event) => (avatar.value = event.currentTarget.value)}>
          {avatars.map((one) => (
            <option key={one.name} value={one.avatar}>
              {one.avatar}
            </option>
          ))}
        </select>
        {chosen ? (
          <dl class="facts inset">
            <dt>Voice</dt>
            <dd>{chosen.voice || "the pool's"}</dd>
            <dt>Speech engine</dt>
            <dd>{chosen.engine || "the pool's"}</dd>
            <dt>Model</dt>
            <dd>{chosen.model || "the pool's"}</dd>
          </dl>
        ) : null}
        {pools.length > 1 ? (
          <>
            <label for={ids.pool}>Pool</label>
            <select id={ids.pool} value={pool.value} onChange={(event) => (pool.value = event.currentTarget.value)}>
              {pools.map((one) => (
                <option key={one.name} value={one.name}>
                  {one.name}
                </option>
              ))}
            </select>
          </>
        ) : null}
        <label for={ids.session}>Session name</label>
        <input
          id={ids.session}
          value={session.value}
          maxLength={128}
          autocomplete="off"
          spellcheck={false}
          aria-describedby={ids.hint}
          onInput={(event) => (session.value = event.currentTarget.value)}
        />
        <p class="hint" id={ids.hint}>
          The avatar_id by which it is counted. It ends a minute after you close this tab.
        </p>
        <p class="consequence">
          {running
            ? `${avatar.value} is there already (${running.phase}): you join it.`
            : full
              ? `Pool ${pool.value} is full: it waits in the queue until a place is free.`
              : "It gets a pod of its own as soon as it can."}
        </p>
        {problem.value ? (
          <p class="error" role="alert">
            {problem.value}
          </p>
        ) : null}
        <div class="buttons">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={busy.value}>
            {busy.value ? "Starting…" : running ? "Join" : "Start"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
