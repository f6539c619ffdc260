import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { bridgeCommand, ensureBridge, findPython } from "../../../src/bridge/environment.ts";
import { DriverError } from "../../../src/errors.ts";

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/bridges/${name}`, import.meta.url));

let home: string;
let uv_log: string;
let lines: string[];
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "vivarium-test-"));
  uv_log = join(home, "uv.log");
  lines = [];
  vi.stubEnv("VIVARIUM_PYTHON", "");
  vi.stubEnv("VIVARIUM_PYTHON_BASE", "");
  vi.stubEnv("FAKE_UV", "");
  vi.stubEnv("FAKE_UV_LOG", uv_log);
  vi.stubEnv("FAKE_PYTHON", "3.12.4");
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true, force: true });
});

/** Makes a PATH with these commands (and the shell's own), each a copy of a fixture. */
function stubPath(commands: Record<string, string>): void {
  const bin = join(home, "bin");
  mkdirSync(bin, { recursive: true });
  for (const [name, source] of Object.entries(commands)) {
    copyFileSync(fixture(source), join(bin, name));
    chmodSync(join(bin, name), 0o755);
  }
  const shell_only = join(home, "shell");
  mkdirSync(shell_only, { recursive: true });
  for (const name of ["mkdir", "ln", "sleep"]) {
    const real = ["/bin", "/usr/bin"].map((dir) => join(dir, name)).find(existsSync);
    if (real !== undefined && !existsSync(join(shell_only, name))) symlinkSync(real, join(shell_only, name));
  }
  vi.stubEnv("PATH", `${bin}:${shell_only}`);
}

const ensure = () => ensureBridge({ home, on_line: (line) => lines.push(line) });
const uvCalls = () => (existsSync(uv_log) ? readFileSync(uv_log, "utf8").trim().split("\n") : []);

async function failureOf(promise: Promise<unknown>): Promise<DriverError> {
  const error = await promise.catch((cause: unknown) => cause);
  if (error instanceof DriverError) return error;
  throw new Error(`expected a DriverError, got ${error}`);
}

describe("findPython", () => {
  test("takes the newest one that works", async () => {
    stubPath({ "python3.11": "fake-python.sh" });
    expect(await findPython()).toEqual({ path: "/usr/bin/fake-python", version: "3.12.4" });
  });

  test("a shim with nothing behind it is no Python", async () => {
    vi.stubEnv("FAKE_PYTHON", "");
    stubPath({ "python3.13": "fake-python.sh" });
    const error = await failureOf(findPython());
    expect(error.code).toBe("PYTHON_MISSING");
    expect(error.message).toMatchInlineSnapshot(`"No suitable Python: expected 3.11 or later, got none"`);
    expect(error.hint).toMatchInlineSnapshot(
      `"Install Python 3.11 or later (e.g. \`apt install python3 python3-venv\`), or set VIVARIUM_PYTHON_BASE to one."`,
    );
  });

  test("one that is too old is named", async () => {
    vi.stubEnv("FAKE_PYTHON", "3.9.2");
    stubPath({ python3: "fake-python.sh" });
    const error = await failureOf(findPython());
    expect(error.message).toMatchInlineSnapshot(`"No suitable Python: expected 3.11 or later, got python3 is 3.9.2"`);
  });

  test("VIVARIUM_PYTHON_BASE is the only candidate when it is set", async () => {
    stubPath({ python3: "fake-python.sh" });
    vi.stubEnv("VIVARIUM_PYTHON_BASE", "/no/such/python");
    const error = await failureOf(findPython());
    expect(error.hint).toMatchInlineSnapshot(
      `"VIVARIUM_PYTHON_BASE must name a Python interpreter; unset it to look on the PATH."`,
    );
  });
});

describe("ensureBridge", () => {
  test("installs from the lock file with hashes, once", async () => {
    stubPath({ python3: "fake-python.sh", uv: "fake-uv.sh" });
    const { python } = await ensure();
    expect(python.replace(home, "~").replace(/[0-9a-f]{12}/, "<hash>")).toBe("~/python/<hash>/bin/python");
    const calls = uvCalls().map((line) =>
      line
        .replaceAll(home, "~")
        .replace(/[0-9a-f]{12}\.part-\d+/, "<part>")
        .replace(/\S+\/python-bridge/, "python-bridge"),
    );
    expect(calls).toMatchInlineSnapshot(`
      [
        "uv --version",
        "uv venv --quiet --relocatable --no-project --python /usr/bin/fake-python ~/python/<part>",
        "uv pip sync --require-hashes --python ~/python/<part>/bin/python python-bridge/requirements.lock.txt",
      ]
    `);
    expect(lines).toMatchInlineSnapshot(`
      [
        "installing torch, transformers and peft for Python 3.12.4: about 5 GB, once",
        "Installed 66 packages in 518ms",
      ]
    `);
    lines = [];
    vi.stubEnv("PATH", "/nowhere"); // nothing can be started any more, and nothing is
    expect(await ensure()).toEqual({ python });
    expect(lines).toEqual([]);
    expect(readdirSync(join(home, "python")).filter((name) => name.includes(".part-"))).toEqual([]);
  });

  test("an interrupted installation is redone", async () => {
    stubPath({ python3: "fake-python.sh", uv: "fake-uv.sh" });
    const { python } = await ensure();
    rmSync(join(python, "..", "..", ".vivarium-stamp"));
    mkdirSync(join(home, "python", "0123456789ab.part-1"));
    expect(await ensure()).toEqual({ python });
    expect(uvCalls().filter((line) => line.startsWith("uv pip"))).toHaveLength(2);
    expect(readdirSync(join(home, "python")).filter((name) => name.includes(".part-"))).toEqual([]);
  });

  test("two at once install once", async () => {
    vi.stubEnv("FAKE_UV", "slow");
    stubPath({ python3: "fake-python.sh", uv: "fake-uv.sh" });
    const [first, second] = await Promise.all([ensure(), ensure()]);
    expect(first).toEqual(second);
    expect(uvCalls().filter((line) => line.startsWith("uv pip"))).toHaveLength(1);
    expect(lines).toContain("waiting for another vivarium to finish installing its Python environment");
  });

  test.each([
    ["disk_full", "DISK_FULL: No space left to install the Python packages"],
    ["offline", "BRIDGE_NOT_INSTALLED: Cannot install the Python packages: error: Failed to fetch: torch"],
  ])("%s leaves nothing that looks installed", async (mode, expected) => {
    vi.stubEnv("FAKE_UV", mode);
    stubPath({ python3: "fake-python.sh", uv: "fake-uv.sh" });
    const error = await failureOf(ensure());
    expect(`${error.code}: ${error.message}`).toBe(expected);
    expect(readdirSync(join(home, "python"))).toEqual([]);
  });

  test("a Python without ensurepip, and no uv", async () => {
    stubPath({ python3: "fake-python.sh" });
    const error = await failureOf(ensure());
    expect(error.code).toBe("PYTHON_MISSING");
    expect(error.hint).toMatchInlineSnapshot(
      `"Install uv (https://docs.astral.sh/uv), or the venv package of your system, e.g. \`apt install python3-venv\`."`,
    );
  });

  test("another VIVARIUM_PYTHON_BASE is not served the environment of the first", async () => {
    stubPath({ python3: "fake-python.sh", uv: "fake-uv.sh" });
    await ensure();
    vi.stubEnv("VIVARIUM_PYTHON_BASE", join(home, "bin", "python3"));
    await ensure();
    expect(uvCalls().filter((line) => line.startsWith("uv pip"))).toHaveLength(2);
    await ensure();
    expect(uvCalls().filter((line) => line.startsWith("uv pip"))).toHaveLength(2);
  });

  test("an aborted signal installs nothing", async () => {
    stubPath({ python3: "fake-python.sh", uv: "fake-uv.sh" });
    const error = await failureOf(ensureBridge({ home, on_line: () => {}, signal: AbortSignal.abort() }));
    expect(error.code).toBe("CANCELLED");
    expect(uvCalls()).toEqual([]);
  });

  test("VIVARIUM_PYTHON is taken as it is", async () => {
    vi.stubEnv("VIVARIUM_PYTHON", fixture("fake-python.sh"));
    expect(await ensure()).toEqual({ python: fixture("fake-python.sh") });
    vi.stubEnv("VIVARIUM_PYTHON", "/no/such/python");
    const error = await failureOf(ensure());
    expect(error.message).toMatchInlineSnapshot(`"VIVARIUM_PYTHON names /no/such/python, which does not exist"`);
  });
});

test("the bridge's command keeps out the user's packages and the network", () => {
  const { command, args, env } = bridgeCommand("/env/bin/python");
  expect([command, ...args]).toEqual(["/env/bin/python", "-m", "vivarium_bridge"]);
  expect(existsSync(join(env.PYTHONPATH as string, "vivarium_bridge", "__main__.py"))).toBe(true);
  expect(env).toMatchObject({ PYTHONSAFEPATH: "1", PYTHONNOUSERSITE: "1", HF_HUB_OFFLINE: "1", PYTHONUNBUFFERED: "1" });
});
