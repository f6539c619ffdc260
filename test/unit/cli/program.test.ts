import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { buildProgram } from "../../../src/cli/program.ts";

const COMMANDS = resolve(import.meta.dirname, "../../../src/cli/commands");
/** Read by main.ts for every command. */
const EVERYWHERE = ["json", "debug"];
/** Functions of other modules that read an option. */
const READERS: Record<string, string> = {
  jobs: "chooseJobs(",
  threads: "chooseJobs(",
  prefixCache: "cacheWish(",
  prefixCacheGb: "cacheWish(",
};
/** Modules that read no option of a command. */
const COMMON = /\/(?:io|environment|work|rates)\.ts$/;

/** A command's source with the modules of the CLI that it hands its options to. */
function sources(file: string): string {
  const text = readFileSync(file, "utf8");
  const more = [...text.matchAll(/from "(\.[^"]+)"/g)]
    .map((match) => resolve(dirname(file), match[1] as string))
    .filter((path) => path.includes("/src/cli/") && !COMMON.test(path));
  return [text, ...more.map(sources)].join("\n");
}

/** Commands that do something, with the module that does it: that of a group is named after the group. */
const leaves = buildProgram("0", async () => {}).commands.flatMap((command): [string, Command, string][] =>
  command.commands.length === 0
    ? [[command.name(), command, command.name()]]
    : command.commands.map((leaf) => [`${command.name()} ${leaf.name()}`, leaf, command.name()]),
);

test.each(leaves)("every option of %s is read by its command", (_name, command, module) => {
  const text = sources(resolve(COMMANDS, `${module}.ts`));
  const isRead = (option: string): boolean => {
    const reader = READERS[option];
    if (reader !== undefined) return text.includes(reader);
    return EVERYWHERE.includes(option) || new RegExp(`\\b(?:options|flags)\\.${option}\\b`).test(text);
  };
  // Hidden flags are the recipe's names; flags.test.ts reads each of them.
  const given = command.options.filter((option) => !option.hidden).map((option) => option.attributeName());
  expect(given.filter((option) => !isRead(option))).toEqual([]);
  expect(given.includes("jobs")).toBe(text.includes("chooseJobs("));
});
