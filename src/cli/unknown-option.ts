import type { Command } from "commander";
import { nearest } from "../formats/nearest.ts";

/**
 * What an unknown flag was most likely meant to be, hidden flags included, which commander does not look at.
 *
 * @param argv the whole command line.
 */
export function nearestFlag(program: Command, argv: readonly string[], flag: string): string | undefined {
  const options = commandOf(program, argv).options.flatMap(({ long }) => (long == null ? [] : [long]));
  return nearest(flag.replace(/=.*$/s, ""), options);
}

/** The command that a command line names, as deep as it goes. */
function commandOf(program: Command, argv: readonly string[]): Command {
  let command = program;
  for (const word of argv) {
    const next = command.commands.find((candidate) => candidate.name() === word);
    if (next === undefined) break;
    command = next;
  }
  return command;
}
