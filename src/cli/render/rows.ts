import type { TokenPiece } from "../../formats/token-pieces.ts";
import { visible } from "../../formats/token-pieces.ts";

export interface RowStyle {
  /** Whether trained tokens are coloured; otherwise they stand between ⟦ and ⟧. */
  color: boolean;
  /** Whether the borders of tokens are shown. */
  borders: boolean;
}

export interface RowHead {
  line: number;
  tokens: number;
  targets: number;
  cut_tokens: number;
}

const ESC = "\u001b[";
const RESET = `${ESC}0m`;
const CODES = { target: `${ESC}32m`, special_target: `${ESC}1;32m`, special: `${ESC}2m`, plain: "" } as const;
const LINE_FEED = "↵";
const BORDER = "·";
const INDENT = "  ";

/** Says how trained tokens are marked. */
export function legend({ color, borders }: RowStyle): string {
  const trained = color ? `${CODES.target}Green tokens${RESET} are trained` : "Tokens between ⟦ and ⟧ are trained";
  return `${trained}; ${LINE_FEED} is a line feed${borders ? `; ${BORDER} ends a token` : ""}.`;
}

/** `line 17: 41 tokens, 24 trained, whole`. */
export function rowHead({ line, tokens, targets, cut_tokens }: RowHead): string {
  const cut = cut_tokens === 0 ? "" : `, ${count(cut_tokens, "token")} cut off its end`;
  return `line ${line}: ${count(tokens, "token")}, ${targets} trained${cut}`;
}

export const count = (n: number, what: string): string => `${n.toLocaleString("en-US")} ${what}${n === 1 ? "" : "s"}`;

/** A row as a terminal shows it: every trained token marked, special tokens spelled out, nothing of the data obeyed. */
export function renderRow(pieces: readonly TokenPiece[], style: RowStyle): string {
  let text = INDENT;
  let is_open = false;
  for (const piece of pieces) {
    if (!style.color && piece.is_target !== is_open) text += piece.is_target ? "⟦" : "⟧";
    is_open = piece.is_target;
    text += renderPiece(piece, style);
  }
  return `${text}${!style.color && is_open ? "⟧" : ""}`.replace(/\n *$/, "");
}

function renderPiece(piece: TokenPiece, { color, borders }: RowStyle): string {
  const code = color ? codeOf(piece) : "";
  const lines = visible(piece.text).replaceAll("\n", `${LINE_FEED}\n`).split("\n");
  const last = lines.length > 1 && lines.at(-1) === "" ? lines.length - 2 : lines.length - 1;
  if (borders) lines[last] += (piece.ids.length > 1 ? `(${piece.ids.length})` : "") + BORDER;
  return lines.map((line) => paint(line, code)).join(`\n${INDENT}`);
}

/** Each line is painted by itself, so that a pager that cuts lines shows no wrong colour. */
const paint = (text: string, code: string): string => (code === "" || text === "" ? text : `${code}${text}${RESET}`);

function codeOf({ is_target, is_special }: TokenPiece): string {
  if (is_target) return is_special ? CODES.special_target : CODES.target;
  return is_special ? CODES.special : CODES.plain;
}
