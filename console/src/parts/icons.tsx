/** Drawn on 20 by 20, in the colour of the text. They say nothing that words beside them do not. */

import type { ComponentChildren } from "preact";

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const OverviewIcon = () => (
  <Icon>
    <rect x="3" y="3" width="6" height="6" rx="1.5" />
    <rect x="11" y="3" width="6" height="6" rx="1.5" />
    <rect x="3" y="11" width="6" height="6" rx="1.5" />
    <rect x="11" y="11" width="6" height="6" rx="1.5" />
  </Icon>
);
export const GpuIcon = () => (
  <Icon>
    <rect x="5" y="5" width="10" height="10" rx="1.5" />
    <path d="M8 2.5V5M12 2.5V5M8 15v2.5M12 15v2.5M2.5 8H5M2.5 12H5M15 8h2.5M15 12h2.5" />
  </Icon>
);
export const EngineIcon = () => (
  <Icon>
    <path d="M3 8v4M6.5 5.5v9M10 3v14M13.5 6.5v7M17 8.5v3" />
  </Icon>
);
export const EventIcon = () => (
  <Icon>
    <path d="M3 5h1.5M3 10h1.5M3 15h1.5M8 5h9M8 10h9M8 15h6" />
  </Icon>
);
export const PlusIcon = () => (
  <Icon>
    <path d="M10 4v12M4 10h12" />
  </Icon>
);
export const StopIcon = () => (
  <Icon>
    <rect x="5" y="5" width="10" height="10" rx="1.5" />
  </Icon>
);
export const RestartIcon = () => (
  <Icon>
    <path d="M15.5 8A6 6 0 1 0 16 11.5M16 4v4h-4" />
  </Icon>
);
export const TalkIcon = () => (
  <Icon>
    <path d="M4 4.5h12a1 1 0 0 1 1 1V13a1 1 0 0 1-1 1H9.5L6 17v-3H4a1 1 0 0 1-1-1V5.5a1 1 0 0 1 1-1Z" />
  </Icon>
);
export const MicIcon = () => (
  <Icon>
    <rect x="7.5" y="2.5" width="5" height="9" rx="2.5" />
    <path d="M4.5 9.5a5.5 5.5 0 0 0 11 0M10 15v2.5" />
  </Icon>
);
export const HandIcon = () => (
  <Icon>
    <circle cx="10" cy="10" r="7" />
    <path d="M5.2 5.2l9.6 9.6" />
  </Icon>
);
export const BackIcon = () => (
  <Icon>
    <path d="M12 4l-6 6 6 6" />
  </Icon>
);
export const SoundIcon = () => (
  <Icon>
    <path d="M3 8v4h3l4 3.5v-11L6 8H3ZM13 7.5a3.5 3.5 0 0 1 0 5M15.3 5a7 7 0 0 1 0 10" />
  </Icon>
);
export const MuteIcon = () => (
  <Icon>
    <path d="M3 8v4h3l4 3.5v-11L6 8H3ZM13 8l4 4M17 8l-4 4" />
  </Icon>
);
export const Mark = () => (
  <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
    <rect width="32" height="32" rx="9" class="mark-ground" />
    <circle cx="16" cy="12" r="5" class="mark-head" />
    <path d="M7 26c1-5.5 4.6-8 9-8s8 2.5 9 8" class="mark-body" />
  </svg>
);
