import { readdirSync } from "node:fs";
import { defineConfig } from "vite";

// The unit tests as plain modules, for node's own test runner.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    ssr: true,
    outDir: "out/test",
    target: "node18",
    rollupOptions: { input: readdirSync("test").map((name) => `test/${name}`) },
    emptyOutDir: true,
  },
});
