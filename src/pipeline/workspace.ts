import type { HashCache } from "../artifacts/hash.ts";

/** Which code made a result. `revision` and `dirty` are null outside a git checkout. */
export interface CodeRevision {
  version: string;
  revision: string | null;
  dirty: boolean | null;
}

/** The machine as the phases see it: where things lie and what may be used. Made by the CLI, passed to every phase. */
export interface Workspace {
  /** `$VIVARIUM_HOME`: base GGUFs, parity verdicts, hashes, the Python environment. */
  readonly home: string;
  readonly runs_dir: string;
  readonly evals_dir: string;
  readonly hashes: HashCache;
  readonly code: CodeRevision;
  /** Threads of one child process. */
  readonly num_threads: number;
  /** What samples: release of node-llama-cpp and whether it may use a GPU. A parity verdict holds for it alone. */
  readonly engine: string;
  /** sha256 of the Python lock: what trains and scores. */
  readonly bridge: string;
  /** Whether the bridge trains on a CUDA device. */
  readonly cuda: boolean;
  /** Of that device, e.g. 9; null where it is not known. */
  readonly compute_capability: number | null;
  /** Whether llama.cpp may put layers on a GPU. */
  readonly gpu: boolean;
  /** The bridge's interpreter; the environment is installed on the first call. */
  python(): Promise<string>;
}
