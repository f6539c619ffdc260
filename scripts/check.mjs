// Every check and every test that this machine can run: lint, types, generated files, Python lint and types, vitest,
// pytest. Ends with one line `N passed, N failed, N skipped` over all of them and lists each skip with its reason.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const scratch = mkdtempSync(join(tmpdir(), "vivarium-check-"));
const node = process.execPath;
const bin = (name, path) => join(root, "node_modules", name, path);
const python = spawnSync(node, [join(root, "dist", "bridge", "setup-main.js")], {
  stdio: ["ignore", "pipe", "inherit"],
})
  .stdout.toString()
  .trim();
const env = {
  ...process.env,
  VIVARIUM_PYTHON: python,
  PYTHONPATH: join(root, "python-bridge", "src"),
  TOKENIZERS_PARALLELISM: "false",
};

/** Runs a command; resolves with its exit code and what it printed. Output is shown at once where `live`. */
function run(command, args, { live = false, cwd = root, more = {} } = {}) {
  return new Promise((done) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...env, ...more },
      stdio: ["ignore", live ? "inherit" : "pipe", live ? "inherit" : "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (output += data));
    child.on("error", (error) => done({ code: 1, output: String(error) }));
    child.on("close", (code) => done({ code, output }));
  });
}

const total = { passed: 0, failed: 0, skipped: [] };

async function check(name, command, args, options) {
  const started = Date.now();
  const { code, output } = await run(command, args, options);
  const ok = code === 0;
  total[ok ? "passed" : "failed"] += 1;
  console.log(`${ok ? "ok  " : "FAIL"} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  if (!ok) console.log(output);
}

async function staticChecks() {
  const bridge = join(root, "python-bridge");
  const bench = join(root, "bench", "train");
  const ruff = [bridge, join(root, "scripts"), join(root, "test"), bench];
  await Promise.all([
    check("lint and format", node, [bin("@biomejs/biome", "bin/biome"), "check", "."]),
    check("types", node, [bin("typescript", "bin/tsc"), "-p", "."]),
    check("generated protocol in step", node, ["--import", "tsx", "scripts/gen-protocol.ts", "--check"]),
    check("generated recipes in step", node, ["--import", "tsx", "scripts/gen-recipes.ts", "--check"]),
  ]);
  await Promise.all([
    check("Python lint", python, ["-m", "ruff", "check", ...ruff]),
    check("Python format", python, ["-m", "ruff", "format", "--check", ...ruff]),
    check("Python types", node, [bin("pyright", "index.js"), "--pythonpath", python, "-p", bridge]),
    check("Python types of the benchmark", node, [bin("pyright", "index.js"), "--pythonpath", python, "-p", bench]),
  ]);
}

async function vitest() {
  const file = join(scratch, "vitest.json");
  const { code } = await run(node, [bin("vitest", "vitest.mjs"), "run"], {
    live: true,
    more: { VIVARIUM_COUNTS: file },
  });
  add("vitest", code, () => JSON.parse(readFileSync(file, "utf8")));
}

async function pytest() {
  const file = join(scratch, "pytest.xml");
  const { code } = await run(python, ["-m", "pytest", "-q", "-rs", `--junitxml=${file}`], {
    live: true,
    cwd: join(root, "python-bridge"),
  });
  add("pytest", code, () => readJunit(readFileSync(file, "utf8")));
}

/** A runner that failed without counting a failure (it crashed, or ran nothing) is one failure. */
function add(name, code, read) {
  let counts = { passed: 0, failed: 0, skipped: [] };
  try {
    counts = read();
  } catch (error) {
    console.log(`${name} left no counts: ${error.message}`);
  }
  if ((code !== 0 || counts.passed === 0) && counts.failed === 0) counts.failed = 1;
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped.push(...counts.skipped);
}

function readJunit(xml) {
  const number = (name) => Number(new RegExp(`<testsuite [^>]*\\b${name}="(\\d+)"`).exec(xml)?.[1] ?? 0);
  const skipped = [...xml.matchAll(/<testcase [^>]*?\sname="([^"]*)"[^>]*>\s*<skipped[^>]*message="([^"]*)"/g)].map(
    ([, name, reason]) => ({ name, reason }),
  );
  const failed = number("failures") + number("errors");
  return { passed: number("tests") - failed - number("skipped"), failed, skipped };
}

const only = process.argv[2];
if (only === undefined || only === "static") await staticChecks();
if (only === undefined || only === "python") await pytest();
if (only === undefined || only === "vitest") await vitest();
rmSync(scratch, { recursive: true, force: true });
for (const { name, reason } of total.skipped) console.log(`skipped: ${name}: ${reason}`);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped.length} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
