// `npm run picture`: runs the demo and takes README's picture of its report. Needs Chromium on the PATH.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const scratch = mkdtempSync(join(tmpdir(), "vivarium-picture-"));

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? `exit ${status}`}`);
}

try {
  const result = join(scratch, "demo.json");
  run(process.execPath, [join(root, "dist/cli/main.js"), "demo", "--no-open", "--dir", scratch, "--json", result]);
  const { report } = JSON.parse(readFileSync(result, "utf8"));
  run("chromium", [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    `--user-data-dir=${join(scratch, "chromium")}`,
    "--hide-scrollbars",
    `--screenshot=${join(root, "docs/images/report.png")}`,
    "--window-size=1000,820",
    `file://${report}`,
  ]);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
