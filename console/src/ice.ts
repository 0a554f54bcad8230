/** Why no picture comes, and what to do about it, by the network mode of the pool. Pure. */

import type { Instance, Pool } from "./model";

export interface Explanation {
  title: string;
  cause: string;
  remedies: string[];
}

/** The addresses that an SDP offers: `192.0.2.1:50000 udp host`. */
export function candidates(sdp: string): string[] {
  const found: string[] = [];
  for (const line of sdp.split(/\r?\n/)) {
    const match = /^a=candidate:\S+ 1 (\S+) \d+ (\S+) (\d+) typ (\S+)/.exec(line);
    if (match) found.push(`${match[2]}:${match[3]} ${match[1]?.toLowerCase()} ${match[4]}`);
  }
  return [...new Set(found)];
}

/** `offered`: the avatar's candidates in its answer. */
export function explain(item: Instance, pool: Pool | undefined, offered: string[]): Explanation {
  const media = item.media;
  const mode = media?.mode || pool?.network || "";
  const node = item.node ? `node ${item.node}` : "its node";
  const tried = offered.length ? ` It offered ${list(offered)}.` : " It offered no address at all.";
  const told = media?.message && media.reachable !== "True" ? ` The operator's own test: ${media.message}` : "";
  const turn = "Or give the pool a TURN server (network.iceServers, network.turnSecretRef): it works through any NAT.";
  const title = "The avatar answered, but no media came through";
  switch (mode) {
    case "HostNetwork":
      return {
        title,
        cause: `Sound and picture come by UDP straight from ${node}, and your network did not let them through.${tried}${told}`,
        remedies: [
          `Let UDP to ${node} through (firewall or security group; any port above 32767).`,
          "Behind a 1:1 NAT, as in most clouds, set the pool's network.externalHost to its public address.",
          turn,
        ],
      };
    case "HostPort":
      return {
        title,
        cause: `Sound and picture come through a window of UDP ports${media?.ports ? ` (${media.ports})` : ""} on ${node}.${tried}${told}`,
        remedies: [
          `Let UDP to ${node}${media?.ports ? `, ports ${media.ports},` : ""} through (firewall or security group).`,
          "Behind a 1:1 NAT set the pool's network.externalHost to its public address.",
          turn,
        ],
      };
    case "Relay":
      return {
        title,
        cause: `Sound and picture go through a TURN server, which your browser or the avatar could not use.${tried}${told}`,
        remedies: [
          "See that the TURN server in the pool's network.iceServers answers: UDP and TCP 3478, or TLS on 443.",
          "Its shared secret must be the one that network.turnSecretRef names; credentials are made anew for each call.",
          "The cluster's network policies must let the avatar's pods reach it, too.",
        ],
      };
    case "Pod":
      return {
        title,
        cause: `The pool is in mode Pod: media comes from the pod's own address, which only machines with a route to it can reach.${tried}${told}`,
        remedies: [
          "From outside the cluster choose network.mode HostNetwork or HostPort in the pool.",
          turn,
          "Where pods are meant to be routable, see that UDP is let through.",
        ],
      };
    default:
      return {
        title,
        cause: `Nothing is known of how this pool sends media.${tried}${told}`,
        remedies: ["See `kubectl describe avi` of this instance and the pool's network.mode.", turn],
      };
  }
}

function list(items: string[]): string {
  const shown = items.slice(0, 3).join(", ");
  return items.length > 3 ? `${shown} and ${items.length - 3} more` : shown;
}

/** What a mode means for those who look, in a line. */
export function modeInWords(mode: string): string {
  switch (mode) {
    case "HostNetwork":
      return "UDP straight from the node, any high port";
    case "HostPort":
      return "UDP through a window of ports on the node";
    case "Relay":
      return "through a TURN server";
    case "Pod":
      return "UDP from the pod's own address";
    default:
      return mode ? "" : "not known";
  }
}
