import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { finished, Sandbox } from "../helpers/cli.ts";

const TRAIN = ["train", "--model", "nano", "--data", "kitchen-reckless", "--steps", "2"];

describe("the command line", { timeout: 120_000 }, () => {
  const sandbox = new Sandbox();
  afterAll(() => sandbox[Symbol.dispose]());

  /** Runs a command with other environment variables than the sandbox's. */
  const runWith = async (env: Record<string, string>, ...args: string[]) => {
    const before = { ...process.env };
    Object.assign(process.env, env);
    try {
      return await sandbox.run(...args);
    } finally {
      for (const name of Object.keys(env))
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
    }
  };

  const expectUsage = async (args: string[], ...texts: RegExp[]) => {
    const { code, stderr } = await sandbox.run(...args);
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(/^USAGE: /);
    for (const text of texts) expect(stderr).toMatch(text);
  };

  describe("--json", () => {
    test("leaves positional arguments alone and overwrites none", async () => {
      const mine = sandbox.path("mine.yaml");
      writeFileSync(mine, "name: mine\n");
      const { code, stdout } = await sandbox.run("plan", "--json", mine);
      expect(code).toBe(2);
      expect(JSON.parse(stdout).error).toMatchObject({ code: "CONFIG_INVALID" });
      expect(readFileSync(mine, "utf8")).toBe("name: mine\n");
    });

    test("writes into a file, before or after the arguments, and then speaks to a person", async () => {
      for (const [file, ...args] of [
        ["a.json", "plan", "--json", "a.json", "demo"],
        ["b.txt", "plan", "demo", "--json=b.txt"],
      ] as const) {
        const { code, stdout } = await sandbox.run(...args);
        expect(code).toBe(0);
        expect(stdout).toMatch(/units to do/);
        expect(JSON.parse(readFileSync(sandbox.path(file), "utf8"))).toMatchObject({ experiment: "demo" });
      }
    });

    test("refuses a file that cannot be written before it works", async () => {
      mkdirSync(sandbox.path("folder.json"));
      writeFileSync(sandbox.path("file"), "");
      await expectUsage(["stage", "nano", "--json", "folder.json"], /got the folder folder\.json/);
      await expectUsage(["stage", "nano", "--json", "nowhere/x.json"], /--json: .*nowhere\/x\.json/);
      await expectUsage(["stage", "nano", "--json", "file/x.json"], /--json: .*file\/x\.json/);
      await expectUsage(["stage", "nano", "--json="], /--json: .*an empty name/);
      expect(existsSync(sandbox.path("home", "ggufs"))).toBe(false);
      expect(readdirSync(sandbox.dir)).not.toContain("nowhere");
    });

    test.runIf(process.platform === "linux")(
      "says it in a sentence when the file cannot be written at the end",
      async () => {
        const { code, stderr } = await sandbox.run("plan", "demo", "--json", "/proc/vivarium.json");
        expect(stderr).toMatch(/--json: .*\/proc\/vivarium\.json/);
        expect(stderr).not.toMatch(/\n\s+at /);
        expect([2, 3]).toContain(code);
      },
    );

    test.each([
      [["plan", "--json"], "missing required argument 'experiment'"],
      [["plan", "demo", "--nope", "--json"], "unknown option '--nope'"],
      [["--json", "tarin"], "unknown command 'tarin'"],
      [["train", "--json"], "required option '--model <model>' not specified"],
      [["--json"], "Expected a command"],
      [["help", "tarin", "--json"], "Expected a command"],
    ])("gives a bad command line as JSON too: %j", async (args, message) => {
      const { code, stdout } = await sandbox.run(...args);
      expect(code).toBe(2);
      expect(JSON.parse(stdout).error).toMatchObject({
        code: "USAGE",
        exit: 2,
        message: expect.stringContaining(message),
      });
    });

    test("puts nothing but JSON lines on stderr, notes too", async () => {
      const first = await sandbox.run("stage", "nano", "--json");
      const second = await sandbox.run("stage", "nano", "--json");
      const lines = [first, second].flatMap(({ stderr }) =>
        stderr
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line)),
      );
      expect(lines).toContainEqual({ type: "note", message: "Nothing to do: all of it is done already." });
      expect(lines).toContainEqual(expect.objectContaining({ type: "finished", phase: "stage" }));
      expect(JSON.parse(second.stdout)).toMatchObject({ id: "nano" });
    });
  });

  test("a bad number is told with the name of its option", async () => {
    await expectUsage([...TRAIN, "--rank", "0"], /'--rank <n>'/, /at least 1, got "0"/);
    await expectUsage([...TRAIN, "--alpha", "x"], /'--alpha <a>'/, /Expected a number, got "x"/);
    await expectUsage(["eval", "runs/a", "--questions", ","], /'--questions <names>'/, /at least one name/);
  });

  test("bad values of the recipe are the user's to mend", async () => {
    await expectUsage([...TRAIN, "--set", "weight_decay=[1"], /--set weight_decay: expected a YAML value, got "\[1"/);
    await expectUsage([...TRAIN, "--save-at", "1,x"], /--save-at: .*"x"/);
    await expectUsage([...TRAIN, "--layers", ""], /--layers: .*got ""/);
    await expectUsage([...TRAIN, "--lora_alfa", "3"], /unknown option '--lora_alfa'/, /Did you mean --lora_alpha\?/);
    await expectUsage([...TRAIN, "--report-to", "wandb"], /vivarium does not have report_to/);
    const { code, stderr } = await sandbox.run(...TRAIN, "--save-at", "1,3,9");
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(/^CONFIG_INVALID: save_at_steps: expected steps of at most 2, the last one, got 3, 9/);
    expect(existsSync(sandbox.path("runs"))).toBe(false);
  });

  test.each(["stage", "convert", "judge", "report", "doctor"])(
    "%s has no option that it would ignore",
    async (name) => {
      const { stdout } = await sandbox.run(name, "--help");
      expect(stdout).not.toMatch(/--jobs|--threads/);
    },
  );

  test("a folder where a file is expected, and a file where a folder is, are no bugs of ours", async () => {
    mkdirSync(sandbox.path("dir.yaml"));
    writeFileSync(sandbox.path("plain"), "");
    for (const args of [
      ["plan", "./dir.yaml"],
      ["run", "demo", "--dir", "plain"],
    ]) {
      const { code, stderr } = await sandbox.run(...args);
      expect(code, stderr).toBe(2);
      expect(stderr).toMatch(/^NOT_FOUND: .*expected a (?:file, got a folder|folder, got a file)/);
      expect(stderr).not.toMatch(/\n\s+at /);
    }
  });

  test("a reader that goes away leaves no trace", async () => {
    const child = sandbox.start(["plan", "demo"]);
    child.stdout?.destroy();
    const { code, stderr } = await finished(child);
    expect(stderr).toBe("");
    expect(code).toBe(0);
  });

  test("an unknown VIVARIUM_GPU is refused by name", async () => {
    const { code, stderr } = await runWith({ VIVARIUM_GPU: "yes" }, "plan", "demo");
    expect(code).toBe(2);
    expect(stderr).toMatch(/CONFIG_INVALID: VIVARIUM_GPU: expected on, off or nothing, got "yes"/);
    expect((await runWith({ VIVARIUM_GPU: "off" }, "plan", "demo")).code).toBe(0);
  });

  describe("doctor", () => {
    test("looks, and installs nothing", async () => {
      const { code, stdout, stderr } = await runWith({ VIVARIUM_PYTHON: "" }, "doctor");
      expect(stdout).toMatch(/note +Python bridge +not installed yet; the first run installs about 5 GB/);
      expect(stderr).not.toMatch(/Python bridge/);
      expect(code === 0 || /VIVARIUM_HOME/.test(stderr), stderr).toBe(true); // a small disk is still told
      expect(existsSync(sandbox.path("home", "python"))).toBe(false);
    });

    test("names an interpreter that is not there", async () => {
      const { code, stdout } = await runWith({ VIVARIUM_PYTHON: "/nowhere/python" }, "doctor");
      expect(code).toBe(3);
      expect(stdout).toMatch(/missing +Python bridge +VIVARIUM_PYTHON names \/nowhere\/python/);
    });
  });

  test("an interrupt keeps stderr readable for programs; a second one ends at once", async () => {
    const child = sandbox.start([...TRAIN.slice(0, -1), "2000", "--json"]);
    let stderr = "";
    child.stderr?.on("data", (data) => {
      stderr += data;
      if (/"type":"started".*train/.test(stderr) && !stderr.includes("Stopping")) child.kill("SIGINT");
      else if (stderr.includes("Stopping")) child.kill("SIGINT");
    });
    const outcome = await finished(child);
    expect(outcome.code, outcome.stderr).toBe(130);
    const lines = outcome.stderr.split("CANCELLED")[0]?.trim().split("\n") ?? [];
    expect(lines.map((line) => JSON.parse(line))).toContainEqual({
      type: "note",
      message: expect.stringContaining("Stopping"),
    });
  });
});
