// Sets up what `npm run demo` and `npm test` need: npm packages, the build, the Python environment. Plain Node, no
// dependency, under half a second when nothing is stale.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const at = (...parts) => join(root, ...parts);

/** Oldest Node that runs everything. Source: package.json `engines`. */
const [MAJOR, MINOR] = [20, 19];

function fail(message, hint) {
  process.stderr.write(`bootstrap: ${message}\nHint: ${hint}\n`);
  process.exit(3);
}

function say(message) {
  process.stderr.write(`bootstrap: ${message}\n`);
}

function run(command, args, hint) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2] });
  if (error || status !== 0)
    fail(`${[command, ...args].join(" ")} failed: ${error?.message ?? `exit ${status}`}`, hint);
}

/** Digest of files and folders by content; what is missing counts as empty. */
function digest(paths) {
  const hash = createHash("sha256").update(process.version);
  for (const path of paths) addPath(hash, at(path));
  return hash.digest("hex");
}

function addPath(hash, path) {
  if (!existsSync(path)) return;
  const entries = readdirSync(dirname(path), { withFileTypes: true }).find(
    (entry) => join(dirname(path), entry.name) === path,
  );
  if (entries?.isDirectory()) {
    for (const name of readdirSync(path).sort()) addPath(hash, join(path, name));
    return;
  }
  hash.update(path).update("\0").update(readFileSync(path));
}

function isFresh(stamp, value) {
  return existsSync(stamp) && readFileSync(stamp, "utf8") === value;
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < MAJOR || (major === MAJOR && minor < MINOR))
    fail(
      `Node is too old: expected ${MAJOR}.${MINOR} or later, got ${process.versions.node}`,
      "Install a current Node, e.g. from nodejs.org.",
    );
}

function installPackages() {
  const stamp = at("node_modules", ".vivarium-stamp");
  const value = digest(["package.json", "package-lock.json", ".npmrc"]);
  if (isFresh(stamp, value)) return;
  say("installing npm packages (npm ci)");
  run(
    "npm",
    ["ci", "--no-audit", "--no-fund", "--loglevel=error"],
    "Check the network and the npm registry setting, then run the command again.",
  );
  writeFileSync(stamp, value);
}

function build() {
  const stamp = at("dist", ".stamp");
  const value = digest(["src", "tsconfig.json", "tsconfig.build.json", "package-lock.json"]);
  if (isFresh(stamp, value)) return;
  say("building");
  rmSync(at("dist"), { recursive: true, force: true });
  run(
    process.execPath,
    [at("node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.build.json"],
    "The sources do not compile; see above.",
  );
  writeFileSync(stamp, value);
}

function installPython() {
  const { status } = spawnSync(process.execPath, [at("dist", "bridge", "setup-main.js")], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) process.exit(status ?? 3);
}

checkNode();
installPackages();
build();
if (!process.argv.includes("--no-python")) installPython();
