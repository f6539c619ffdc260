/** A driver to be killed: starts the job in the file given and prints the engine's process id at the first block. */
import { readFileSync } from "node:fs";
import { runJob } from "../../../src/bridge/session.ts";
import { engineCommand } from "../../../src/runtime/command.ts";

let pid = 0;
await runJob(JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")), {
  ...engineCommand(),
  onEvent: (event) => {
    if (event.type === "hello") pid = event.pid;
    if (event.type === "block") console.log(pid);
  },
});
