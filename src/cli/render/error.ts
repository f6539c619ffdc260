import { DriverError, ERROR_CODES, type ErrorCode } from "../../errors.ts";

/** Faults that are printed; the rest are counted. */
const MOST_FAULTS = 20;

/** What the system says no to is about the user's files and machine, not a bug of ours. */
const SYSTEM_ERRORS: Record<string, { code: ErrorCode; reason: string; hint?: string }> = {
  ENOENT: { code: "NOT_FOUND", reason: "no such file or folder" },
  EISDIR: { code: "NOT_FOUND", reason: "expected a file, got a folder" },
  ENOTDIR: { code: "NOT_FOUND", reason: "expected a folder, got a file" },
  EEXIST: { code: "NOT_FOUND", reason: "expected a folder, got a file" },
  ENAMETOOLONG: { code: "NOT_FOUND", reason: "the name is too long" },
  EACCES: { code: "NOT_WRITABLE", reason: "permission denied", hint: "Check who owns it, or use another folder." },
  EPERM: { code: "NOT_WRITABLE", reason: "operation not permitted", hint: "Check who owns it, or use another folder." },
  EROFS: { code: "NOT_WRITABLE", reason: "the file system is read-only", hint: "Use another folder." },
  ENOSPC: { code: "DISK_FULL", reason: "the disk is full", hint: "Free some space and run the same command again." },
  EDQUOT: {
    code: "DISK_FULL",
    reason: "the quota is used up",
    hint: "Free some space and run the same command again.",
  },
  EMFILE: { code: "MACHINE_LACKS", reason: "too many open files", hint: "Raise the limit with `ulimit -n 4096`." },
};

function systemError(error: unknown): DriverError | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, syscall, path } = error as NodeJS.ErrnoException;
  const known = syscall === undefined || code === undefined ? undefined : SYSTEM_ERRORS[code];
  if (known === undefined) return undefined;
  return new DriverError(known.code, `Cannot ${syscall}${path === undefined ? "" : ` ${path}`}: ${known.reason}`, {
    // Node does not name what it fails to read after opening it.
    hint: known.hint ?? `Look at ${path ?? "the files that the command line and the experiment name"}.`,
    facts: { errno: code, path },
    cause: error,
  });
}

/** Anything that was thrown, as the one kind of error that is rendered. */
export function toDriverError(error: unknown): DriverError {
  if (error instanceof DriverError) return error;
  if (error instanceof Error && error.name === "AbortError")
    return new DriverError("CANCELLED", "Cancelled; finished work is kept", { cause: error });
  const refused = systemError(error);
  if (refused !== undefined) return refused;
  const message = error instanceof Error ? error.message : String(error);
  return new DriverError("INTERNAL", message, {
    cause: error,
    hint: "This is a bug of vivarium. Please report it with the trace above.",
  });
}

/** Text that a terminal may show: control characters of foreign text are spelled out. */
export function printable(text: string): string {
  return text.replace(/(?![\t\n])\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** An error for a person: code, sentence, faults, hint. The stack only with `debug` or for our own bugs. */
export function renderError(error: DriverError, debug: boolean): string {
  const exit = ERROR_CODES[error.code].exit;
  const lines: string[] = [];
  if (debug || exit === 70) lines.push(stackOf(error));
  lines.push(`${error.code}: ${printable(error.message)}`);
  const listed = error.faults
    .slice(0, MOST_FAULTS)
    .map((fault) => `  ${fault.file}:${fault.line}:${fault.column}: expected ${fault.expected}, got ${fault.found}`);
  if (!error.faults.some((fault) => error.message.includes(`${fault.file}:${fault.line}`))) {
    lines.push(...listed.map(printable));
    if (error.faults.length > MOST_FAULTS) lines.push(`  and ${error.faults.length - MOST_FAULTS} more`);
  }
  const log = error.facts.log;
  if (typeof log === "string" && !error.hint?.includes(log)) lines.push(`Log: ${log}`);
  if (error.hint !== undefined) lines.push(`Hint: ${printable(error.hint)}`);
  return lines.join("\n");
}

function stackOf(error: DriverError): string {
  const cause = error.cause instanceof Error ? (error.cause.stack ?? "") : "";
  return cause || (error.stack ?? "");
}

/** The same error for a program. */
export function errorJson(error: DriverError): Record<string, unknown> {
  const { code, message, hint, faults, facts } = error;
  return { error: { code, exit: ERROR_CODES[code].exit, message, hint: hint ?? null, faults, facts } };
}
