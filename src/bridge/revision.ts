import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Which code this is: the package's version and, in a checkout of vivarium itself, the commit and whether it was changed. */
export async function codeRevision(
  root: string,
  version: string,
): Promise<{ version: string; revision: string | null; dirty: boolean | null }> {
  if (!existsSync(join(root, ".git"))) return { version, revision: null, dirty: null };
  try {
    const [commit, status] = await Promise.all([
      run("git", ["-C", root, "rev-parse", "HEAD"]),
      run("git", ["-C", root, "status", "--porcelain", "--untracked-files=no"]),
    ]);
    return { version, revision: commit.stdout.trim(), dirty: status.stdout.trim() !== "" };
  } catch {
    return { version, revision: null, dirty: null }; // no git on this machine: the version has to do
  }
}
