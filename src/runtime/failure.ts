import { InsufficientMemoryError } from "node-llama-cpp";
import type { Failure } from "../protocol/wire.ts";

/** What stops an engine job, under the codes of the wire format. */
export class EngineFailure extends Error {
  readonly code: Failure["code"];
  readonly hint: string | null;

  constructor(code: Failure["code"], message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "EngineFailure";
    this.code = code;
    this.hint = options.hint ?? null;
  }
}

/** The terminal event for anything thrown. A stack is sent only for what we did not foresee. */
export function toFailure(error: unknown): Failure {
  if (error instanceof EngineFailure) return failure(error.code, error.message, error.hint);
  if (error instanceof InsufficientMemoryError)
    return failure("OUT_OF_MEMORY", error.message, "Lower context_tokens or the number of samples per block.");
  if (systemCode(error) === "ENOSPC") return failure("DISK_FULL", messageOf(error), null);
  return { ...failure("INTERNAL", messageOf(error), null), traceback: stackOf(error) };
}

function failure(code: Failure["code"], message: string, hint: string | null): Failure {
  return { type: "failure", code, message, hint, traceback: null };
}

function systemCode(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stackOf(error: unknown): string | null {
  return error instanceof Error ? (error.stack ?? null) : null;
}
