/** Stop and restart, each with a question first that says who is connected. */

import { useSignal } from "@preact/signals";
import * as api from "../api";
import { counted } from "../format";
import { may, type Instance } from "../model";
import { role, scene, stale } from "../store";
import { Dialog } from "./dialog";
import { RestartIcon, StopIcon } from "./icons";
import { say } from "./say";

export type Deed = "stop" | "restart";

/** Why somebody may not; empty: they may. */
export function refused(least: "user" | "admin"): string {
  if (!may(role.value, least)) return `Needs the role ${least}; yours is ${role.value ?? "not known"}.`;
  return "";
}

export function Actions({ item, compact = false }: { item: Instance; compact?: boolean }) {
  const asking = useSignal<Deed | null>(null);
  const why = refused("admin");
  if (why && compact) return null;
  const common = { type: "button" as const, disabled: why !== "" };
  return (
    <>
      <button {...common} class={compact ? "quiet" : ""} title={compact ? "Restart" : undefined} onClick={() => (asking.value = "restart")} disabled={why !== "" || !item.pod}>
        <RestartIcon />
        <span class={compact ? "sr" : ""}>Restart</span>
        <span class="sr"> {item.avatar}</span>
      </button>
      <button {...common} class={compact ? "quiet" : "danger-line"} title={compact ? "Stop" : undefined} onClick={() => (asking.value = "stop")}>
        <StopIcon />
        <span class={compact ? "sr" : ""}>Stop</span>
        <span class="sr"> {item.avatar}</span>
      </button>
      {why ? <p class="why">Stop and restart: {why.charAt(0).toLowerCase() + why.slice(1)}</p> : null}
      {asking.value ? <Confirm deed={asking.value} name={item.name} onClose={() => (asking.value = null)} /> : null}
    </>
  );
}

function Confirm({ deed, name, onClose }: { deed: Deed; name: string; onClose: () => void }) {
  const busy = useSignal(false);
  const problem = useSignal("");
  const item = scene.value.instances[name];
  if (!item) {
    return (
      <Dialog title="It is gone already" onClose={onClose}>
        <p>Somebody stopped this instance, or it was collected.</p>
        <div class="buttons">
          <button type="button" class="primary" onClick={onClose}>
            Close
          </button>
        </div>
      </Dialog>
    );
  }
  const people = Math.max(item.connections, item.observed ?? 0);
  const sharing = Object.values(scene.value.instances).filter((other) => other.shared_with === name);
  const verb = deed === "stop" ? "Stop" : "Restart";
  const act = async () => {
    busy.value = true;
    problem.value = "";
    try {
      // Nobody was there: then nobody who came meanwhile is cut off either.
      if (deed === "stop") await api.stop(name, people > 0);
      else await api.restart(name);
      say(deed === "stop" ? `${item.avatar} is being stopped.` : `${item.avatar} restarts.`);
      onClose();
    } catch (error) {
      problem.value = api.told(error);
      busy.value = false;
    }
  };
  return (
    <Dialog title={`${verb} ${item.avatar}?`} onClose={onClose}>
      <p class={people ? "consequence bad" : "consequence"}>
        {people ? (
          <>
            <strong>{people === 1 ? "1 person is connected" : `${people} people are connected`}</strong>
            {deed === "stop" ? " and will be cut off." : ". They lose picture and sound until the new pod serves; their sessions stay counted."}
          </>
        ) : deed === "stop" ? (
          "Nobody is connected. If somebody joins before you confirm, nothing is stopped."
        ) : (
          "Nobody is connected. Its pod is replaced by a new one."
        )}
      </p>
      {deed === "stop" && sharing.length ? (
        <p>
          {counted(sharing.length, "instance")} of the same avatar take{sharing.length === 1 ? "s" : ""} the running pod over.
        </p>
      ) : null}
      <dl class="facts">
        <dt>Instance</dt>
        <dd>{item.name}</dd>
        <dt>Port</dt>
        <dd class="num">{item.port ?? "–"}</dd>
      </dl>
      {stale.value ? <p class="consequence">What you see is out of date; the number may be another by now.</p> : null}
      {problem.value ? (
        <p class="error" role="alert">
          {problem.value}
        </p>
      ) : null}
      <div class="buttons">
        <button type="button" onClick={onClose}>
          Keep it
        </button>
        <button type="button" class={deed === "stop" ? "danger" : "primary"} disabled={busy.value} onClick={() => void act()}>
          {busy.value ? `${verb === "Stop" ? "Stopping" : "Restarting"}…` : people && deed === "stop" ? `Stop and cut off ${people}` : verb}
        </button>
      </div>
    </Dialog>
  );
}
