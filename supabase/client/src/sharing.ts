/** Keeps the identity of what did not change, so that whoever draws it need not draw it again. */

type Row = { readonly ticket: number };

/** `after`, frozen, or `before` if all fields are the same. */
export function shareFields<T extends object | null>(before: T, after: T): T {
  const same = before === after || (before && after && sameFields(before, after));
  return same ? before : Object.freeze(after);
}

/** `after`, frozen, with the rows of `before` where they are the same; `before` if all are. */
export function shareRows<T extends Row>(
  before: readonly T[],
  after: readonly T[],
): readonly T[] {
  const known = new Map(before.map((row) => [row.ticket, row]));
  const rows = after.map((row) => {
    const was = known.get(row.ticket);
    return was ? shareFields(was, row) : Object.freeze(row);
  });
  const same = rows.length === before.length && rows.every((row, index) => row === before[index]);
  return same ? before : Object.freeze(rows);
}

function sameFields(one: object, other: object): boolean {
  const ours = Object.entries(one);
  return (
    ours.length === Object.keys(other).length &&
    ours.every(([name, value]) => Object.is(value, (other as Record<string, unknown>)[name]))
  );
}
