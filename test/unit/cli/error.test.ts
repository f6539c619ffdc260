import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { renderError, toDriverError } from "../../../src/cli/render/error.ts";
import { ERROR_CODES } from "../../../src/errors.ts";

const HERE = import.meta.dirname;

test.each([
  ["a file that is not there", () => readFile(join(HERE, "nowhere")), "NOT_FOUND", "no such file or folder"],
  ["a folder for a file", () => readFile(HERE), "NOT_FOUND", "expected a file, got a folder"],
  ["a file for a folder", () => readFile(join(HERE, "error.test.ts", "x")), "NOT_FOUND", "expected a folder"],
])("%s is no bug of ours", async (_name, act, code, reason) => {
  const error = toDriverError(await act().catch((cause: unknown) => cause));
  expect(error).toMatchObject({ code, message: expect.stringContaining(reason) });
  expect(renderError(error, false)).not.toMatch(/\n\s+at /);
  expect(renderError(error, true)).toContain("Error: E"); // the cause, for --debug
});

test.each(["EACCES", "EPERM", "EROFS"])("%s ends with 3 and names the path", (errno) => {
  const cause = Object.assign(new Error(`${errno}: refused`), { code: errno, syscall: "mkdir", path: "/srv/runs" });
  const error = toDriverError(cause);
  expect(error.code).toBe("NOT_WRITABLE");
  expect(ERROR_CODES[error.code].exit).toBe(3);
  expect(error.message).toContain("Cannot mkdir /srv/runs: ");
});

test("an error that the system did not make stays a bug of ours", () => {
  expect(toDriverError(Object.assign(new Error("x"), { code: "ENOENT" })).code).toBe("INTERNAL");
});

test("every code has its row in the runbook", () => {
  const runbook = readFileSync(resolve(HERE, "../../../docs/runbook.md"), "utf8");
  expect(Object.keys(ERROR_CODES).filter((code) => !runbook.includes(`\`${code}\``))).toEqual([]);
});
