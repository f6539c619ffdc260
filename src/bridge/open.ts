import { spawn } from "node:child_process";

/** Opens a file in the desktop's own program for it. Does nothing where there is no desktop. */
export async function openFile(path: string): Promise<void> {
  const command = process.platform === "darwin" ? "open" : "xdg-open";
  const child = spawn(command, [path], { stdio: "ignore", detached: true });
  child.on("error", () => {}); // no desktop here; the path was printed
  child.unref();
}
