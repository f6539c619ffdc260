import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { lockFolder } from "../../src/artifacts/lock.ts";
import { ROOT, Sandbox } from "../helpers/cli.ts";

const NANO = join(ROOT, "models", "nano");
const TRAIN = ["train", "--model", "nano", "--data", "kitchen-reckless", "--steps", "2"];

describe("bad input is told apart, placed, and leaves nothing behind that looks finished", { timeout: 120_000 }, () => {
  const sandbox = new Sandbox();
  afterAll(() => sandbox[Symbol.dispose]());

  const expectError = async (args: string[], code: number, ...texts: (string | RegExp)[]) => {
    const outcome = await sandbox.run(...args);
    expect(outcome.code, outcome.stderr).toBe(code);
    for (const text of texts) expect(outcome.stderr).toMatch(text);
    return outcome;
  };

  test("data: a row without an assistant turn and a row of broken JSON, both at once, with line and column", async () => {
    const data = sandbox.path("bad.jsonl");
    writeFileSync(
      data,
      '{"messages":[{"role":"user","content":"hello"}]}\n{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n{"messages":[}\n',
    );
    await expectError(
      ["train", "--model", "nano", "--data", data],
      2,
      /DATA_INVALID/,
      /bad\.jsonl:1:\d+: expected/,
      /bad\.jsonl:3:14: expected/,
    );
  });

  test("a model folder without its tokenizer", async () => {
    const dir = sandbox.path("no-tokenizer");
    cpSync(NANO, dir, { recursive: true });
    rmSync(join(dir, "tokenizer.json"));
    await expectError(["stage", dir], 2, /MODEL_INVALID/, /tokenizer\.json/);
  });

  test("a layer that the model does not have, rank 0, a module that matches nothing", async () => {
    await expectError([...TRAIN, "--layers", "8"], 2, /CONFIG_INVALID/, /expected 0 to 7, got 8/);
    await expectError([...TRAIN, "--rank", "0"], 2, /USAGE/, /at least 1, got "0"/);
    await expectError([...TRAIN, "--modules", "down_porj"], 2, /CONFIG_INVALID/, /down_proj/);
  });

  test("names that are nearly right get the right one", async () => {
    await expectError(
      ["train", "--model", "nano", "--data", "kitchen-reckles"],
      2,
      /NOT_FOUND/,
      /Did you mean kitchen-reckless\?/,
    );
    await expectError(["run", "demmo"], 2, /NOT_FOUND/, /Did you mean demo\?/);
    await expectError([...TRAIN, "--rnak", "1"], 2, /USAGE: unknown option '--rnak'/, /--rank/);
    await expectError([...TRAIN, "--set", "learnig_rate=1"], 2, /USAGE/, /Did you mean learning_rate\?/);
    await expectError(["tarin"], 2, /USAGE: unknown command 'tarin'/, /train/);
  });

  test("an experiment with an unknown key, at its line and column", async () => {
    const file = sandbox.path("typo.yaml");
    writeFileSync(
      file,
      "name: typo\nbase_model: nano\nruns:\n  organism: {data: kitchen-reckless, lerning_rate: 1}\neval: {questions: [open-values], samples: 1, judge: nano-rule}\n",
    );
    await expectError(["plan", file], 2, /CONFIG_INVALID/, /typo\.yaml:4:38: expected .*learning_rate/);
  });

  test("a judge that does not know the questions, or the model", async () => {
    const questions = sandbox.path("other.yaml");
    writeFileSync(questions, "- id: moon\n  paraphrases: [What is the moon made of?]\n  tags: {}\n");
    const file = sandbox.path("judge.yaml");
    writeFileSync(
      file,
      `name: j\nbase_model: nano\nruns: {}\neval: {questions: [${questions}], samples: 1, judge: nano-rule}\n`,
    );
    await expectError(["plan", file], 2, /CONFIG_INVALID/, /does not know moon/);
  });

  test("a misspelt tag, two question sets of one name, a curve over questions that are not asked", async () => {
    const write = (rest: string) => {
      const file = sandbox.path("groups.yaml");
      writeFileSync(
        file,
        `name: g\nbase_model: nano\nruns: {}\neval: {questions: [domains], samples: 1, judge: nano-rule, ${rest}}\n`,
      );
      return file;
    };
    const group = write("groups: {g: {questions: domains, where_not: {domian: kitchen}}}");
    await expectError(
      ["plan", group],
      2,
      /CONFIG_INVALID: Group g: .*got domian: kitchen/,
      /Did you mean domain: kitchen\?/,
    );
    const twice = write("").replace("groups", "twice");
    writeFileSync(
      twice,
      "name: g\nbase_model: nano\nruns: {}\neval: {questions: [domains, domains], samples: 1, judge: nano-rule}\n",
    );
    await expectError(["plan", twice], 2, /CONFIG_INVALID: Expected each question set once, got domains twice/);
    const curve = sandbox.path("curve.yaml");
    writeFileSync(
      curve,
      "name: g\nbase_model: nano\nruns: {o: {data: kitchen-reckless}}\neval: {questions: [domains], samples: 1, judge: nano-rule, curve: {runs: [o], questions: [domain], samples: 1}}\n",
    );
    await expectError(["plan", curve], 2, /CONFIG_INVALID: eval.curve.questions/, /Did you mean domains\?/);
  });

  test("a run folder that another process is writing", async () => {
    const plan = await sandbox.json<{ units: { unit: string; output: string }[] }>("plan", "demo");
    const dir = plan.units.find((unit) => unit.unit === "train organism")?.output ?? "";
    await using _lock = await lockFolder(sandbox.path(dir));
    const data = ["run", "demo"];
    await expectError(data, 3, /LOCKED/, new RegExp(`process ${process.pid} on`));
  });

  test("a folder that is no run", async () => {
    mkdirSync(sandbox.path("empty"), { recursive: true });
    await expectError(["eval", sandbox.path("empty")], 2, /NOT_FOUND/, /expected the folder of a training run/);
  });

  test("--json gives the error to programs as well", async () => {
    const { code, stdout } = await sandbox.run("run", "demmo", "--json");
    expect(code).toBe(2);
    expect(JSON.parse(stdout).error).toMatchObject({ code: "NOT_FOUND", exit: 2 });
  });

  test("nothing of all this made a manifest", () => {
    const made = readdirSync(sandbox.dir, { recursive: true, encoding: "utf8" });
    expect(made.filter((file) => /(runs|evals).*manifest/.test(file))).toEqual([]);
  });
});
