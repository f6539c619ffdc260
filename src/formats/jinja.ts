import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { DriverError } from "../errors.ts";

// The package's types do not resolve under nodenext (their imports lack extensions), so what is used is typed here.
interface Value {
  type: string;
  value: unknown;
}
interface Scope {
  set(name: string, value: unknown): Value;
}
interface Evaluator {
  evaluate(statement: Node | undefined, scope: Scope): Value;
  run(program: unknown): Value;
}
/** A node of the template's syntax tree; which fields it has depends on its type. */
interface Node {
  type: string;
  callee?: Node;
  args?: Node[];
  object?: Node;
  property?: { value?: unknown };
  computed?: boolean;
  operand?: Node;
  filter?: { type: string; value?: unknown };
}
const BaseInterpreter = Interpreter as unknown as new (scope: Scope) => Evaluator;
const newScope = (): Scope => new (Environment as unknown as new () => Scope)();

/** Characters that Python's `str.isspace` accepts; JavaScript's `trim` strips U+FEFF too and leaves U+0085, U+001C-1F. */
const PYTHON_SPACE = "\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";

/** Python's `str.strip(characters)` on the given sides. */
export function pythonStrip(text: string, sides: { left: boolean; right: boolean }, characters?: string): string {
  const set = characters === undefined ? `[${PYTHON_SPACE}]` : `[${characters.replace(/[\\\]^-]/g, "\\$&")}]`;
  if (characters === "") return text;
  const left = sides.left ? text.replace(new RegExp(`^${set}+`, "u"), "") : text;
  if (!sides.right) return left;
  // Not `[set]+$`, which takes quadratic time on long runs of spaces inside the text.
  const is_stripped = new RegExp(`^${set}$`, "u");
  const points = [...left];
  let end = points.length;
  while (end > 0 && is_stripped.test(points[end - 1] as string)) end--;
  return points.slice(0, end).join("");
}

const STRIP: Readonly<Record<string, { left: boolean; right: boolean }>> = {
  strip: { left: true, right: true },
  lstrip: { left: true, right: false },
  rstrip: { left: false, right: true },
};

/**
 * Runs templates as Jinja in Python does where @huggingface/jinja 0.5 does not: `strip`, `lstrip` and `rstrip` obey
 * their argument there (Qwen3's template strips "\n" and must leave spaces alone), and know Python's white space.
 */
class PythonInterpreter extends BaseInterpreter {
  override evaluate(statement: Node | undefined, scope: Scope): Value {
    const stripped =
      statement?.type === "CallExpression"
        ? this.#strip(statement, scope)
        : statement?.type === "FilterExpression"
          ? this.#trim(statement, scope)
          : undefined;
    return stripped ?? super.evaluate(statement, scope);
  }

  /** `text.strip()`, `text.lstrip("\n")`, ...; undefined for every other call. */
  #strip({ callee, args = [] }: Node, scope: Scope): Value | undefined {
    if (callee?.type !== "MemberExpression" || callee.computed === true || args.length > 1) return undefined;
    const name = String(callee.property?.value);
    const sides = Object.hasOwn(STRIP, name) ? STRIP[name] : undefined;
    if (sides === undefined) return undefined;
    const [text, characters] = [callee.object, ...args].map((node) => this.evaluate(node, scope));
    if (text?.type !== "StringValue") return undefined;
    if (characters === undefined) return toValue(pythonStrip(String(text.value), sides));
    if (characters.type !== "StringValue") return undefined;
    return toValue(pythonStrip(String(text.value), sides, String(characters.value)));
  }

  /** `text | trim`; undefined for every other filter. */
  #trim({ operand, filter }: Node, scope: Scope): Value | undefined {
    if (filter?.type !== "Identifier" || filter.value !== "trim") return undefined;
    const text = this.evaluate(operand, scope);
    return text.type === "StringValue"
      ? toValue(pythonStrip(String(text.value), { left: true, right: true }))
      : undefined;
  }
}

const toValue = (value: unknown): Value => newScope().set("value", value);

/** What transformers puts into every template, less the clock. */
function globals(): Scope {
  const environment = newScope();
  for (const [names, value] of [
    [["true", "True"], true],
    [["false", "False"], false],
    [["none", "None"], null],
  ] as const) {
    for (const name of names) environment.set(name, value);
  }
  environment.set("raise_exception", (message: unknown) => {
    throw new Error(String(message));
  });
  environment.set("range", range);
  environment.set("strftime_now", () => {
    throw new Error("the template prints the date, so the same row would be other tokens tomorrow");
  });
  return environment;
}

function range(first: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, first] : [first, stop];
  if (step === 0) throw new Error("range() expects a step that is not 0");
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, i) => from + i * step);
}

export interface CompiledTemplate {
  /** @throws DriverError DATA_INVALID when the template refuses the variables, e.g. by `raise_exception`. */
  render(variables: Readonly<Record<string, unknown>>): string;
}

/**
 * Compiles a chat template.
 *
 * @throws DriverError MODEL_INVALID when it is not Jinja.
 */
export function compileTemplate(source: string, name: string): CompiledTemplate {
  let parsed: unknown;
  try {
    parsed = new Template(source).parsed;
  } catch (cause) {
    throw new DriverError("MODEL_INVALID", `Cannot read the chat template of ${name}: ${(cause as Error).message}`, {
      hint: "Check chat_template.jinja, or chat_template in tokenizer_config.json.",
      cause,
    });
  }
  return {
    render(variables) {
      const environment = globals();
      for (const [key, value] of Object.entries(variables)) if (value !== undefined) environment.set(key, value);
      try {
        return String(new PythonInterpreter(environment).run(parsed).value);
      } catch (cause) {
        throw new DriverError(
          "DATA_INVALID",
          `The chat template of ${name} refuses the messages: ${(cause as Error).message}`,
          {
            hint: "Change the messages, or use a model whose template takes them.",
            cause,
          },
        );
      }
    },
  };
}
