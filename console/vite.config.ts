import { defineConfig } from "vite";

// Addresses are relative: the API may stand behind a proxy with a path of its own.
export default defineConfig({
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    outDir: "out/bundle",
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    emptyOutDir: true,
  },
  server: { proxy: { "/avatar": "http://127.0.0.1:8607", "/console/live": "http://127.0.0.1:8607" } },
});
