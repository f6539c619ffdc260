import { type Command, Option } from "commander";
import { FOREIGN_NAMES } from "../records/foreign-names.ts";
import { RECIPE_NAMES, RECIPE_SWITCHES, spellings } from "../records/recipe-names.ts";

const WIDTH = 96;

/**
 * Adds a flag for every recipe name, in both spellings, and for the names of other trainers, so that these are told what
 * to do instead. None is listed one by one: with forty names more, nobody would read the help.
 */
export function addRecipeFlags(command: Command): Command {
  for (const name of RECIPE_NAMES) addHidden(command, name, RECIPE_SWITCHES.includes(name) ? "[value]" : "<value>");
  for (const name of FOREIGN_NAMES) addHidden(command, name, "[value]");
  return command.addHelpText(
    "after",
    `\nAny recipe value is a flag, as --lora_alpha 64 or --weight-decay 0.01:\n${wrap(RECIPE_NAMES)}`,
  );
}

function addHidden(command: Command, name: string, value: string): void {
  for (const spelling of spellings(name)) {
    if (command.options.some((option) => option.long === `--${spelling}`)) continue;
    command.addOption(new Option(`--${spelling} ${value}`).hideHelp());
  }
}

/** Words in lines of at most `WIDTH` characters. */
function wrap(list: readonly string[]): string {
  const lines: string[] = [];
  for (const word of list) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length + 1 > WIDTH) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.join("\n");
}
