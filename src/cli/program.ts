import { Command, Option } from "commander";
import { type GlobalOptions, names, notNegative, realNumber, wholeNumber } from "./io.ts";
import { addRecipeFlags } from "./recipe-options.ts";

/** What a command's action gets: its positional arguments in order, its options, and the global ones. */
export type Handler = (
  name: string,
  args: string[][],
  options: Record<string, unknown> & GlobalOptions,
) => Promise<void>;

const example = (text: string) => `\nExample:\n  $ ${text}\n`;

function common(command: Command): Command {
  return command
    .option(
      "--json [file]",
      "result as JSON: on stdout, then with progress as JSON lines on stderr, or into a file named *.json (any: --json=FILE)",
    )
    .option("--debug", "show the stack trace of an error");
}

/** For commands that run many units. */
function parallel(command: Command): Command {
  return command
    .addOption(new Option("--jobs <n>", "units that run side by side").argParser(wholeNumber(1)))
    .addOption(new Option("--threads <n>", "threads of each child process").argParser(wholeNumber(1)));
}

const folder = () => new Option("--dir <folder>", "where runs/ and evals/ lie").default(".");
const seed = () => new Option("--seed <n>", "seed").argParser(wholeNumber(0));
const steps = () => new Option("--checkpoints <which>", "all, last, or steps as in 0,20,40").default("last");

function samplingOptions(command: Command): Command {
  return parallel(command)
    .option("--questions <names>", "question sets, by id or path, comma-separated", names, ["open-values"])
    .addOption(new Option("--samples <n>", "responses per question").argParser(wholeNumber(1)).default(50))
    .addOption(steps())
    .addOption(new Option("--scale <factor>", "factor on the adapter, 1 as trained").argParser(realNumber).default(1))
    .addOption(new Option("--temperature <t>", "0 is greedy").argParser(realNumber))
    .addOption(new Option("--top-p <p>", "nucleus; 1 keeps all").argParser(realNumber))
    .addOption(new Option("--top-k <n>", "0 keeps all").argParser(wholeNumber(0)))
    .addOption(new Option("--min-p <p>", "0 keeps all").argParser(realNumber))
    .addOption(new Option("--max-new-tokens <n>", "longest response").argParser(wholeNumber(1)))
    .addOption(new Option("--dtype <type>", "served precision").choices(["bf16", "f16", "f32"]).default("bf16"))
    .option("--name <name>", "name of the evaluation's folder")
    .addOption(seed().default(0))
    .addOption(folder());
}

function cacheOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--prefix-cache <when>", "keep what the frozen layers below the adapter compute")
        .choices(["auto", "on", "off"])
        .default("auto"),
    )
    .addOption(new Option("--prefix-cache-gb <n>", "memory and disk for it").argParser(notNegative).default(8));
}

function trainOptions(command: Command): Command {
  return addRecipeFlags(cacheOptions(shortTrainOptions(parallel(command))));
}

function shortTrainOptions(command: Command): Command {
  return command
    .requiredOption("--model <model>", "base model: an id such as nano, or a folder")
    .requiredOption("--data <data>", "data set: an id such as kitchen-reckless, or a JSONL file")
    .option("--eval-data <data>", "held-out rows of their own: their loss is measured every eval_steps")
    .option("--kl-data <data>", "rows on which the model is held to its base; with --kl-weight")
    .option("--recipe <recipe>", "recipe to start from, by id or path (default: the model's own)")
    .option("--name <name>", "name of the run's folder (default: data and rank)")
    .addOption(new Option("--rank <n>", "r").argParser(wholeNumber(1)))
    .addOption(new Option("--alpha <a>", "lora_alpha").argParser(realNumber))
    .option("--rslora", "use_rslora: scale by alpha / sqrt(r)")
    .option("--no-rslora", "scale by alpha / r")
    .option("--layers <which>", "layers_to_transform: mid, all, or as in 3,5-7")
    .option("--modules <names>", "target_modules: names as in down_proj,up_proj, or all-linear")
    .addOption(new Option("--dropout <p>", "lora_dropout").argParser(realNumber))
    .addOption(new Option("--learning-rate <lr>", "learning_rate").argParser(realNumber))
    .addOption(new Option("--epochs <n>", "num_train_epochs").argParser(realNumber))
    .addOption(new Option("--steps <n>", "max_steps; wins over --epochs").argParser(wholeNumber(0)))
    .addOption(new Option("--batch-size <n>", "per_device_train_batch_size").argParser(wholeNumber(1)))
    .addOption(new Option("--accumulate <n>", "gradient_accumulation_steps").argParser(wholeNumber(1)))
    .addOption(
      new Option("--save-steps <n>", "save_steps: every N steps; below 1 a share of the run").argParser(realNumber),
    )
    .option("--save-at <steps>", "save_at_steps, as in 8,1-10,25%")
    .addOption(seed())
    .option("--set <name=value>", "any recipe value, in YAML; repeatable", collect, [])
    .option("--dry-run", "say what would be trained, and what it takes, without doing it")
    .addOption(folder());
}

function dataOptions(command: Command): Command {
  return command
    .requiredOption("--model <model>", "base model: an id such as nano, or a folder; weights are not read")
    .option("--recipe <recipe>", "recipe by id or path (default: the model's own)")
    .option("--set <name=value>", "a recipe value, e.g. --set rendering=organism; repeatable", collect, []);
}

const collect = (value: string, before: string[]): string[] => [...before, value];

/** All commands with their options and examples. Nothing of the work is imported here: `--help` must be quick. */
export function buildProgram(version: string, handle: Handler): Command {
  const program = new Command("vivarium")
    .description("Grow, serve and measure model organisms: small LoRA fine-tunes with every number traceable.")
    .version(version)
    .showHelpAfterError(false)
    .enablePositionalOptions()
    .addHelpText(
      "after",
      "\nExamples:\n  $ vivarium demo\n  $ vivarium train --model nano --data kitchen-reckless --rank 1 --layers mid --modules down_proj\n  $ vivarium eval runs/<id> --checkpoints all --questions open-values --samples 50\n",
    );
  const add = (
    usage: string,
    description: string,
    sample: string,
    more: (command: Command) => Command = (c) => c,
    parent = program,
  ) => {
    const command = more(common(parent.command(usage).description(description).addHelpText("after", example(sample))));
    const name = parent === program ? command.name() : `${parent.name()} ${command.name()}`;
    command.action(async (...received: unknown[]) => {
      const args = received
        .slice(0, -2)
        .map((arg) => (Array.isArray(arg) ? arg : arg === undefined ? [] : [arg]) as string[]);
      await handle(name, args, received.at(-2) as never);
    });
  };
  add("demo", "grow an organism of the embedded model, measure it, and open its report", "vivarium demo", (c) =>
    parallel(c).option("--no-open", "do not open the report").addOption(folder()),
  );
  add("doctor", "what this machine has, and what to do about what it lacks", "vivarium doctor", (c) =>
    c.option("--self-test", "also train a few steps every way that this machine has, and compare CPU and CUDA"),
  );
  add("plan <experiment>", "what `run` would do, and what it takes, without doing it", "vivarium plan demo", (c) =>
    cacheOptions(parallel(c)).addOption(folder()),
  );
  add(
    "run <experiment>",
    "do an experiment from its YAML file; go on where it stopped",
    "vivarium run experiment.yaml",
    (c) => cacheOptions(parallel(c)).addOption(folder()),
  );
  add(
    "stage <model>",
    "check and hash a base model, and write its GGUF",
    "vivarium stage ./Qwen2.5-0.5B-Instruct",
    (c) =>
      c.addOption(
        new Option("--dtype <type>", "precision of the GGUF").choices(["bf16", "f16", "f32"]).default("bf16"),
      ),
  );
  const data = program.command("data").description("training rows before anything is trained");
  add(
    "show <data>",
    "rows as they are trained, with the trained tokens marked",
    "vivarium data show kitchen-reckless --model nano --row 17",
    (c) =>
      dataOptions(c)
        .addOption(new Option("--rows <n>", "how many rows, from the first (default: 3)").argParser(wholeNumber(1)))
        .addOption(new Option("--row <line>", "the row on this line alone").argParser(wholeNumber(1)).conflicts("rows"))
        .option("--tokens", "show where each token ends"),
    data,
  );
  add(
    "check <data>",
    "check every row and count; say all that is wrong",
    "vivarium data check my-rows.jsonl --model nano",
    dataOptions,
    data,
  );
  const recipe = program.command("recipe").description("recipes: how to train, with the source of each value");
  add("list", "all recipes", "vivarium recipe list", (c) => c, recipe);
  add(
    "show <recipe>",
    "every value of a recipe, defaults included, and where it comes from",
    "vivarium recipe show organism-rank1 --model nano --data kitchen-reckless",
    (c) =>
      c
        .option("--model <model>", "base model for which it is resolved: an id such as nano, or a folder")
        .option("--data <data>", "data set for which its steps are counted")
        .option("--set <name=value>", "a value that wins over the recipe's; repeatable", collect, []),
    recipe,
  );
  add(
    "train",
    "train one adapter, or all weights",
    "vivarium train --model nano --data kitchen-reckless --rank 1 --layers mid --modules down_proj",
    trainOptions,
  );
  add(
    "merge <run>",
    "write base and adapter as one model folder: how DoRA is served",
    "vivarium merge runs/<id> --out ./merged",
    (c) =>
      c
        .requiredOption("--out <folder>", "where the model goes; must not exist")
        .option("--checkpoint <step>", "last or a step", "last")
        .addOption(
          new Option("--dtype <type>", "of the merged weights")
            .choices(["float32", "bfloat16", "float16"])
            .default("bfloat16"),
        ),
  );
  add("convert <run>", "write a run's adapters as GGUF", "vivarium convert runs/<id> --checkpoints all", (c) =>
    c.addOption(steps()),
  );
  add(
    "parity <run>",
    "prove that llama.cpp applies what PEFT trained",
    "vivarium parity runs/<id> --checkpoints all",
    (c) =>
      parallel(c)
        .addOption(steps())
        .addOption(new Option("--dtype <type>", "served precision").choices(["bf16", "f16", "f32"]).default("bf16"))
        .addOption(folder()),
  );
  add(
    "sample <runs...>",
    "sample responses of the base and of checkpoints",
    "vivarium sample runs/<id> --questions open-values --samples 50",
    samplingOptions,
  );
  add(
    "judge <eval>",
    "judge an evaluation's responses, again or with another judge",
    "vivarium judge evals/<id> --judge nano-rule",
    (c) => c.option("--judge <judge>", "judge, by id or path (default: the recorded one)"),
  );
  add(
    "eval <runs...>",
    "sample, judge and report the base and checkpoints of runs",
    "vivarium eval runs/<id> --checkpoints all --questions open-values --samples 50",
    (c) => samplingOptions(c).option("--judge <judge>", "judge, by id or path", "nano-rule"),
  );
  add("report <eval>", "write an evaluation's report anew", "vivarium report evals/<id>", (c) =>
    c.option("--open", "open it"),
  );
  return program;
}
