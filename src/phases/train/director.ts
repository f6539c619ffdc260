import { join } from "node:path";
import { writeManifest } from "../../artifacts/manifest.ts";
import { DriverError } from "../../errors.ts";
import type { PlannedRun, TrainingRun } from "../../pipeline/handles.ts";
import type { CohortMember } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { ChildEvent, Hello } from "../../protocol/wire.ts";
import type { FileEntry } from "../../records/manifest.ts";
import type { PreparedData } from "./data.ts";
import { runManifest } from "./manifest.ts";
import type { Recorder } from "./recorder.ts";
import { describeLosses, describeProofs, worse } from "./words.ts";

/** One run of a cohort while it is trained. */
export interface Member {
  run: TrainingRun;
  slot: CohortMember;
  data: PreparedData;
  recorder: Recorder;
  started_ms: number;
}

/** Sends each event to the member that it is about, and finishes members one by one. */
export class Director {
  readonly #members: readonly Member[];
  readonly #workspace: Workspace;
  #hello: Hello | undefined;
  #current: Member | undefined;

  constructor(members: readonly Member[], workspace: Workspace) {
    this.#members = members;
    this.#workspace = workspace;
  }

  async handle(event: ChildEvent): Promise<void> {
    if (event.type === "hello") this.#hello = event;
    else if (event.type === "run_start") this.begin(event.index);
    else if (event.type === "failure" || event.type === "train_result") return;
    else await this.#current?.recorder.handle(event);
    if (event.type === "train_start") this.#compareDevice(event.device);
    if (event.type === "run_result") await this.#finish();
  }

  /** Index of the run at work; undefined between two runs. */
  get position(): number | undefined {
    return this.#current === undefined ? undefined : this.#members.indexOf(this.#current);
  }

  begin(index: number): void {
    const member = this.#members[index];
    if (member !== undefined && member === this.#current) return;
    if (member === undefined || this.#current !== undefined)
      throw new DriverError("BRIDGE_PROTOCOL", `The bridge began run ${index} out of turn`);
    this.#current = member;
    member.started_ms = performance.now();
    member.slot.started();
  }

  /** What the plan took the machine for decided `dtype: auto`. */
  #compareDevice(device: string): void {
    if (this.#workspace.cuda === !device.startsWith("cpu")) return;
    this.#current?.slot.context.warn(
      this.#workspace.cuda
        ? "a GPU is there but torch does not see it: training runs on the CPU"
        : "torch found a GPU that nvidia-smi does not tell of: dtype auto was taken as float32",
    );
  }

  async #finish(): Promise<void> {
    const member = this.#current;
    const result = member?.recorder.result;
    if (member === undefined || result === undefined || this.#hello === undefined)
      throw new DriverError("BRIDGE_PROTOCOL", "The bridge ended a run that it had not begun");
    await member.recorder.close();
    checkCheckpoints(member.run.planned, member.recorder.files);
    const manifest = await runManifest({
      run: member.run,
      workspace: this.#workspace,
      hello: this.#hello,
      data: member.data,
      recorder: member.recorder,
      result,
      cohort: this.#members.length,
      wall_seconds: (performance.now() - member.started_ms) / 1000,
    });
    await writeManifest(join(member.run.planned.dir, "manifest.json"), manifest);
    member.slot.context.note(describeLosses(member.recorder.losses));
    member.slot.context.note(describeProofs(result));
    const ended = worse(member.recorder.losses);
    if (ended !== undefined) member.slot.context.warn(ended);
    this.#current = undefined;
    member.slot.finished();
  }
}

function checkCheckpoints(run: PlannedRun, files: readonly FileEntry[]): void {
  const missing = run.config.checkpoints.filter(
    (step) => !files.some((file) => file.path.startsWith(`checkpoint-${step}/`)),
  );
  if (missing.length > 0)
    throw new DriverError(
      "TRAIN_FAILED",
      `Training ended without checkpoints: expected steps ${missing.join(", ")}, got none of them`,
    );
}
