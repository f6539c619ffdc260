import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { DriverError } from "../errors.ts";
import { type ChildLogs, openLogs } from "./logs.ts";

/** First inherited descriptor after stdin, stdout and stderr. */
const EVENT_FD = 3;
/** A process that left the group may still hold the event pipe open after the child's end; it is not waited for. */
const ORPHAN_PIPE_MS = 2_000;

export interface ChildCommand {
  command: string;
  args: readonly string[];
  /** Added to the driver's own environment. */
  env?: Readonly<Record<string, string>>;
}

export interface ChildOptions extends ChildCommand {
  cwd?: string;
  /** Folder of the child's stdout and stderr; without it they are dropped, except for the tail in an error. */
  log_dir?: string;
  /** `<log_dir>/<log_name>.{stdout,stderr}.log`; by default the job's type. */
  log_name?: string;
}

export interface ChildExit {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** True when the driver asked it to stop, or killed it, before the end. */
  asked: boolean;
}

/** A process with its own process group, an event pipe and log files. */
export class Child {
  readonly events: Readable;
  readonly stdin: Writable;
  readonly stderr_path: string | undefined;
  readonly exited: Promise<ChildExit>;
  /** Set while the driver handles an event: then an orphaned pipe is not given up, it may still hold events. */
  handling = false;
  readonly #process: ChildProcess;
  readonly #logs: ChildLogs;
  #asked = false;
  #ended = false;
  #grace: NodeJS.Timeout | undefined;
  #orphan: NodeJS.Timeout | undefined;

  private constructor(process: ChildProcess, logs: ChildLogs) {
    this.#process = process;
    this.#logs = logs;
    this.stderr_path = logs.stderr_path;
    this.stdin = process.stdin as Writable;
    this.events = process.stdio[EVENT_FD] as Readable;
    this.exited = new Promise((resolve) => {
      process.once("exit", (code, signal) => {
        this.#killGroup(); // what it started must not hold the event pipe open
        this.#ended = true;
        this.#orphan = setTimeout(() => this.#giveUpPipe(), ORPHAN_PIPE_MS);
        resolve({ code, signal, asked: this.#asked });
      });
    });
    this.stdin.on("error", () => {}); // EPIPE: the exit tells the story
  }

  /** @throws {DriverError} `BRIDGE_NOT_INSTALLED` when the command cannot be started */
  static async start(options: ChildOptions): Promise<Child> {
    const logs = openLogs(options.log_dir, options.log_name ?? "child");
    const process_ = spawn(options.command, options.args, {
      stdio: ["pipe", ...logs.stdio, "pipe"],
      env: { ...process.env, ...options.env, BRIDGE_EVENT_FD: String(EVENT_FD) },
      detached: true, // its own process group
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    try {
      await once(process_, "spawn");
    } catch (cause) {
      logs.close();
      throw new DriverError("BRIDGE_NOT_INSTALLED", `Cannot start ${options.command}: ${(cause as Error).message}`, {
        hint: "Run `vivarium doctor` to see what this machine lacks.",
        cause,
      });
    }
    return new Child(process_, logs);
  }

  /** Ends stdin, which is the cancel message, and kills the group when the grace is over. */
  askToStop(grace_ms: number): void {
    this.#asked = true;
    this.stdin.end();
    this.#grace ??= setTimeout(() => this.kill(), grace_ms);
  }

  kill(): void {
    this.#asked = true;
    this.#killGroup();
  }

  stderrTail(): string[] {
    return this.#logs.stderrTail();
  }

  /** Kills what is left and waits for its end. */
  async close(): Promise<void> {
    this.#killGroup();
    await this.exited;
    clearTimeout(this.#grace);
    clearTimeout(this.#orphan);
    this.events.destroy();
    this.stdin.destroy();
    this.#logs.close();
  }

  #giveUpPipe(): void {
    if (this.handling || this.events.readableLength > 0) this.#orphan?.refresh();
    else this.events.destroy();
  }

  #killGroup(): void {
    if (this.#ended) return; // the id may belong to somebody else by now
    try {
      process.kill(-(this.#process.pid as number), "SIGKILL");
    } catch {
      // ESRCH: nobody is left in the group
    }
  }
}
